"""The house style of a report's figures, and SVG whose colours follow the page in light and dark.

matplotlib draws with the light theme's colours; inside the page each is replaced by the CSS variable of the
same name. Figures are drawn at the width of a phone, where their text is as large as the page's.
"""

from __future__ import annotations

import io
import re
from typing import Any

WIDTH = 4.0
"""Inches of 72 points: 288 units of the SVG's own coordinates."""
TEXT, SMALL = 9.5, 8.5

COLORS = {
    "ink": "#1c1f24",
    "muted": "#646b75",
    "rule": "#d9dce1",
    "ours": "#0f766e",
    "ours-2": "#4fa79f",
    "ours-3": "#a5d3cd",
    "base": "#8b929c",
    "base-2": "#b3b8c0",
    "amber": "#c2791c",
    "slate": "#5470a6",
    "plum": "#8a5a83",
    "grain": "#c9cdd3",
    "size-0": "#e8eaed",
    "size-1": "#c3e0dc",
    "size-2": "#8fc7c0",
    "size-3": "#56aaa1",
    "size-4": "#1f877e",
    "size-5": "#0a5d57",
    "size-6": "#063f3b",
}
"""Name of a CSS variable: its colour in the light theme. All differ, so that each can be found again."""


def color(name: str) -> str:
    """The light colour of a CSS variable."""
    return COLORS[name]


def format_bytes(count: float) -> str:
    """1.96 MB, 67.4 kB, 812 B: three digits, decimal units."""
    for limit, unit in ((1e6, "MB"), (1e3, "kB")):
        if count >= limit * 0.9995:
            scaled = count / limit
            return f"{scaled:.{2 if scaled < 9.995 else 1 if scaled < 99.95 else 0}f} {unit}"
    return f"{count:.0f} B"


def format_us(microseconds: float) -> str:
    """9.3 µs, 143 µs, 1.23 ms."""
    if microseconds >= 999.5:
        return f"{microseconds / 1e3:.2f} ms"
    return f"{microseconds:.1f} µs" if microseconds < 99.95 else f"{microseconds:.0f} µs"


def new_figure(height: float, panels: int = 1, **options: Any) -> tuple[Any, Any]:
    """A figure of the house style, ``height`` inches tall, and its axes from top to bottom."""
    from matplotlib.figure import Figure
    from matplotlib.style import context

    style: dict[Any, Any] = {
        "font.family": "sans-serif",
        "font.size": TEXT,
        "axes.edgecolor": color("rule"),
        "axes.labelcolor": color("muted"),
        "axes.labelsize": SMALL,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.linewidth": 0.8,
        "axes.axisbelow": True,
        "xtick.color": color("muted"),
        "ytick.color": color("muted"),
        "xtick.labelsize": SMALL,
        "ytick.labelsize": SMALL,
        "xtick.major.size": 2.5,
        "ytick.major.size": 0,
        "text.color": color("ink"),
        "figure.facecolor": "none",
        "axes.facecolor": "none",
    }
    with context(["default", style]):  # whatever style the program around has set
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        axes = figure.subplots(panels, 1, squeeze=False, **options)[:, 0]
    return figure, axes


def set_title(axes: Any, text: str) -> None:
    """A title over the left end of the axes."""
    axes.set_title(text, loc="left", fontsize=TEXT, pad=6)


def legend(figure: Any, entries: dict[str, str], *, place: str, columns: int) -> None:
    """A legend outside the axes: name to colour."""
    from matplotlib.patches import Patch

    handles = [Patch(color=shade, label=name) for name, shade in entries.items()]
    drawn = figure.legend(
        handles=handles,
        loc=f"outside {place} left",
        ncols=columns,
        frameon=False,
        fontsize=SMALL,
        handlelength=0.9,
        handleheight=0.9,
        handletextpad=0.4,
        columnspacing=1.2,
        labelcolor=color("muted"),
    )
    drawn.set_zorder(5)


def to_png(figure: Any) -> bytes:
    """The figure as a PNG on white, with three pixels to the unit."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=216, facecolor="#ffffff")
    return buffer.getvalue()


def to_svg(figure: Any, name: str, *, themed: bool = True) -> str:
    """The figure as an ``<svg>`` element with ids of its own; colours as CSS variables when ``themed``."""
    from matplotlib import rc_context

    buffer = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->\n?", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r"url\(#", f"url(#{name}-", svg)
    svg = re.sub(r'href="#', f'href="#{name}-', svg)
    if not themed:
        return svg
    svg = re.sub(r'(<svg[^>]*?) (?:width|height)="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) (?:width|height)="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r"font: ((?:bold|\d+) )?(\d+(?:\.\d+)?px) [^;\"]*", _font, svg)
    for variable, light in COLORS.items():
        svg = svg.replace(light, f"var(--{variable})")
    return svg


def _font(match: re.Match[str]) -> str:
    """Size and weight only: the family is the page's."""
    weight = (match[1] or "").strip()
    return f"font-size: {match[2]}" + (f"; font-weight: {weight}" if weight else "")
