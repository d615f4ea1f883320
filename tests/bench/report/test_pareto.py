"""The curve over budgets and methods: which bundles another one beats, and runs measured together."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ondevice
from ondevice.bench import run_benchmark
from ondevice.bench.report.figures import pareto_curves
from ondevice.bench.report.pareto import open_others, pareto, smallest_lines, smallest_within, text_lines
from ondevice.bench.settings import Settings
from ondevice.errors import UserError

SETTINGS = Settings(rounds=1, cold_starts=1, candidates=(1,), threads=(1,), baselines=("fp32",))


def curve(run: str, training: str, points: list[tuple[str, int, float]]) -> dict[str, Any]:
    made = [
        {"name": name, "bytes": size, "test_auc": auc, "valid_auc": auc, "kept_parameters": 1}
        for name, size, auc in points
    ]
    return {"run": run, "method": "pep", "training": training, "points": made}


def test_dominated_bundles_by_hand() -> None:
    """b is larger than c and no better; d equals e in both, so neither beats the other."""
    one = curve("one", "retrained", [("a", 10, 0.7), ("b", 30, 0.8), ("d", 40, 0.9)])
    two = curve("two", "elastic", [("c", 20, 0.8), ("e", 40, 0.9), ("f", 40, 0.85)])
    result = pareto([one, two], {"fp32": {"pte_bytes": 100, "test_auc": 0.95, "parts": {}}})
    dominated = {p["name"]: p["dominated"] for each in result["curves"] for p in each["points"]}
    assert dominated == {"a": False, "b": True, "c": False, "d": False, "e": False, "f": True}
    assert [each["name"] for each in result["curves"]] == ["pep, retrained", "pep, elastic"]
    assert result["baselines"] == [{"name": "fp32", "bytes": 100, "test_auc": 0.95}]
    assert sum("another is as small" in line for line in text_lines(result)) == 2


def test_smallest_bundle_at_each_loss_by_hand() -> None:
    """Of two that lose 0.001 the smaller; the smallest of all loses too much for any level."""
    points = [("a", 10, 0.93), ("b", 20, 0.949), ("c", 25, 0.9495), ("d", 50, 0.951)]
    one = curve("one", "retrained", points)
    result = pareto([one], {"fp32": {"pte_bytes": 100, "test_auc": 0.95}})["smallest"]
    assert [each["name"] for each in result] == ["d", "b", "b", "b"]
    assert [each["times_smaller"] for each in result] == [2, 5, 5, 5]
    none = smallest_within(one["points"], 100, 0.96)[0]
    assert none == {"loss": 0.0, "name": None, "bytes": None, "test_auc": None, "times_smaller": None}
    assert "none" in smallest_lines([none])[1]


def test_runs_of_one_kind_are_told_apart_by_their_names() -> None:
    result = pareto([curve("one", "elastic", [("a", 1, 0.5)]), curve("two", "elastic", [("a", 2, 0.6)])], {})
    assert [each["name"] for each in result["curves"]] == ["pep, elastic (one)", "pep, elastic (two)"]


def test_a_curve_far_below_the_rest_keeps_its_place_at_the_edge() -> None:
    result = pareto(
        [curve("one", "elastic", [("a", 10_000, 0.6), ("b", 40_000, 0.9)])],
        {"int2": {"pte_bytes": 200_000, "test_auc": 0.5}, "fp32": {"pte_bytes": 10**6, "test_auc": 0.901}},
    )
    (axes,) = pareto_curves(result["curves"], result["baselines"]).axes
    low, high = axes.get_ylim()
    assert 0.84 < low < 0.9 < 0.901 < high
    texts = [text.get_text() for text in axes.texts]
    assert "0.6000" in texts
    assert "int2 0.5000" in texts


def test_every_budget_of_two_runs(tiny_config: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    def config(elastic: bool = False) -> dict[str, Any]:
        return tiny_config(
            compact={
                "sizes": {"name": "frequency"},
                "budgets": [250, 120] if elastic else [150],
                "store": {"max_size": 4},
                "endpoints": ["forward"],
                "train": {"elastic": elastic, "epochs": 1},
            },
            embedding={"dim": 4},
            model={"name": "fm"},
        )

    elastic = ondevice.train(config(elastic=True), tmp_path / "elastic")
    retrained = ondevice.train(config(), tmp_path / "retrained")
    report = run_benchmark(elastic, also=[retrained.path], settings=SETTINGS, say=lambda _: None)
    one, other = report["pareto"]["curves"]
    assert (one["name"], other["name"]) == ("frequency, elastic", "frequency, retrained")
    assert [p["name"] for p in one["points"]] == ["120", "250"]
    assert [p["name"] for p in other["points"]] == ["150"]
    for path, each in ((elastic.path, one), (retrained.path, other)):
        metrics = json.loads((path / "metrics.json").read_text())["budgets"]
        for p in each["points"]:
            folder = path / "bundles" / p["name"]
            shipped = [folder / name for name in ("model.pte", "vocabulary.bin", "manifest.json")]
            assert p["bytes"] == sum(file.stat().st_size for file in shipped)
            assert p["test_auc"] == pytest.approx(metrics[p["name"]]["test_auc"], abs=0.02)
            assert p["valid_auc"] == metrics[p["name"]]["valid_auc"]
            assert set(ondevice.load_bundle(folder).manifest["methods"]) == {"forward"}
    assert json.loads((elastic.path / "pareto.json").read_text()) == report["pareto"]
    page = (elastic.path / "report.html").read_text()
    assert 'id="pareto"' in page
    assert "frequency, elastic" in page
    whole = (retrained.path / "metrics.json").rename(retrained.path / "later.json")
    with pytest.raises(UserError, match="the training has not finished"):
        open_others([retrained.path], elastic)
    whole.rename(retrained.path / "metrics.json")
    (elastic.path / "fingerprint").write_text("0" * 64)
    with pytest.raises(UserError, match="is of other data or another split"):
        open_others([retrained.path], elastic)
    with pytest.raises(UserError, match="is the run itself"):
        open_others([elastic.path], elastic)
