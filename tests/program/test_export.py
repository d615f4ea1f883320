"""From a run directory to bundles within a budget, through the library and the script."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ondevice.config.file import from_dict
from ondevice.errors import UserError
from ondevice.program import export_run as module
from ondevice.program.bundle import load_bundle
from ondevice.program.export import Exported, ExportOptions
from ondevice.program.export_run import export_run, part_lines, table_lines
from ondevice.run.directory import Run
from ondevice.run.pipeline import Pipeline

ROOT = Path(__file__).resolve().parents[2]
SMALL = ExportOptions(methods=("forward",))


@pytest.fixture(autouse=True, scope="module")
def once() -> Iterator[None]:
    """Each model is lowered once for all tests here: that takes seconds, and what they ask is what is chosen."""
    made: dict[Any, Exported] = {}
    lower_it = module.export_packed

    def remembered(*arguments: Any) -> Exported:
        packed, options, check = arguments[1], arguments[7], arguments[8]
        values = b"".join(value.numpy().tobytes() for value in packed.state_dict().values())
        content = hashlib.sha256(values).hexdigest(), options
        if content not in made or (check and not made[content].parity):
            made[content] = lower_it(*arguments)
        return dataclasses.replace(made[content])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "export_packed", remembered)
        yield


@pytest.fixture(scope="module")
def run(
    table_files: tuple[Path, Path], session_cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """A finished run with two compact models."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    schema, path = table_files
    training = {"epochs": 1, "batch_size": 128, "learning_rate": 0.01}
    values: dict[str, Any] = {
        "data": {"name": "table", "schema": str(schema), "path": str(path)},
        "model": {"name": "deepfm", "hidden": [8]},
        "embedding": {"dim": 4},
        "train": training,
        "compact": {
            "budgets": ["60%", "20%"],
            "sizes": {"name": "pep", **training, "check_every": 5},
            "store": {"max_size": 4},
            "train": training,
        },
        "run": {"device": "cpu", "progress": False},
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ONDEVICE_CACHE", str(session_cache))
        Pipeline(from_dict(values), folder).run()
        yield folder


def test_every_compact_model_becomes_a_bundle(run: Path) -> None:
    exported = export_run(run, options=SMALL)
    assert [each.bundle.path for each in exported] == [run / "bundles" / "60pct", run / "bundles" / "20pct"]
    large, small = (load_bundle(each.bundle.path) for each in exported)
    assert large.total_bytes > small.total_bytes
    metrics = json.loads((run / "metrics.json").read_text())
    for label, each, bundle in zip(("60pct", "20pct"), exported, (large, small), strict=True):
        assert bundle.check_golden() < 1e-5
        assert bundle.manifest["metrics"]["test_auc"] == round(metrics["budgets"][label]["test_auc"], 5)
        assert each.parity["test_auc_eager"] == pytest.approx(metrics["budgets"][label]["test_auc"], abs=1e-6)
        assert each.parity["test_auc_pte"] == pytest.approx(each.parity["test_auc_eager"], abs=5e-3)
        assert bundle.manifest["name"] == f"tiny-deepfm-pep-{label}"
    lines = table_lines(exported)
    assert len(lines) == 3
    assert "60pct" in lines[1]
    assert f"{large.total_bytes:,}" in lines[1]
    assert any("embeddings" in line for line in part_lines(exported[0]))


def test_a_budget_gets_the_largest_model_that_fits(run: Path, tmp_path: Path) -> None:
    exported = export_run(run, options=SMALL, check=False)
    large, small = (each.bundle.total_bytes for each in exported)
    for budget, expected in ((large, "60pct"), (large - 1, "20pct"), (small, "20pct")):
        (result,) = export_run(
            run, budgets=[f"{budget}B"], output=tmp_path / "one", options=SMALL, check=False
        )
        assert result.label.endswith(expected)
        assert result.bundle.path == tmp_path / "one"
        assert result.bundle.total_bytes <= budget
    with pytest.raises(
        UserError, match=rf"smallest bundle .* with {small:,} bytes .*compact\.budgets"
    ) as error:
        export_run(run, budgets=[f"{small - 1}B"], output=tmp_path / "two", options=SMALL, check=False)
    assert "model.pte" in str(error.value)
    assert not (tmp_path / "two").exists()
    with pytest.raises(UserError, match="give the bytes of the whole bundle"):
        export_run(run, budgets=["5%"], options=SMALL, check=False)


def test_a_model_whose_tables_alone_exceed_the_budget_is_not_exported(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    export_label = module._RunExporter.export
    monkeypatch.setattr(
        module._RunExporter, "export", lambda self, label: asked.append(label) or export_label(self, label)
    )
    with pytest.raises(UserError, match="the smallest bundle"):
        export_run(run, budgets=["100B"], options=SMALL, check=False)
    assert asked == ["20pct"]  # to name its bytes


def test_the_program_may_be_asked_for_by_label(run: Path, tmp_path: Path) -> None:
    options = ExportOptions(quantization="none", methods=("forward",))
    (result,) = export_run(run, labels=["20pct"], output=tmp_path / "float", options=options)
    assert result.parity["packed_vs_int8_sqnr_db"] > 100
    assert result.parity["test_auc_pte"] == pytest.approx(result.parity["test_auc_eager"], abs=1e-6)
    with pytest.raises(UserError, match="no compact model '7pct'; there are: 60pct, 20pct"):
        export_run(run, labels=["7pct"], options=SMALL)
    assert Run(run).budgets() == ["60pct", "20pct"]


def script(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "export" / "to_pte.py"), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_script_prints_a_table_and_nothing_on_stderr(run: Path, tmp_path: Path) -> None:
    result = script(run, "--label", "20pct", "--methods", "forward", "--output", tmp_path / "out")
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    assert "model.pte" in result.stdout
    assert "operators delegated" in result.stdout
    assert load_bundle(tmp_path / "out").manifest["methods"].keys() == {"forward"}


def test_the_script_says_a_mistake_in_one_line(tmp_path: Path) -> None:
    result = script(tmp_path)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith(f"error: {tmp_path}: no run directory")


def test_misspelt_options_are_named(run: Path) -> None:
    for options, message in (
        (ExportOptions(layout="stair"), "did you mean 'staircase'"),
        (ExportOptions(methods=("forwrd",)), "did you mean 'forward'"),
        (ExportOptions(quantization="int4"), "did you mean 'int8'"),
    ):
        with pytest.raises(UserError, match=message):
            export_run(run, labels=["20pct"], options=options)


def test_recommend_alone_is_refused() -> None:
    """Golden cases and parity ask for scores of rows: the export ended in "no method 'rank'"."""
    with pytest.raises(UserError, match="recommend alone"):
        ExportOptions(methods=("recommend",))


def test_the_cost_of_an_export_is_the_peak_over_what_was_resident() -> None:
    began = module.Reading(10.0, {"peak": 9_000, "resident": 5_000, "anonymous": 0})
    done = module.Reading(12.5, {"peak": 8_000, "resident": 6_000, "anonymous": 0})
    assert module.export_cost(began, done, 2_000) == {
        "seconds": 2.5,
        "added_rss_bytes": 3_000,
        "dense_table_bytes": 2_000,
        "over_dense_table": 1.5,
    }


def test_what_an_export_took_lies_beside_the_bundle(run: Path) -> None:
    exported = export_run(run, options=SMALL, check=False)
    cost = json.loads((exported[0].bundle.path / module.COST).read_text())
    assert cost == exported[0].cost
    assert cost["dense_table_bytes"] == 4 * 4 * Run(run).vocabulary.num_embeddings
    keys = exported[0].bundle.vocabulary.num_keys()
    size = exported[0].bundle.file_bytes()["vocabulary.bin"]
    lines = part_lines(exported[0])
    assert f"{keys:,} keys: {size / keys:.2f} bytes of vocabulary" in lines[-2]
    assert lines[-1].startswith("made in ")
