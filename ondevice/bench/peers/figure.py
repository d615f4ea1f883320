"""The peers in one picture: a line each, with what ships, its test AUC and its time."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ondevice.bench.report.drawing import color, format_bytes, format_us, new_figure
from ondevice.files import atomic_write


def peers_figure(report: Mapping[str, Any]) -> Any:
    """Bytes (log scale), test AUC and p50 of the most candidates, programs by falling bytes.

    Args:
        report: what `ondevice.bench.peers.compare.measure_peers` measured.
    """
    programs = sorted(report["programs"].items(), key=lambda item: item[1]["bytes"])
    most = str(report["settings"]["candidates"][-1])
    figure, _ = new_figure(0.25 * len(programs) + 0.9)
    figure.clear()
    figure.set_size_inches(9, 0.25 * len(programs) + 0.9)
    axes = figure.subplots(1, 3, sharey=True, width_ratios=(3, 3, 2))
    shades = [color("ours" if name in report["ours"] else "base") for name, _ in programs]
    places = range(len(programs))
    panels = (
        ("bytes shipped (log scale)", [e["bytes"] for _, e in programs], format_bytes),
        ("test AUC of the program", [e["test_auc"] for _, e in programs], "{:.4f}".format),
        (f"p50 of {int(most):,} candidates", [e["latency_us"][most]["p50"] for _, e in programs], format_us),
    )
    for panel, (title, values, form) in zip(axes, panels, strict=True):
        panel.set_title(title, loc="left", fontsize=9)
        panel.scatter(values, places, color=shades, s=26, zorder=3)
        panel.grid(axis="y", color=color("rule"), linewidth=0.6)
        panel.tick_params(left=False)
        for side in ("top", "right", "left"):
            panel.spines[side].set_visible(False)
        for value, place, shade in zip(values, places, shades, strict=True):
            panel.annotate(
                form(value),
                (value, place),
                xytext=(6, 0),
                textcoords="offset points",
                va="center",
                fontsize=7.5,
                color=shade,
            )
        if "log" in title:
            panel.set_xscale("log")
            panel.set_xlim(min(values) / 1.4, max(values) * 4)
        else:
            span = max(values) - min(values) or max(values)
            panel.set_xlim(min(values) - 0.08 * span, max(values) + 0.34 * span)
            panel.locator_params(axis="x", nbins=4)
    dense = report["programs"]["executorch fp32"]["test_auc"]
    axes[1].axvline(dense, color=color("rule"), linestyle=(0, (3, 2)), linewidth=0.9, zorder=0)
    axes[0].set_yticks(list(places), [name for name, _ in programs])
    for label, shade in zip(axes[0].get_yticklabels(), shades, strict=True):
        label.set_color(shade)
    return figure


def write_picture(report: Mapping[str, Any], path: str | Path) -> None:
    """Draw the picture into a PNG file."""
    import io

    buffer = io.BytesIO()
    peers_figure(report).savefig(buffer, format="png", dpi=160, facecolor="white")
    atomic_write(Path(path), buffer.getvalue())
