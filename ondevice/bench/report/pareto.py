"""Quality against bytes over every budget of one or several runs: which bundles are worth having."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ondevice.bench.shipped import compact_metrics, find_bundles, label_of
from ondevice.data import Dataset
from ondevice.errors import UserError
from ondevice.program.bundle import Bundle, load_bundle
from ondevice.run.directory import Run

LOSSES = (0.0, 0.002, 0.005, 0.010)
"""Test AUC below the dense fp32 model at which the smallest bundle is looked for."""
Measure = Callable[[str, Bundle, Dataset], Mapping[str, Any]]


def every_budget(run: Run, further: Sequence[str] = ()) -> list[str]:
    """Names of the bundles of all compact models of a run, and of ``further`` budgets."""
    return [*run.budgets(), *(name for name in further if name not in run.budgets())]


def open_others(paths: Sequence[str | Path], run: Run) -> list[Run]:
    """The runs at these paths.

    Raises: UserError: when one is of other data than ``run``, the same, or not finished.
    """
    others = [Run(path, run.data) for path in paths]
    fingerprint = (run.path / "fingerprint").read_text()
    for other in others:
        if other.path.resolve() == run.path.resolve():
            raise UserError(f"--also {other.path}: is the run itself; name other runs")
        if (other.path / "fingerprint").read_text() != fingerprint:
            raise UserError(f"--also {other.path}: is of other data or another split than {run.path}")
        _ = other.metrics  # says that it has not finished before anything is measured
    return others


def measure_run(run: Run, measure: Measure, say: Callable[[str], None]) -> dict[str, Any]:
    """The curve of a run: each of its budgets exported, where that is not done yet, and scored."""
    dataset, points = run.dataset(), []
    for name, folder in find_bundles(run, every_budget(run), None, say).items():
        bundle = load_bundle(folder)
        label = label_of(bundle, run.budgets())
        points.append(
            {
                **point(name, measure(name, bundle, dataset), compact_metrics(run, label, bundle)),
                "bytes": bundle.needed_bytes,
            }
        )
    return curve(run, points)


def point(name: str, measured: Mapping[str, Any], kept: Mapping[str, Any]) -> dict[str, Any]:
    """One bundle of a curve.

    Args:
        name: of the bundle.
        measured: ``test_auc`` of the program and, where it is known there, ``bytes`` of the bundle.
        kept: ``valid_auc`` and ``kept_parameters`` of the compact model.
    """
    return {
        "name": name,
        "bytes": measured.get("bytes", {}).get("bundle"),
        "test_auc": measured["test_auc"],
        "valid_auc": kept["valid_auc"],
        "kept_parameters": kept["kept_parameters"],
    }


def curve(run: Run, points: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The bundles of a run, the smallest first, and how they were trained."""
    return {
        "run": run.path.resolve().name,
        "method": run.config.compact.sizes.name,
        "training": "elastic" if run.config.compact.train.elastic else "retrained",
        "points": sorted((dict(p) for p in points), key=lambda p: p["bytes"]),
    }


def pareto(curves: Sequence[dict[str, Any]], baselines: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What ``pareto.json`` holds: curves with a name each, dense programs, and which bundles another one beats.

    A bundle is dominated when another is at most as large and at least as good, and not the same in both.

    Args:
        curves: of the runs.
        baselines: name to ``pte_bytes`` and ``test_auc`` of each dense program.
    """
    titles = [f"{c['method']}, {c['training']}" for c in curves]
    everything = [p for c in curves for p in c["points"]]
    named = []
    for title, each in zip(titles, curves, strict=True):
        points = [{**p, "dominated": any(_beats(other, p) for other in everything)} for p in each["points"]]
        name = title if titles.count(title) == 1 else f"{title} ({each['run']})"
        named.append({"name": name, **each, "points": points})
    dense = [
        {"name": name, "bytes": entry["pte_bytes"], "test_auc": entry["test_auc"]}
        for name, entry in baselines.items()
    ]
    result = {"curves": named, "baselines": dense}
    if "fp32" in baselines:
        fp32 = baselines["fp32"]
        result["smallest"] = smallest_within(everything, fp32["pte_bytes"], fp32["test_auc"])
    return result


def smallest_within(
    points: Sequence[Mapping[str, Any]], dense_bytes: float, dense_auc: float
) -> list[dict[str, Any]]:
    """For each of `LOSSES`, the smallest of the measured bundles that is no further below the dense model.

    ``name``, ``bytes``, ``test_auc`` and ``times_smaller`` are None where no bundle is that good.

    Args:
        points: with ``name``, ``bytes`` and ``test_auc``.
        dense_bytes: of the dense fp32 program.
        dense_auc: its test AUC.
    """
    within = []
    for loss in LOSSES:
        enough = [p for p in points if p["test_auc"] >= dense_auc - loss]
        best = min(enough, key=lambda p: p["bytes"], default=None)
        known = {key: best and best[key] for key in ("name", "bytes", "test_auc")}
        within.append({"loss": loss, **known, "times_smaller": best and dense_bytes / best["bytes"]})
    return within


def smallest_lines(smallest: Sequence[Mapping[str, Any]]) -> list[str]:
    """The smallest bundle at each loss as lines of text."""
    lines = ["smallest bundle at a test AUC not below dense fp32"]
    for each in smallest:
        if each["name"] is None:
            lines.append(f"  − {each['loss']:.3f}: none")
        else:
            lines.append(
                f"  − {each['loss']:.3f}: {each['name']:>10} {each['bytes']:>9,.0f} bytes, "
                f"{each['times_smaller']:.0f}× smaller, test {each['test_auc']:.4f}"
            )
    return lines


def _beats(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    least, most = one["bytes"] <= other["bytes"], one["test_auc"] >= other["test_auc"]
    same = one["bytes"] == other["bytes"] and one["test_auc"] == other["test_auc"]
    return bool(least and most and not same)


def text_lines(report: Mapping[str, Any]) -> list[str]:
    """The curves as lines of text."""
    lines = []
    for each in report["curves"]:
        lines.append(each["name"])
        for p in each["points"]:
            mark = "  another is as small and as good" if p["dominated"] else ""
            lines.append(
                f"  {p['name']:>10} {p['bytes']:>9,} bytes  valid {p['valid_auc']:.4f}  test {p['test_auc']:.4f}{mark}"
            )
    if "smallest" in report:
        lines += smallest_lines(report["smallest"])
    return lines
