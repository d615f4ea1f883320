"""benchmarks/summarize.py: mean and spread of several runs, the smallest bundles, and a picture."""

from __future__ import annotations

import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.summarize import within_taught

from ..bench import sample

ROOT = Path(__file__).resolve().parents[2]
Summarize = Callable[..., tuple[int, str, str]]


@pytest.fixture
def runs(tmp_path: Path) -> list[str]:
    """Two benchmarked runs; the second one's bundles are 0.0006 better, and it has one fewer."""
    folders = []
    for seed in (0, 1):
        report = sample.report()
        report["run"]["seed"] = seed
        for entry in report["budgets"].values():
            entry["test_auc"] += 0.0006 * seed
        if seed:
            del report["budgets"]["10000"]
        folder = tmp_path / f"seed{seed}"
        folder.mkdir()
        (folder / "report.json").write_text(json.dumps(report))
        folders.append(str(folder))
    return folders


@pytest.fixture
def summarize(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Summarize:
    monkeypatch.chdir(ROOT)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["benchmarks/summarize.py", *arguments])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path("benchmarks/summarize.py", run_name="__main__")
        said = capsys.readouterr()
        return int(str(ended.value.code)), said.out, said.err

    return run


def test_mean_and_spread_of_what_all_runs_measured(
    summarize: Summarize, runs: list[str], tmp_path: Path
) -> None:
    pytest.importorskip(
        "matplotlib", reason="pictures need matplotlib: the extra ondevice-recommender[train]"
    )
    path, image = tmp_path / "summary.json", tmp_path / "curve.png"
    code, said, _ = summarize(*runs, "--json", str(path), "--picture", str(image))
    assert code == 0
    summary: dict[str, Any] = json.loads(path.read_text())
    assert summary["seeds"] == [0, 1]
    assert set(summary["programs"]) == {"fp32", "int8", "int4", "int2", "40000", "20000"}
    assert summary["programs"]["20000"]["test_auc"]["mean"] == pytest.approx(0.9010)
    assert summary["programs"]["20000"]["test_auc"]["std"] == pytest.approx(0.0006 / 2**0.5)
    # the dense model has 0.9021, the larger bundle 0.9022, the smaller one 0.9010
    assert [each["name"] for each in summary["smallest"]] == ["40000", "20000", "20000", "20000"]
    assert "0.9010 ± 0.0004" in said
    assert "− 0.002:      20000" in said
    assert image.read_bytes().startswith(b"\x89PNG")
    assert summarize(*runs, "--picture", str(image), "--beside", str(path))[0] == 0

    better = {**summary["programs"]["40000"], "bytes": {"mean": 9000.0, "std": 0.0}}
    path.write_text(json.dumps({**summary, "programs": {"9000": better}}))
    said = summarize(*runs, "--beside", str(path))[1]
    name = summary["run"]["name"]
    assert f"− 0.000: {name} 9000" in said, "bundles of the same method belong to one curve"
    other = {"run": {**summary["run"], "method": "frequency"}, "programs": {"9000": better}}
    path.write_text(json.dumps(other))
    said = summarize(*runs, "--beside", str(path))[1]
    assert "− 0.000:      40000" in said, "those of another do not"


