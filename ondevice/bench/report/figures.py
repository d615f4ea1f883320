"""The figures of a report. Each takes plain values and returns a matplotlib figure."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from ondevice.bench.report.drawing import SMALL, color, format_bytes, format_us, legend, new_figure, set_title

PART_COLORS = {
    "embeddings": "ours",
    "first_order": "ours-3",
    "other_weights": "amber",
    "catalog": "plum",
    "program_overhead": "base",
    "vocabulary": "slate",
    "manifest": "grain",
}
"""Part of a program or bundle: its colour."""

PART_NAMES = {
    "embeddings": "embeddings",
    "first_order": "first-order weights",
    "other_weights": "MLP and other weights",
    "catalog": "catalogue",
    "program_overhead": "program overhead",
    "vocabulary": "vocabulary",
    "manifest": "manifest",
}
"""Part of a program or bundle, in words."""


def quality_against_bytes(points: Sequence[Mapping[str, Any]], curve: Sequence[Mapping[str, Any]]) -> Any:
    """Test AUC against shipped bytes, log x: the baselines as points, the budgets as a curve.

    A baseline far below everything else stands at the lower edge with its value, so that it does not flatten
    the rest.

    Args:
        points: baselines, each with ``name``, ``bytes``, ``auc``.
        curve: budgets, the same keys.
    """
    figure, (axes,) = new_figure(3.1)
    ordered = sorted(curve, key=lambda p: p["bytes"])
    dense = next((p["auc"] for p in points if p["name"] == "fp32"), None)
    core = [p["auc"] for p in ordered] + ([dense] if dense is not None else [])
    span = max(max(core) - min(core), 0.004)
    low = min([min(core), *(p["auc"] for p in points if p["auc"] > min(core) - span)]) - 0.3 * span
    high = max([*core, *(p["auc"] for p in points)]) + 0.34 * span
    axes.set_ylim(low, high)
    axes.locator_params(axis="y", nbins=5)
    everything = [p["bytes"] for p in [*points, *ordered]]
    left, right = min(everything) / 9, max(everything) * 2.8
    axes.set_xscale("log")
    axes.set_xlim(left, right)
    _log_byte_ticks(axes, left, right)
    if dense is not None:
        axes.axhline(dense, color=color("rule"), linewidth=0.9, linestyle=(0, (3, 2)), zorder=0)
    xs, ys = [p["bytes"] for p in ordered], [p["auc"] for p in ordered]
    axes.plot(xs, ys, color=color("ours"), linewidth=1.6, marker="o", markersize=5)
    for p, over in _sides(points, 0.05 * (high - low)):
        below = p["auc"] < low
        y = low + 0.045 * (high - low) if below else p["auc"]
        axes.plot(p["bytes"], y, "v" if below else "s", color=color("base"), markersize=4.5)
        place: dict[str, Any] = (
            {"xytext": (0, 6), "va": "bottom"} if over or below else {"xytext": (0, -6), "va": "top"}
        )
        text = f"{p['name']} {p['auc']:.4f}" if below else p["name"]
        label = f"{text}\n{format_bytes(p['bytes'])}"
        place |= {"textcoords": "offset points", "ha": "center", "linespacing": 1.1}
        axes.annotate(label, (p["bytes"], y), fontsize=SMALL, color=color("muted"), **place)
    for p, y in zip(ordered, spread(ys, 0.062 * (high - low)), strict=True):
        place = {"xytext": (p["bytes"] / 1.13, y), "ha": "right", "va": "center", "fontweight": "bold"}
        label = f"{p['name']} · {format_bytes(p['bytes'])}"
        axes.annotate(label, (p["bytes"], p["auc"]), fontsize=SMALL, color=color("ours"), **place)
    axes.set_xlabel("bytes shipped (log scale)")
    axes.set_ylabel("test AUC of the program")
    return figure


CURVE_COLORS = ("ours", "amber", "slate", "plum", "ours-2", "base-2")
"""Colours of the curves, in their order."""


def pareto_curves(curves: Sequence[Mapping[str, Any]], points: Sequence[Mapping[str, Any]]) -> Any:
    """Test AUC against shipped bytes, log x: a curve for each training and method, dense programs as squares.

    Bundles that another one beats are hollow. Points far below the rest stand at the lower edge with their value.

    Args:
        curves: each with ``name`` and ``points`` of ``bytes``, ``test_auc`` and ``dominated``.
        points: dense programs, each with ``name``, ``bytes``, ``test_auc``.
    """
    figure, (axes,) = new_figure(3.5)
    drawn = [p for each in curves for p in each["points"]]
    best = max(p["test_auc"] for p in [*drawn, *points])
    span = min(best - min(p["test_auc"] for p in [*drawn, *points]), 0.04)
    low, high = best - 1.12 * max(span, 0.004), best + 0.3 * max(span, 0.004)
    axes.set_ylim(low, high)
    axes.locator_params(axis="y", nbins=6)
    everything = [p["bytes"] for p in [*drawn, *points]]
    left, right = min(everything) / 1.6, max(everything) * 2.2
    axes.set_xscale("log")
    axes.set_xlim(left, right)
    _log_byte_ticks(axes, left, right)
    axes.grid(axis="y", color=color("rule"), linewidth=0.6)
    dense = next((p["test_auc"] for p in points if p["name"] == "fp32"), None)
    if dense is not None:
        axes.axhline(dense, color=color("base"), linewidth=0.9, linestyle=(0, (3, 2)), zorder=0)
    edge = low + 0.03 * (high - low)
    for p, over in _sides([{**p, "auc": p["test_auc"]} for p in points], 0.02 * (high - low)):
        below = p["test_auc"] < low
        y = edge if below else p["test_auc"]
        axes.plot(p["bytes"], y, "v" if below else "s", color=color("base"), markersize=4.5)
        label = f"{p['name']} {p['test_auc']:.4f}" if below else p["name"]
        place: dict[str, Any] = (
            {"xytext": (0, 5), "va": "bottom"} if over or below else {"xytext": (0, -5), "va": "top"}
        )
        place |= {"textcoords": "offset points", "ha": "center"}
        axes.annotate(label, (p["bytes"], y), fontsize=SMALL, color=color("muted"), **place)
    entries, num_below = {}, 0
    for number, each in enumerate(curves):
        shade = color(CURVE_COLORS[number % len(CURVE_COLORS)])
        entries[each["name"]] = shade
        curve = each["points"]
        heights = [max(p["test_auc"], edge) for p in curve]
        axes.plot([p["bytes"] for p in curve], heights, color=shade, linewidth=1.5, zorder=2 + number)
        for p, y in zip(curve, heights, strict=True):
            fill = "none" if p["dominated"] else shade
            marker = "v" if p["test_auc"] < low else "o"
            axes.plot(
                p["bytes"], y, marker, color=shade, markerfacecolor=fill, markersize=4.8, zorder=3 + number
            )
            if p["test_auc"] < low:
                place = {"xytext": (6, 9 * num_below), "textcoords": "offset points", "va": "center"}
                num_below += 1
                axes.annotate(
                    f"{p['test_auc']:.4f}", (p["bytes"], y), fontsize=SMALL - 1, color=shade, **place
                )
    legend(figure, entries, place="lower", columns=2)
    axes.set_xlabel("bytes shipped (log scale)")
    axes.set_ylabel("test AUC of the program")
    return figure


def _sides(points: Sequence[Mapping[str, Any]], same: float) -> list[tuple[Mapping[str, Any], bool]]:
    """Whether each point's label stands over it: below where a close, larger point has its own label over it."""
    sides: list[tuple[Mapping[str, Any], bool]] = []
    for p in sorted(points, key=lambda p: -p["bytes"]):
        over = True
        if sides and sides[-1][0]["bytes"] < 2.5 * p["bytes"]:
            larger, larger_over = sides[-1]
            over = not larger_over if abs(p["auc"] - larger["auc"]) < same else p["auc"] > larger["auc"]
        sides.append((p, over))
    return sides


