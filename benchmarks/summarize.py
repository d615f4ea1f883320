"""Mean and spread of several benchmarked runs (the same config, other seeds): a table, a picture, a JSON file.

python benchmarks/summarize.py runs/seed0 runs/seed1 runs/seed2 [--json FILE] [--picture FILE] [--beside OTHER.json …]
    [--careful-picture FILE]
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ondevice.bench.report.careful import against_careful, as_good_text, as_small_text, curves_beside
from ondevice.bench.report.pareto import LOSSES, smallest_lines, smallest_within
from ondevice.errors import UserError, run_script
from ondevice.files import atomic_json, atomic_write

NAME_POINTS = (42, 12)
"""Width and height that the name of a point in the picture takes, in points of 1/72 inch."""


def read_report(folder: str) -> dict[str, Any]:
    """report.json of a run directory."""
    try:
        content: dict[str, Any] = json.loads((Path(folder) / "report.json").read_text())
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{folder}: not benchmarked yet; run python export/benchmark.py {folder}") from None
    return content


def read_summary(name: str) -> dict[str, Any]:
    """What ``--json`` wrote."""
    try:
        content: dict[str, Any] = json.loads(Path(name).read_text())
        if not {"run", "programs"} <= content.keys():
            raise ValueError
    except (OSError, ValueError, AttributeError):
        raise UserError(f"--beside {name}: not a summary; write one with --json {name}") from None
    return content


def spread(values: list[float]) -> dict[str, float]:
    """Mean and standard deviation, which one value alone has none of."""
    mean = {"mean": statistics.fmean(values)}
    return {**mean, "std": statistics.stdev(values)} if len(values) > 1 else mean


def figures_of(entry: dict[str, Any], dense_auc: float) -> dict[str, float]:
    """What is averaged of one program."""
    shipped = entry["bytes"]["bundle"] if "bytes" in entry else entry["pte_bytes"]
    values = {"bytes": shipped, "test_auc": entry["test_auc"], "over_dense": entry["test_auc"] - dense_auc}
    for count, times in entry["latency_us"].items():
        values[f"p50_us_{count}"] = times["p50"]
        values[f"over_int8_{count}"] = times["over_reference"]
    values["added_rss_bytes"] = entry["memory"]["added_rss_bytes"]
    if "valid_auc" in entry:
        values["valid_auc"] = entry["valid_auc"]
    return values


def careful_of(reports: list[dict[str, Any]], programs: dict[str, Any]) -> dict[str, Any]:
    """Mean ± std of the careful programs that all reports have, and of the taught dense one.

    What each of our bundles is worth against them goes into its entry, from the means: chosen on validation.
    """
    each_run = [{p["name"]: p for p in report["careful"]["programs"]} for report in reports]
    careful = {
        name: {
            key: spread([each[name][key] for each in each_run]) for key in ("bytes", "valid_auc", "test_auc")
        }
        for name in each_run[0]
        if all(name in each for each in each_run)
    }
    means = [{"name": name, **{key: e[key]["mean"] for key in e}} for name, e in careful.items()]
    for entry in programs.values():
        if entry["kind"] == "budgets":
            ours = {key: entry[key]["mean"] for key in ("bytes", "valid_auc", "test_auc")}
            entry["careful"] = against_careful(ours, means)
    taught = [report["careful"]["taught"] for report in reports]
    known = None
    if all(each is not None for each in taught):
        known = {key: spread([each[key] for each in taught]) for key in ("bytes", "valid_auc", "test_auc")}
    points = [
        {"name": name, **{key: entry[key]["mean"] for key in ("bytes", "valid_auc", "test_auc")}}
        for name, entry in programs.items()
        if entry["kind"] == "budgets"
    ]
    within = {} if known is None else {"within": within_taught(points, means, known["valid_auc"]["mean"])}
    return {"programs": careful, "taught": known, **within}


def within_taught(
    ours: list[dict[str, Any]], careful: list[dict[str, Any]], valid_auc: float
) -> list[dict[str, Any]]:
    """The smallest program of each family whose validation AUC is no more than a loss below the taught dense model's.

    Args:
        ours: name, bytes, valid_auc and test_auc of each.
        careful: of the careful programs.
        valid_auc: of the taught dense model.

    Returns: for each of `LOSSES` the ``loss``, and a program or None as ``ours`` and as ``careful``.
    """
    return [
        {
            "loss": loss,
            **{
                family: min(
                    (each for each in points if each["valid_auc"] >= valid_auc - loss),
                    key=lambda each: each["bytes"],
                    default=None,
                )
                for family, points in (("ours", ours), ("careful", careful))
            },
        }
        for loss in LOSSES
    ]


def careful_lines(programs: dict[str, Any]) -> list[str]:
    """Both numbers of every bundle as lines of text."""
    return [
        f"{name}: {as_good_text(entry['careful'])}; {as_small_text(entry['careful'])}"
        for name, entry in programs.items()
        if "careful" in entry
    ]


def careful_picture(summary: dict[str, Any], path: Path) -> None:
    """Ours beside the careful programs, as the report draws them: PNG, or SVG by the file's name."""
    from ondevice.bench.report.drawing import to_png, to_svg
    from ondevice.bench.report.figures import pareto_curves

    def means(programs: dict[str, Any]) -> list[dict[str, Any]]:
        keys = ("bytes", "test_auc")
        return [{"name": name, **{key: e[key]["mean"] for key in keys}} for name, e in programs.items()]

    programs, careful = summary["programs"], summary["careful"]
    dense = {"dense fp32": programs["fp32"]}
    if careful["taught"] is not None:
        dense = {"taught": careful["taught"], **dense}  # its name above it, the other's below
    ours = means({name: e for name, e in programs.items() if e["kind"] == "budgets"})
    figure = pareto_curves(curves_beside(ours, means(careful["programs"])), means(dense))
    path.parent.mkdir(parents=True, exist_ok=True)
    is_svg = path.suffix == ".svg"
    atomic_write(path, to_svg(figure, "careful", themed=False) if is_svg else to_png(figure))