def test_names_in_the_picture_do_not_lie_on_each_other(
    summarize: Summarize, runs: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    axes = pytest.importorskip(
        "matplotlib.axes", reason="pictures need matplotlib: the extra ondevice-recommender[train]"
    ).Axes
    names: list[str] = []
    annotate = axes.annotate
    monkeypatch.setattr(
        axes, "annotate", lambda self, text, *a, **k: (names.append(text), annotate(self, text, *a, **k))
    )
    path, image = tmp_path / "summary.json", tmp_path / "curve.png"
    assert summarize(*runs, "--json", str(path))[0] == 0
    summary: dict[str, Any] = json.loads(path.read_text())
    large = summary["programs"]["40000"]
    near = {**large, "bytes": {"mean": 0.98 * large["bytes"]["mean"], "std": 0.0}}
    small = {**large, "bytes": {"mean": 0.1 * large["bytes"]["mean"], "std": 0.0}}
    path.write_text(json.dumps({**summary, "programs": {"near": near, "small": small}}))
    assert summarize(*runs, "--picture", str(image), "--beside", str(path))[0] == 0

    def size(entry: dict[str, Any]) -> str:
        return f"{entry['bytes']['mean'] / 1000:.0f} kB"

    assert f"ondevice, {size(large)}" in names
    assert size(small) in names
    assert not any(size(near) in name for name in names), "so near that its name would be unreadable"


def test_the_careful_programs_are_averaged_and_chosen_by_their_mean_validation(
    summarize: Summarize, runs: list[str], tmp_path: Path
) -> None:
    for seed, folder in enumerate(runs):
        report = json.loads((Path(folder) / "report.json").read_text())
        for label, entry in report["budgets"].items():
            entry["valid_auc"] = {"40000": 0.91, "20000": 0.90}.get(label, 0.8)
        size = report["budgets"]["40000"]["bytes"]["bundle"]
        # good in one seed alone, good in both, and small
        programs = [("d8-int4", 1.5, 0.92 - 0.04 * seed), ("d8-int8", 2, 0.91), ("d2-int4", 0.5, 0.88)]
        report["careful"] = {
            "taught": {"bytes": 100, "valid_auc": 0.9, "test_auc": 0.9},
            "programs": [
                {"name": name, "bytes": times * size, "valid_auc": valid, "test_auc": valid - 0.01}
                for name, times, valid in programs
            ],
        }
        (Path(folder) / "report.json").write_text(json.dumps(report))
    path, image = tmp_path / "summary.json", tmp_path / "curve.png"
    drawing = tmp_path / "careful.svg"
    asked = ("--json", str(path), "--careful-picture", str(image))
    code, said, _ = summarize(*runs, *asked)
    assert code == 0
    assert image.read_bytes().startswith(b"\x89PNG")
    assert summarize(*runs, "--careful-picture", str(drawing))[0] == 0
    assert drawing.read_text().startswith("<svg")
    summary = json.loads(path.read_text())
    comparison = summary["programs"]["40000"]["careful"]
    assert comparison["as_good"]["name"] == "d8-int8"
    assert comparison["as_good"]["times_smaller"] == pytest.approx(2)
    assert comparison["as_small"]["auc_gain"] == pytest.approx(
        summary["programs"]["40000"]["test_auc"]["mean"] - 0.87
    )
    assert summary["careful"]["programs"]["d8-int4"]["valid_auc"] == {
        "mean": pytest.approx(0.90),
        "std": pytest.approx(0.04 / 2**0.5),
    }
    assert summary["careful"]["taught"]["test_auc"]["mean"] == pytest.approx(0.9)
    assert "40000: 2.00× smaller than the smallest careful program" in said


@pytest.mark.parametrize("content", [None, "no JSON", "[1]", "{}"])
def test_what_is_no_summary_is_one_line(
    summarize: Summarize, runs: list[str], tmp_path: Path, content: str | None
) -> None:
    other = tmp_path / "other.json"
    if content is not None:
        other.write_text(content)
    code, _, said = summarize(*runs, "--picture", str(tmp_path / "curve.png"), "--beside", str(other))
    assert code == 2
    assert said == f"error: --beside {other}: not a summary; write one with --json {other}\n"
    assert not (tmp_path / "curve.png").exists()


def test_a_run_that_was_not_benchmarked_is_one_line(summarize: Summarize, tmp_path: Path) -> None:
    code, _, said = summarize(str(tmp_path))
    assert code == 2
    assert said == f"error: {tmp_path}: not benchmarked yet; run python export/benchmark.py {tmp_path}\n"


def test_each_family_within_a_loss_of_the_taught_model_is_chosen_on_validation() -> None:
    def program(name: str, size: int, valid: float, test: float) -> dict[str, object]:
        return {"name": name, "bytes": size, "valid_auc": valid, "test_auc": test}

    ours = [program("a", 50, 0.9101, 0.90), program("b", 30, 0.9081, 0.99), program("c", 20, 0.9040, 0.95)]
    careful = [program("d", 90, 0.9085, 0.91), program("e", 40, 0.9010, 0.93)]
    within = within_taught(ours, careful, 0.91)
    assert [(each["loss"], each["ours"]["name"]) for each in within] == [
        (0.0, "a"),
        (0.002, "b"),
        (0.005, "b"),
        (0.01, "c"),
    ]
    assert [each["careful"] and each["careful"]["name"] for each in within] == [None, "d", "d", "e"]
