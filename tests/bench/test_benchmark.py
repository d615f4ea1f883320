"""The whole benchmark, on a run that takes seconds."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import ondevice
from ondevice.bench import run_benchmark
from ondevice.bench.settings import Settings
from ondevice.bench.shipped import find_bundles, label_of, program_rows
from ondevice.errors import UserError
from ondevice.run.directory import Run

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = Settings(
    rounds=2, cold_starts=1, candidates=(1, 8), threads=(1,), baselines=("fp32", "int8", "int2")
)


def test_a_run_is_measured_from_start_to_report(
    tiny_config: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    config = tiny_config(
        embedding={"dim": 6},
        model={"name": "fm"},
        compact={"budgets": [100], "endpoints": ["forward", "rank", "recommend"]},
    )
    run = ondevice.train(config, tmp_path / "run")
    said: list[str] = []
    report = run_benchmark(run, settings=SETTINGS, say=said.append)

    # int2 packs four values a byte and cannot hold rows of six: left out, and said so
    assert list(report["baselines"]) == ["fp32", "int8"]
    assert "multiple" in report["baselines_left_out"]["int2"]
    assert "exported 100" in said

    bundle = run.path / "bundles" / "100"
    entry = report["budgets"]["100"]
    sizes = {
        name: (bundle / name).stat().st_size for name in ("model.pte", "vocabulary.bin", "manifest.json")
    }
    assert entry["bytes"]["bundle"] == sum(sizes.values()) == sum(entry["parts"].values())
    keys = entry["keys"]["num_keys"]
    assert keys > 0
    assert entry["keys"]["vocabulary_bytes_per_key"] == pytest.approx(
        sizes["vocabulary.bin"] / keys, abs=1e-3
    )
    assert entry["keys"]["bundle_bytes_per_key"] == pytest.approx(sum(sizes.values()) / keys, abs=1e-3)
    assert entry["keys"]["vocabulary_share"] == pytest.approx(
        sizes["vocabulary.bin"] / sum(sizes.values()), abs=1e-4
    )
    assert entry["export"] == json.loads((bundle / "export.json").read_text())
    assert 0 < entry["export"]["seconds"] < 600
    assert entry["bytes"]["deflated_bundle"] < entry["bytes"]["bundle"]
    fp32 = report["baselines"]["fp32"]
    assert (
        fp32["pte_bytes"]
        == (run.path / "baselines" / "fp32.pte").stat().st_size
        == sum(fp32["parts"].values())
    )
    assert entry["times_smaller"]["fp32"] == pytest.approx(fp32["pte_bytes"] / sum(sizes.values()), abs=0.005)

    # quality of the programs is that of the models they were made of
    assert fp32["test_auc"] == pytest.approx(run.metrics["dense"]["test_auc"], abs=1e-4)
    assert fp32["test_logloss"] == pytest.approx(run.metrics["dense"]["test_logloss"], abs=1e-4)
    assert entry["test_auc"] == pytest.approx(run.metrics["budgets"]["100"]["test_auc"], abs=0.02)
    assert entry["test_auc"] == pytest.approx(entry["parity"]["test_auc_pte"], abs=1e-9)
    assert entry["parity"]["eager_vs_packed"] < 1e-5
    assert entry["parity"]["int8_vs_pte_max_abs"] < 0.02

    assert set(entry["latency"]["1"]) == {"forward", "rank"}
    assert set(fp32["latency"]["1"]) == {"forward"}
    assert entry["recommend_us"]["1"]["p50"] > 0
    assert report["baselines"]["int8"]["latency"]["1"]["forward"]["8"]["over_reference"] == 1.0

    beside = json.loads((bundle / "report.json").read_text())
    keys = {"bytes", "baselines", "parity", "latency_us", "peak_rss_bytes", "load_ms", "delegated_fraction"}
    assert keys <= set(beside)
    assert set(beside["baselines"]["int8"]["p50_us"]) == {"1", "8"}
    assert json.loads((run.path / "report.json").read_text())["headline"] == "100"
    assert (run.path / "report.html").read_text().count("<svg") == 5

    # a report beside the bundle does not hurt it, and the bundle is found again
    opened = ondevice.load_bundle(bundle)
    assert find_bundles(run, [], None, said.append) == {"100": bundle}
    assert label_of(opened, run.budgets()) == "100"
    with pytest.raises(UserError, match="no compact model of this run"):
        label_of(opened, ["50pct"])

    # ids reach the program's rows by way of the vocabulary that ships
    rows, dataset = program_rows(opened, run.vocabulary), run.dataset()
    raw = dataset.raw_rows("test", range(20))
    expected = torch.tensor([opened.encode(each).tolist() for each in raw])
    assert torch.equal(rows[torch.tensor(dataset.test.ids[:20].astype("int64"))], expected)
    assert int(rows.max()) <= opened.num_rows


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rounds": 0}, "rounds: at least 1"),
        ({"candidates": ()}, "candidates: at least 1"),
        ({"threads": (0,)}, "threads: at least 1"),
        ({"baselines": ("fp32", "int9")}, "unknown baseline 'int9'"),
        ({"baselines": ("int8",)}, "fp32 is what every ratio is taken of"),
    ],
)
def test_settings_that_make_no_sense_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Settings(**options)


def test_a_missing_package_is_named_before_anything_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ondevice.bench.NEEDED", ("torch", "no_such_package"))
    with pytest.raises(
        UserError,
        match=r"needs no_such_package; install it with pip install 'ondevice-recommender\[export,train\]'",
    ):
        run_benchmark("anything")


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no run directory"):
        Run(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "no run directory"),
        (["nowhere", "--budget", "64KB", "--bundle", "x"], "give one of them"),
        (["nowhere", "--threads", "two"], "--threads two: give whole numbers"),
    ],
)
def test_the_script_answers_a_mistake_in_one_line(arguments: list[str], message: str, tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "export" / "benchmark.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
