"""Exports that several tests share: each takes seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest

from ondevice.data import Dataset
from ondevice.program.bundle import Bundle
from ondevice.program.endpoints import ENDPOINTS, Endpoint
from ondevice.program.executorch import ExecuTorch
from ondevice.program.export import Exported, ExportOptions, export_model
from ondevice.program.target import Lowered

from ..once import made_once, shared_folder
from . import shop

Export = Callable[..., Exported]


@cache
def shop_data() -> Dataset:
    return shop.dataset()


@pytest.fixture(scope="session")
def data() -> Dataset:
    return shop_data()


@contextmanager
def lowered_once(file: Path) -> Iterator[None]:
    """Programs that the block makes are kept in a file, from which the next process that enters it reads them."""

    def shared(self: ExecuTorch, endpoints: Mapping[str, Endpoint]) -> Lowered:
        return made_once(file, lambda: lower(self, endpoints))

    lower = ExecuTorch.lower
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ExecuTorch, "lower", shared)
        yield


@cache
def exported_shop(
    folder: Path, model: str, layout: str, quantization: str, methods: tuple[str, ...]
) -> Exported:
    with lowered_once(folder / "-".join(("lowered", model, layout, quantization, *methods))):
        return export_model(
            shop.recommender(model, layout, shop_data()),
            shop_data(),
            name=f"shop-{model}",
            model=model,
            method="pep",
            metrics={"test_auc": 0.5},
            options=ExportOptions(layout, quantization, methods, catalog=True, top_k=5, max_batch=64),
        )


@pytest.fixture(scope="session")
def export(tmp_path_factory: pytest.TempPathFactory) -> Export:
    """Export a model of the shop, once per model, layout, quantization and methods: for all processes of the tests."""
    folder = shared_folder(tmp_path_factory)

    def run(model: str, layout: str, quantization: str, methods: tuple[str, ...]) -> Exported:
        return exported_shop(folder, model, layout, quantization, methods)

    return run


@pytest.fixture(scope="session")
def exported(export: Export) -> Exported:
    """A DeepFM with all methods."""
    return export("deepfm", "staircase", "int8", ENDPOINTS)


@pytest.fixture
def bundle(exported: Exported, tmp_path: Path) -> Bundle:
    """That model's bundle, written where the test may break it."""
    return exported.bundle.write(tmp_path / "bundle")
