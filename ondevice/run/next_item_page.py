"""report.html of a run of the next item: one file that fetches nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

METRICS = ("hr@10", "ndcg@10", "recall@20", "mrr", "coverage@10")
WIDTH, HEIGHT, MARGIN = 560, 220, 46
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; color: #1b1f24; }
table { border-collapse: collapse; width: 100%; } td, th { padding: .3rem .6rem; text-align: right; }
td:first-child, th:first-child { text-align: left; } tr + tr { border-top: 1px solid #d9dee3; }
.lead { color: #57606a; } svg { max-width: 100%; height: auto; }
@media (prefers-color-scheme: dark) { body { background: #14171a; color: #e6e8ea; } .lead { color: #9aa4ae; } }
"""
LEADS = {
    "valid": "What was chosen by: the epoch that is kept has the best NDCG@10 of this split.",
    "test": "Read once, with the epoch that validation chose.",
}


def page(name: str, metrics: Mapping[str, Any]) -> str:
    """The page of a run.

    Args:
        name: of the run.
        metrics: what ``metrics.json`` holds.
    """
    entries = {name: metrics[name] for name in ("dense",) if name in metrics} | metrics.get("budgets", {})
    label, entry = next(iter(entries.items()))
    splits = [split for split in ("test", "valid") if split in entry]
    best = entry[splits[0]]["all"]
    facts = (
        f"{metrics['dataset']} · {metrics['model']} · seed {metrics['seed']} · {entry['parameters']:,} values"
    )
    sections = _models(entries, splits[0]) if len(entries) > 1 or label != "dense" else ""
    sections += "".join(
        f"<h2>{name}, {split} split</h2>\n<p class='lead'>{LEADS[split]}</p>\n"
        f"{_table(metrics, each[split])}\n"
        for name, each in entries.items()
        for split in splits
    )
    curves = "".join(
        f"<p class='lead'>{escape(name)}</p>{_curve([point['valid_ndcg@10'] for point in history])}"
        for name, history in metrics["history"].items()
        if history
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(name)}: the next item</title>
<style>{STYLE}</style>
</head>
<body>
<p class="lead">{escape(name)} — {escape(facts)}</p>
<h1>NDCG@10 {best["ndcg@10"]:.4f}, HR@10 {best["hr@10"]:.4f} on the {splits[0]} split</h1>
<p class="lead">All {metrics["items"]:,} items are ranked for each user's next one, those seen before left out; ties
count against the model. Trained for {entry["epochs"]} epochs in {entry["seconds"]:,.0f} s.</p>
{sections}<h2>Learning</h2>
<p class="lead">NDCG@10 on validation after each epoch.</p>
{curves}
<footer class="lead">The same figures for programs to read: metrics.json in this folder.</footer>
</body>
</html>
"""


def _models(entries: Mapping[str, Mapping[str, Any]], split: str) -> str:
    """The dense model and the compact ones, a line each."""
    rows = "".join(
        f"<tr><td>{escape(name)}</td><td>{entry['parameters']:,}</td>"
        f"<td>{entry.get('estimated_bytes', '') and format(entry['estimated_bytes'], ',')}</td>"
        + "".join(f"<td>{entry[split]['all'][metric]:.4f}</td>" for metric in METRICS)
        + "</tr>\n"
        for name, entry in entries.items()
    )
    head = "".join(f"<th>{name.upper()}</th>" for name in METRICS)
    return f"<table><tr><th>model</th><th>values</th><th>bytes</th>{head}</tr>\n{rows}</table>\n"


def _table(metrics: Mapping[str, Any], groups: Mapping[str, Mapping[str, float]]) -> str:
    head = "".join(f"<th>{name.upper()}</th>" for name in METRICS)
    rows = "".join(
        f"<tr><td>{escape(group)}</td><td>{figures.get('users', metrics['users']):,}</td>"
        + "".join(f"<td>{figures[name]:.4f}</td>" for name in METRICS)
        + "</tr>\n"
        for group, figures in groups.items()
    )
    return f"<table><tr><th>users</th><th>number</th>{head}</tr>\n{rows}</table>"


def _curve(values: Sequence[float]) -> str:
    """A line over the epochs, as SVG, with the best one marked."""
    top, last = max(max(values), 1e-9), max(len(values) - 1, 1)

    def at(place: int) -> tuple[float, float]:
        across = MARGIN + (WIDTH - 2 * MARGIN) * place / last
        return across, HEIGHT - MARGIN - (HEIGHT - 2 * MARGIN) * values[place] / top

    best = max(range(len(values)), key=values.__getitem__)
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in map(at, range(len(values))))
    x, y = at(best)
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="NDCG@10 by epoch">'
        f'<polyline points="{points}" fill="none" stroke="#2f6f9f" stroke-width="2"/>'
        f'<line x1="{MARGIN}" x2="{WIDTH - MARGIN}" y1="{HEIGHT - MARGIN}" y2="{HEIGHT - MARGIN}" stroke="#8c959f"/>'
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="#2f6f9f"/>'
        f'<text x="{x:.1f}" y="{y - 10:.1f}" font-size="13" text-anchor="end" fill="currentColor">'
        f"{values[best]:.4f}, epoch {best + 1}</text>"
        f'<text x="{WIDTH - MARGIN}" y="{HEIGHT - MARGIN + 18}" font-size="13" text-anchor="end" fill="currentColor">'
        f"epoch {len(values)}</text></svg>"
    )