def summarize(reports: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean ± std of every program that all reports measured."""
    programs: dict[str, Any] = {}
    for kind in ("baselines", "budgets"):
        names = [name for name in reports[0][kind] if all(name in report[kind] for report in reports)]
        for name in names:
            each = [figures_of(r[kind][name], r["baselines"]["fp32"]["test_auc"]) for r in reports]
            programs[name] = {key: spread([values[key] for values in each]) for key in each[0]}
            programs[name]["kind"] = kind
    fp32 = programs["fp32"]["bytes"]["mean"]
    for entry in programs.values():
        entry["times_smaller_than_fp32"] = fp32 / entry["bytes"]["mean"]
    return {
        "run": reports[0]["run"],
        "seeds": [report["run"]["seed"] for report in reports],
        "environment": reports[0]["environment"],
        "programs": programs,
        "smallest": smallest(programs),
        **({"careful": careful_of(reports, programs)} if all("careful" in r for r in reports) else {}),
    }


def smallest(programs: dict[str, Any]) -> list[dict[str, Any]]:
    """The smallest of our bundles at each loss of test AUC."""
    ours = [
        {"name": name, "bytes": entry["bytes"]["mean"], "test_auc": entry["test_auc"]["mean"]}
        for name, entry in programs.items()
        if entry["kind"] == "budgets"
    ]
    return smallest_within(ours, programs["fp32"]["bytes"]["mean"], programs["fp32"]["test_auc"]["mean"])


def table(summary: dict[str, Any]) -> str:
    """The programs as a Markdown table."""
    lines = [
        "| what ships | bytes | smaller | test AUC | against dense fp32 | p50 at 1 / 100 / 1000 | over int8 | memory |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name, entry in summary["programs"].items():
        ours = entry["kind"] == "budgets"
        size = f"{entry['bytes']['mean'] / 1000:,.0f} kB"
        title = f"**ondevice, {size}** (the whole bundle)" if ours else f"dense {name} (program alone)"
        delta = entry["over_dense"]
        quality = " ± ".join(f"{value:.4f}" for value in entry["test_auc"].values())
        times = " / ".join(f"{entry[f'p50_us_{n}']['mean']:.0f}" for n in (1, 100, 1000))
        ratios = " / ".join(f"{entry[f'over_int8_{n}']['mean']:.2f}×" for n in (1, 100, 1000))
        lines.append(
            f"| {title} | {entry['bytes']['mean'] / 1000:,.1f} kB | {entry['times_smaller_than_fp32']:.1f}× "
            f"| {quality} | {delta['mean']:+.4f} | {times} µs | {ratios} "
            f"| {entry['added_rss_bytes']['mean'] / 1e6:.2f} MB |"
        )
    return "\n".join(lines)


def beside(summary: dict[str, Any], others: list[dict[str, Any]]) -> dict[str, Any]:
    """The summary with the bundles of other summaries, of the same data and dense model.

    Those of another method stand under its name; those of the same method belong to the same curve.
    """
    programs = dict(summary["programs"])
    for other in others:
        for key in ("dataset", "model", "rows", "embedding_dim"):
            if other["run"][key] != summary["run"][key]:
                raise UserError(
                    f"--beside: {key} is {other['run'][key]} there and {summary['run'][key]} here"
                )
        bundles = {n: e for n, e in other["programs"].items() if e["kind"] == "budgets"}
        if other["run"]["method"] == summary["run"]["method"]:
            label, kind = other["run"]["name"], "budgets"
        else:
            label = kind = other["run"]["method"].upper()
        programs.update({f"{label} {name}": {**entry, "kind": kind} for name, entry in bundles.items()})
    return {**summary, "programs": programs, "smallest": smallest(programs)}


def picture(summary: dict[str, Any], path: Path) -> None:
    """Test AUC against shipped bytes, bars one standard deviation either way."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 3.6), dpi=160)
    ours, dense, others = "#0b7a6b", "#6b7280", "#a16207"
    points = sorted(summary["programs"].items(), key=lambda item: item[1]["bytes"]["mean"])
    kinds = {entry["kind"] for _, entry in points} - {"baselines", "budgets"}
    colours = {"baselines": dense, "budgets": ours, **dict.fromkeys(sorted(kinds), others)}
    series = {kind: [(name, e) for name, e in points if e["kind"] == kind] for kind in colours}
    for kind, marks in series.items():
        x = [e["bytes"]["mean"] / 1000 for _, e in marks]
        y = [e["test_auc"]["mean"] for _, e in marks]
        line = "none" if kind == "baselines" else "-"
        axes.errorbar(
            x,
            y,
            [e["test_auc"].get("std", 0.0) for _, e in marks],
            color=colours[kind],
            marker="o",
            linestyle=line,
            capsize=3,
            ms=5,
            zorder=2 if kind == "baselines" else 4,  # names may lie on the bars of the dense programs alone
        )
    axes.set_xscale("log")
    axes.margins(x=0.1, y=0.18)
    named: list[Any] = []
    for kind, marks in series.items():
        for name, e in reversed(marks):
            at = (e["bytes"]["mean"] / 1000, e["test_auc"]["mean"])
            ours_here = kind != "baselines"
            is_last = e is marks[-1][1]
            spot = axes.transData.transform(at) * 72 / figure.dpi
            near = any((abs(spot - before) < NAME_POINTS).all() for before in named)
            if ours_here and near and not is_last:
                continue  # its name would lie on another
            named.append(spot)
            size = f"{at[0]:.0f} kB" if at[0] < 1000 else f"{at[0] / 1000:.1f} MB"
            whose = {"budgets": "ondevice", "baselines": name}.get(kind, kind)
            label = f"{whose}, {size}" if is_last or not ours_here else size  # a curve is named once
            axes.annotate(
                label,
                at,
                xytext=(10, -4) if ours_here else (0, -15 if name == "int2" else 9),
                textcoords="offset points",
                ha="left" if ours_here else "right" if name == "int4" else "center",
                fontsize=8.5,
                color=colours[kind],
                fontweight="bold" if ours_here else "normal",
                bbox={"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none"},
            )
    axes.axhline(summary["programs"]["fp32"]["test_auc"]["mean"], color=dense, lw=0.8, ls=":")
    low, high = axes.get_xlim()
    ticks = [t for t in (10, 30, 100, 300, 1000, 3000, 10_000, 30_000, 100_000) if low <= t <= high]
    axes.set_xticks(ticks, [f"{t} kB" if t < 1000 else f"{t // 1000} MB" for t in ticks])
    axes.minorticks_off()
    axes.set_xlabel("what ships (log scale)")
    axes.set_ylabel("test AUC of the program")
    axes.set_title(
        "grey: the dense model's programs, not tuned for size", loc="right", fontsize=8.5, color=dense
    )
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.grid(axis="y", lw=0.4, alpha=0.6)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    plt.close(figure)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", help="benchmarked run directories")
    parser.add_argument("--json", help="where to write the summary")
    parser.add_argument("--beside", nargs="+", default=[], help="JSON of other summaries, to show beside")
    parser.add_argument("--picture", help="where to write test AUC against bytes (PNG)")
    parser.add_argument(
        "--careful-picture", help="where to write ours beside the careful programs (PNG, SVG)"
    )
    arguments = parser.parse_args()
    summary = summarize([read_report(folder) for folder in arguments.runs])
    together = beside(summary, [read_summary(name) for name in arguments.beside])
    print(table(summary))
    if "careful" in summary:
        print("\n".join(["", *careful_lines(summary["programs"])]))
    print("\n".join(["", *smallest_lines(together["smallest"])]))
    if arguments.json:
        atomic_json(arguments.json, summary)
    if arguments.careful_picture:
        if "careful" not in summary:
            raise UserError(
                "--careful-picture: not every run was compared with the careful programs; benchmark it again"
            )
        careful_picture(summary, Path(arguments.careful_picture))
    if arguments.picture:
        picture(together, Path(arguments.picture))
    return 0


if __name__ == "__main__":
    run_script(main)
