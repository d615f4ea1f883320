"""A small dense recommender and its baseline programs, made once for all tests of the benchmark; stand-in phones."""

from __future__ import annotations

import itertools
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ondevice.forms.table import TableInfo
from ondevice.methods.build import build
from ondevice.recommender import Recommender

from .phone.fake_phone import FakePhone
from .phone.phones import write_bundle

FIELD_SIZES = (40, 3, 7, 25, 10)
DIM = 8


def small_recommender(model: str = "deepfm", dim: int = DIM, **options: object) -> Recommender:
    """An untrained recommender whose tables are as large as trained ones."""
    torch.manual_seed(0)
    offsets = torch.tensor([0, *FIELD_SIZES]).cumsum(0)
    info = TableInfo(offsets, torch.ones(int(offsets[-1]), dtype=torch.int64))
    recommender = build(
        info, model=model, model_options=options, method="uniform", method_options={}, embedding_dim=dim
    )
    with torch.no_grad():
        for table in recommender.tables():
            table.weight.normal_(0, 0.3)
        recommender.bias.fill_(-0.4)
        for module in recommender.modules():
            if isinstance(module, torch.nn.BatchNorm1d):
                assert module.running_mean is not None
                assert module.running_var is not None
                module.running_mean.normal_(0, 0.2)
                module.running_var.uniform_(0.5, 2)
    return recommender.eval()


def rows_of(recommender: Recommender, count: int, seed: int = 1) -> torch.Tensor:
    """Random rows of valid ids, (count, F) int64."""
    generator = torch.Generator().manual_seed(seed)
    offsets = recommender.info.field_offsets
    columns = [
        torch.randint(int(a), int(b), (count,), generator=generator) for a, b in itertools.pairwise(offsets)
    ]
    return torch.stack(columns, 1)


@pytest.fixture(scope="session")
def dense() -> Recommender:
    return small_recommender(hidden=(16,))


@pytest.fixture(scope="session")
def baselines(dense: Recommender) -> dict:
    from ondevice.bench.dense.baselines import FORMATS, make_baseline

    return {name: make_baseline(dense, name, max_batch=64) for name in FORMATS}


@pytest.fixture(scope="session")
def programs(baselines: dict, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Format to the .pte file of its baseline."""
    folder = tmp_path_factory.mktemp("baselines")
    for name, baseline in baselines.items():
        (folder / f"{name}.pte").write_bytes(baseline.pte)
    return {name: folder / f"{name}.pte" for name in baselines}


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """A function that puts the stand-in for adb on PATH, with a scenario, and returns its folder."""

    def make(**scenario: Any) -> Path:
        folder = tmp_path / "platform-tools"
        FakePhone.create(folder / "phone", **scenario)
        (folder / "scenario.json").write_text(json.dumps(scenario))
        program, here = folder / "adb", Path(__file__).parent / "phone"
        code = (here / "fake_adb.py").read_text(encoding="utf-8")
        # Isolated and without site-packages, which starts sooner.
        program.write_text(
            f"#!{sys.executable} -IS\nimport sys; sys.path.insert(0, {str(here)!r})\n{code}",
            encoding="utf-8",
        )
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
        return folder

    for name in ("ADB", "ANDROID_SERIAL"):
        monkeypatch.delenv(name, raising=False)
    return make


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "bundles" / "64KB")