def _log_byte_ticks(axes: Any, low: float, high: float) -> None:
    from matplotlib.ticker import FixedLocator, NullLocator

    for steps in ((1, 2, 5), (1, 4), (1,)):
        ticks = [step * 10**power for power in range(10) for step in steps if low <= step * 10**power <= high]
        if len(ticks) <= 5:
            break
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.set_xticklabels([_short_bytes(tick) for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())


def _short_bytes(count: float) -> str:
    return (
        f"{count / 1e6:g} MB" if count >= 1e6 else f"{count / 1e3:g} kB" if count >= 1e3 else f"{count:g} B"
    )


def bytes_breakdown(everything: Mapping[str, Mapping[str, int]], ours: Sequence[str]) -> Any:
    """Stacked bars of what every program's bytes are; below, the bundles alone on a scale of their own.

    Args:
        everything: name to bytes by part; baselines first.
        ours: the names that are bundles.
    """
    first = 0.34 + 0.24 * len(everything)
    second = 0.34 + 0.24 * len(ours)
    figure, (top, bottom) = new_figure(first + second + 1.05, 2, height_ratios=[first, second])
    _stacked(top, everything, set(ours))
    set_title(top, "every program, on one scale")
    _stacked(bottom, {name: everything[name] for name in ours}, set(ours))
    set_title(bottom, "the bundles alone")
    used = [part for part in PART_COLORS if any(parts.get(part) for parts in everything.values())]
    entries = {PART_NAMES[part]: color(PART_COLORS[part]) for part in used}
    legend(figure, entries, place="lower", columns=2)
    return figure


def _stacked(axes: Any, bars: Mapping[str, Mapping[str, int]], ours: set[str]) -> None:
    widest = max(sum(parts.values()) for parts in bars.values())
    for row, (name, parts) in enumerate(bars.items()):
        left = 0
        for part, shade in PART_COLORS.items():
            amount = parts.get(part, 0)
            if amount:
                axes.barh(row, amount, left=left, height=0.62, color=color(shade), linewidth=0)
            left += amount
        axes.text(
            left + widest * 0.012,
            row,
            format_bytes(left),
            va="center",
            fontsize=SMALL,
            color=color("ours" if name in ours else "muted"),
            fontweight="bold" if name in ours else "normal",
        )
    axes.set_yticks(range(len(bars)), list(bars))
    for label in axes.get_yticklabels():
        label.set_color(color("ours" if label.get_text() in ours else "ink"))
    axes.invert_yaxis()
    axes.set_xlim(0, widest * 1.2)
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_formatter(lambda value, _: "0" if not value else _short_bytes(value))
    axes.locator_params(axis="x", nbins=4)


def size_distribution(fields: Sequence[Mapping[str, Any]], dim: int) -> Any:
    """How many dimensions the rows of each field keep: a bar per field, shaded by size.

    Args:
        fields: each with ``name`` and ``sizes`` (kept dimensions of each of its rows).
        dim: the full dimension.
    """
    classes = size_classes([size for field in fields for size in field["sizes"]])
    figure, (axes,) = new_figure(0.75 + 0.3 * len(fields))
    shades = [color(f"size-{min(i + (classes[0] != (0, 0)), 6)}") for i in range(len(classes))]
    for row, field in enumerate(fields):
        sizes, left = list(field["sizes"]), 0.0
        for (low, high), shade in zip(classes, shades, strict=True):
            share = sum(low <= size <= high for size in sizes) / max(1, len(sizes))
            axes.barh(row, share, left=left, height=0.66, color=shade, linewidth=0)
            left += share
        mean = sum(sizes) / max(1, len(sizes))
        axes.text(1.015, row, f"{mean:.1f}", va="center", fontsize=SMALL, color=color("muted"))
    axes.text(1.015, -0.85, "mean", va="center", fontsize=SMALL, color=color("muted"))
    axes.set_yticks(range(len(fields)), [f"{f['name']}  ({len(f['sizes']):,})" for f in fields])
    for label in axes.get_yticklabels():
        label.set_color(color("ink"))
    axes.set_xlim(0, 1)
    axes.set_ylim(len(fields) - 0.5, -0.6)
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_xlabel(f"share of the field's rows, by kept dimensions of {dim}")
    names = [str(low) if low == high else f"{low}–{high}" for low, high in classes]
    legend(figure, dict(zip(names, shades, strict=True)), place="upper", columns=len(classes))
    return figure


def size_classes(sizes: Sequence[int], most: int = 6) -> list[tuple[int, int]]:
    """Ranges (low, high) that the sizes fall in: each size its own, or ranges of doubling width when many."""
    distinct = sorted(set(sizes))
    if len(distinct) <= most:
        return [(size, size) for size in distinct]
    ranges, low, high = [(0, 0)], 1, 1
    while low <= distinct[-1]:
        ranges.append((low, high))
        low, high = high + 1, high * 2
    return [r for r in ranges if any(r[0] <= size <= r[1] for size in distinct)]


def latency_bars(latency: Mapping[str, Sequence[Mapping[str, Any]]], threads: Sequence[str]) -> Any:
    """p50 of one call as bars, a line on to p95: a panel for each number of candidates.

    Args:
        latency: candidates to bars; each has ``name``, ``ours`` and ``p50``, ``p95`` by number of threads.
        threads: numbers of threads, one shade each.
    """
    rows = max(len(bars) for bars in latency.values())
    step = 0.145 * len(threads) + 0.1
    figure, panels = new_figure((0.42 + rows * step) * len(latency) + 0.2, len(latency))
    for axes, (candidates, bars) in zip(panels, latency.items(), strict=True):
        widest = 1.25 * max(bar["p50"][t] for bar in bars for t in threads)
        height = 0.78 / len(threads)
        for row, bar in enumerate(bars):
            for i, count in enumerate(threads):
                y, p50, p95 = (
                    row + (i - (len(threads) - 1) / 2) * height,
                    bar["p50"][count],
                    bar["p95"][count],
                )
                shade = ("ours", "ours-2") if bar["ours"] else ("base", "base-2")
                axes.barh(y, p50, height=height * 0.88, color=color(shade[min(i, 1)]), linewidth=0)
                axes.plot([p50, min(p95, widest)], [y, y], color=color("muted"), linewidth=0.7)
                text = {
                    "va": "center",
                    "fontsize": SMALL - 1,
                    "color": color("ours" if bar["ours"] else "muted"),
                }
                axes.text(widest * 1.02, y, format_us(p50), **text)
        axes.set_yticks(range(len(bars)), [bar["name"] for bar in bars])
        for label, bar in zip(axes.get_yticklabels(), bars, strict=True):
            label.set_color(color("ours" if bar["ours"] else "ink"))
        axes.invert_yaxis()
        axes.set_xlim(0, widest)
        axes.spines["left"].set_visible(False)
        axes.spines["bottom"].set_visible(False)
        axes.set_xticks([])
        plural = "candidate" if candidates == "1" else "candidates"
        set_title(axes, f"{int(candidates):,} {plural}")
    return figure


def learning_curves(curves: Mapping[str, Sequence[Mapping[str, Any]]]) -> Any:
    """Validation AUC by epoch of every training; below, the kept values of the search.

    Args:
        curves: name to epochs with ``epoch``, ``valid_auc`` and, for ``search``, ``kept``.
    """
    search = [point for point in curves.get("search", []) if point.get("kept")]
    trained = {name: points for name, points in curves.items() if points and name != "search"}
    figure, panels = new_figure(
        4.2 if search else 2.8, 2 if search else 1, height_ratios=[3, 1.6] if search else [1]
    )
    last = _trainings(panels[0], trained)
    if search:
        _kept_values(panels[1], search)
    for axes, epochs in zip(panels, (last, search[-1]["epoch"] if search else 0), strict=False):
        axes.set_xticks([tick for tick in axes.get_xticks() if 1 <= tick <= epochs and tick == int(tick)])
        axes.grid(axis="y", color=color("rule"), linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines["left"].set_visible(False)
    return figure


def _trainings(axes: Any, trained: Mapping[str, Sequence[Mapping[str, Any]]]) -> int:
    """A line for each training, its name and last value in the margin; returns the last epoch of all."""
    budgets = [name for name in trained if name != "dense"]
    last = max((points[-1]["epoch"] for points in trained.values()), default=1)
    for name, points in trained.items():
        shade = "base" if name == "dense" else ("ours", "ours-2", "ours-3")[min(budgets.index(name), 2)]
        x, y = [p["epoch"] for p in points], [p["valid_auc"] for p in points]
        axes.plot(x, y, color=color(shade), linewidth=1.5, marker="o" if len(x) == 1 else None, markersize=3)
    low, high = axes.get_ylim()
    ends = [points[-1]["valid_auc"] for points in trained.values()]
    for name, end, place in zip(trained, ends, spread(ends, (high - low) * 0.085), strict=True):
        shade = "muted" if name == "dense" else "ours"
        axes.text(last * 1.03, place, f"{name} {end:.4f}", va="center", fontsize=SMALL, color=color(shade))
    axes.set_xlim(right=last * 1.42)
    set_title(axes, "validation AUC")
    axes.set_xlabel("epoch")
    return int(last)


def _kept_values(axes: Any, search: Sequence[Mapping[str, Any]]) -> None:
    """The values that the search keeps after each epoch, log scale, its ends labelled."""
    from matplotlib.ticker import NullLocator

    x, y = [p["epoch"] for p in search], [p["kept"] for p in search]
    axes.plot(x, y, color=color("amber"), linewidth=1.5, marker="o", markersize=3)
    axes.set_yscale("log")
    axes.margins(y=0.14)
    axes.yaxis.set_major_locator(NullLocator())
    axes.yaxis.set_minor_locator(NullLocator())
    for end in (0, -1):
        place = {"xytext": (7, -2), "textcoords": "offset points", "fontsize": SMALL}
        axes.annotate(f"{y[end]:,}", (x[end], y[end]), color=color("amber"), **place)
    set_title(axes, "values kept by the search (log scale)")
    axes.set_xlim(right=x[-1] * 1.42)
    axes.set_xlabel("epoch of the search")


def spread(positions: Sequence[float], gap: float) -> list[float]:
    """The positions moved as little as needed for neighbours to be ``gap`` apart, order kept."""
    order = sorted(range(len(positions)), key=lambda i: positions[i])
    moved = list(positions)
    for _ in range(len(order) * 8):
        for a, b in itertools.pairwise(order):
            overlap = gap - (moved[b] - moved[a])
            if overlap > 1e-12:
                moved[a] -= overlap / 2
                moved[b] += overlap / 2
    return moved


FIGURES = {
    "careful": "Beside the careful opponent",
    "pareto": "Every budget and method",
    "quality": "Quality against bytes",
    "bytes": "Where the bytes are",
    "sizes": "Dimensions kept, by field",
    "latency": "Time of one call",
    "learning": "Learning curves",
}
"""Id of each figure and its title."""
