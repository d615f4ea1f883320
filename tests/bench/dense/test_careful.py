"""The careful opponent: trained with what ours was given, counted as ours, and never trained twice."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import ondevice
from ondevice.bench import run_benchmark
from ondevice.bench.benchmark import score_bundle
from ondevice.bench.dense.careful import (
    Uniform,
    careful_config,
    family,
    measure_careful,
    taught_baseline,
    taught_config,
)
from ondevice.bench.settings import Settings
from ondevice.config.sections import Config
from ondevice.errors import UserError
from ondevice.program.bundle import load_bundle
from ondevice.run.directory import Run

SETTINGS = Settings(
    rounds=1,
    cold_starts=1,
    candidates=(1,),
    threads=(1,),
    baselines=("fp32",),
    careful_dims=(4,),
    careful_bits=(8, 4),
)


@pytest.fixture
def run(tiny_config: Callable[..., dict[str, Any]], tmp_path: Path) -> Run:
    """A factorization machine with two teachers and a field left out."""
    compact = {
        "budgets": [100],
        "skip_fields": ["age"],
        "model": {"name": "fm"},
        "store": {"first_order": "projection"},
        "teach": {"teachers": ["dense", "dense+1"], "pairs": 0.5},
        "train": {"epochs": 3, "patience": 3, "schedule": "cosine"},
    }
    return ondevice.train(tiny_config(compact=compact), tmp_path / "run")


def test_a_family_is_trained_once_and_compared(run: Run) -> None:
    said: list[str] = []
    report = run_benchmark(run, settings=SETTINGS, say=said.append)
    by_name = {p["name"]: p for p in report["careful"]["programs"]}
    assert set(by_name) == {"d4-int4", "d4-int8"}

    # counted as ours: the whole bundle, which knows users and items and no ages
    folder = run.path / "careful" / "d4-int4"
    bundle = load_bundle(folder / "bundles" / "100pct")
    assert by_name["d4-int4"]["bytes"] == sum(bundle.file_bytes().values())
    trained = Run(folder)
    model = trained.compact("100pct")
    sizes = model.forms()[0].row_sizes()
    skipped = run.schema.names.index("age")
    begin, end = run.vocabulary.field_offsets[skipped : skipped + 2].tolist()
    assert not sizes[begin:end].any()
    assert set(sizes.tolist()) == {0, 4}
    values = model.embedding.table()
    step = values[values != 0].abs().min()
    torch.testing.assert_close(values / step, (values / step).round(), atol=1e-4, rtol=0)
    assert len((values / step).round().unique()) <= 16

    # both numbers follow from the programs
    entry = report["budgets"]["100"]
    for key in ("as_good", "as_small"):
        other = entry["careful"][key]
        if other is not None:
            assert other["name"] in by_name
    assert report["careful"]["taught"]["bytes"] == (run.path / "baselines" / "taught.pte").stat().st_size
    assert json.loads((run.path / "report.json").read_text())["careful"]["programs"]
    assert 'id="careful"' in (run.path / "report.html").read_text()
    assert (run.path / "figures" / "careful.svg").exists()

    assert [text for text in said if "trained" in text] == [
        "careful d4-int4: trained, 1 of 2",
        "careful d4-int8: trained, 2 of 2",
        "dense, taught: trained",
    ]
    said.clear()
    again = measure_careful(run, SETTINGS, score_bundle, said.append)
    assert again == report["careful"]["programs"]
    assert taught_baseline(run, said.append) is not None
    assert not [text for text in said if "trained" in text]

    # what was trained before takes part, whatever is asked for now; with nothing asked for there is no comparison
    fewer = dataclasses.replace(SETTINGS, careful_bits=(4,))
    assert measure_careful(run, fewer, score_bundle, said.append) == again
    assert measure_careful(run, dataclasses.replace(fewer, careful_dims=()), score_bundle, said.append) == []


def test_its_configuration_is_the_runs_but_for_sizes_and_store(
    tiny_config: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    teach = {"teachers": ["dense", "dense+1", "runs/other"], "pairs": 0.5, "label_weight": 0.1}
    store = {"first_order": "projection", "linear_bits": 4, "fingerprint_bits": 8}
    values = tiny_config(compact={"teach": teach, "store": store, "train": {"epochs": 7}})
    (folder / "config.yaml").write_text(yaml.safe_dump(values))
    run = Run(folder)
    config = careful_config(run, Uniform(4, 2, min_count=3))
    ours, theirs = run.config.flat(), config.flat()
    changed = {key for key in {*ours, *theirs} if ours.get(key) != theirs.get(key)}
    assert {key.rpartition(".")[0] for key in changed} <= {"compact.sizes", "compact.store", "compact"}
    assert changed & {"compact.store.first_order", "compact.store.linear_bits"} == set()
    assert config.compact.sizes.options == {"min_count": 3}
    assert (config.compact.store.max_size, config.compact.store.codes.code_dims) == (4, 4)  # type: ignore[union-attr]

    taught = taught_config(run)
    assert taught.teach.teachers == (f"{folder}/dense", f"{folder}/dense+1", "runs/other")
    assert (taught.train.epochs, taught.train.learning_rate) == (7, run.config.train.learning_rate)
    assert taught.model == run.config.model


def test_the_family_has_what_a_byte_and_the_dense_model_can_hold() -> None:
    config = Config()
    every = Settings(careful_dims=(2, 4, 64), careful_bits=(8, 2), careful_min_counts=(1, 3))
    names = [uniform.name for uniform in family(config, every)]
    assert [Uniform.named(name) for name in names] == list(family(config, every))
    assert Uniform.named("taught") is None
    assert names == ["d4-int2", "d4-int2-min3", "d2-int8", "d2-int8-min3", "d4-int8", "d4-int8-min3"]
    assert list(family(config, Settings())) == []
    with pytest.raises(UserError, match="careful bits: 8, 4 or 2, got 3"):
        Settings(careful_bits=(3,))
