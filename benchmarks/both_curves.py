"""The picture of the README: both jobs, each with ours beside the careful programs and the dense model.

python benchmarks/both_curves.py docs/benchmarks/movielens_1m_careful.json \
    docs/benchmarks/movielens_1m_next_item_compact.json --image docs/img/curves.png

The first file is one of `benchmarks/summarize.py`, the second one of `benchmarks/next_item_compact.py`. A point of the
next item is the mean of the seeds that have it; its bar is their standard deviation.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ondevice.errors import UserError, run_script
from ondevice.files import atomic_write

OURS, GREY = ("#0b7a6b", "#5fae3c"), "#57606a"
"""Colours: those of our curves, and of what is no curve."""
FAMILIES = {
    "int8": ("careful, int8", "#c2761a"),
    "int4": ("careful, int4", "#4d6fa8"),
    "int2": ("careful, int2", "#85527f"),
    "rare": ("careful, rare values left out", "#b34a4a"),
    "uniform": ("careful, self-attention, int4", "#8d8d2f"),
}
Curve = list[tuple[float, float, float]]
"""Kilobytes, quality, and the standard deviation of quality."""


def family(name: str) -> str:
    """The family of a careful program by its name: ``d8-int4``, ``d8-int4-min10``, ``sasrec-uniform``."""
    return "rare" if "-min" in name else name.rsplit("-", 1)[-1]


def of_ratings(summary: Mapping[str, Any]) -> tuple[dict[str, Curve], dict[str, float]]:
    """Curves by family, ours under names that begin with ``ours``, and dense models by name with their test AUC."""
    curves: dict[str, Curve] = {"ours": []}
    for entry in summary["programs"].values():
        if entry["kind"] == "budgets":
            curves["ours"].append(_point(entry["bytes"], entry["test_auc"]))
    for name, entry in summary["careful"]["programs"].items():
        curves.setdefault(family(name), []).append(_point(entry["bytes"], entry["test_auc"]))
    dense = {"dense, fp32": summary["programs"]["fp32"]}
    if summary["careful"]["taught"] is not None:
        dense["dense, fp32, taught"] = summary["careful"]["taught"]
    return curves, {name: entry["test_auc"]["mean"] for name, entry in dense.items()}


def _point(size: Mapping[str, float], quality: Mapping[str, float]) -> tuple[float, float, float]:
    return size["mean"] / 1000, quality["mean"], quality.get("std", 0.0)


def of_next_item(content: Mapping[str, Any]) -> tuple[dict[str, Curve], dict[str, float]]:
    """The same of the next item, with test NDCG@10."""
    points: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for run in content["runs"]:
        for whose in ("ours", "careful"):
            for each in run[whose]:
                kind = (
                    f"ours, {_words(each['name'].rsplit('-', 1)[0])}"
                    if whose == "ours"
                    else family(each["name"])
                )
                seen = points.setdefault(kind, {}).setdefault(each["name"], [])
                seen.append((each["bytes"] / 1000, each["test_ndcg@10"]))
    curves = {
        kind: [
            (
                statistics.mean(s for s, _ in each),
                statistics.mean(q for _, q in each),
                _std([q for _, q in each]),
            )
            for each in of_kind.values()
        ]
        for kind, of_kind in points.items()
    }
    by_name: dict[str, list[float]] = {}
    for entry in content["dense"]:
        by_name.setdefault("dense " + _words(entry["name"]), []).append(entry["test_ndcg@10"])
    return curves, {name: statistics.mean(each) for name, each in by_name.items()}


def _words(model: str) -> str:
    return model.replace("sasrec", "self-attention").replace("_", " ")


def _std(values: list[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


def draw(ratings: Mapping[str, Any], following: Mapping[str, Any]) -> bytes:
    """Both panels as PNG."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullLocator

    figure = Figure(figsize=(10, 4.2), layout="constrained", dpi=150)
    panels = figure.subplots(1, 2)
    jobs = (
        ("Would they like it?", "test AUC", of_ratings(ratings)),
        ("What comes next?", "test NDCG@10", of_next_item(following)),
    )
    for axes, (title, measure, (curves, dense)) in zip(panels, jobs, strict=True):
        ours = [kind for kind in curves if kind.startswith("ours")]
        for kind in [*sorted(curves.keys() - {*ours}), *ours]:
            if kind in ours:
                label, colour, thick = kind.replace("ours", "ondevice"), OURS[ours.index(kind)], 2.4
            else:
                (label, colour), thick = FAMILIES[kind], 1.3
            size, quality, spread = zip(*sorted(curves[kind]), strict=True)
            axes.errorbar(
                size, quality, spread, marker="o", ms=5, color=colour, label=label, lw=thick, capsize=3
            )
        for place, (name, level) in enumerate(dense.items()):
            axes.axhline(level, color=GREY, lw=1, ls=("--", ":", "-.")[place % 3], label=name)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 1.2, 1.5, 2, 3, 4, 6)))
        axes.xaxis.set_major_formatter("{x:.0f}")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_title(title, loc="left", fontweight="bold")
        axes.set_xlabel("kB of the whole bundle (log scale)")
        axes.set_ylabel(f"{measure} of the program")
        axes.legend(loc="lower right", frameon=False, fontsize=8.5)
        axes.grid(axis="y", color="#e5e5e5", lw=0.8)
        axes.set_axisbelow(True)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    out = io.BytesIO()
    figure.savefig(out, format="png")
    return out.getvalue()


def read(path: Path, key: str) -> dict[str, Any]:
    """What a file of measurements holds.

    Raises: UserError: when it is not there, or is none of those with ``key``.
    """
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from None
    if not isinstance(content, dict) or key not in content:
        raise UserError(f"{path}: has no '{key}'; give the two files in the order of --help")
    return content


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("ratings", type=Path)
    parser.add_argument("next_item", type=Path)
    parser.add_argument("--image", type=Path, required=True)
    given = parser.parse_args(arguments)
    ratings, following = read(given.ratings, "programs"), read(given.next_item, "runs")
    given.image.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(given.image, draw(ratings, following))


if __name__ == "__main__":
    run_script(main)
