"""The report for people: one HTML file that holds its figures and style and fetches nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ondevice.bench.report.careful import as_good_text, as_small_text, careful_curves
from ondevice.bench.report.drawing import format_bytes, format_us, to_svg
from ondevice.bench.report.figures import (
    FIGURES,
    bytes_breakdown,
    latency_bars,
    learning_curves,
    pareto_curves,
    quality_against_bytes,
    size_distribution,
)
from ondevice.bench.report.page_tables import (
    careful_table,
    devices_table,
    escaped,
    has_keys,
    instructions_table,
    keys_table,
    latency_table,
    parity_table,
    parts_table,
    programs_table,
)


def figures_of(report: Mapping[str, Any]) -> dict[str, Any]:
    """The matplotlib figure of each entry of `FIGURES` that the report has data for."""
    baselines, budgets = report["baselines"], report["budgets"]
    drawn: dict[str, Any] = {}
    points = [{"name": n, "bytes": b["pte_bytes"], "auc": b["test_auc"]} for n, b in baselines.items()]
    curve = [{"name": n, "bytes": b["bytes"]["bundle"], "auc": b["test_auc"]} for n, b in budgets.items()]
    drawn["quality"] = quality_against_bytes(points, curve)
    if "pareto" in report:
        drawn["pareto"] = pareto_curves(report["pareto"]["curves"], report["pareto"]["baselines"])
    if "careful" in report:
        drawn["careful"] = pareto_curves(*careful_curves(report))
    parts = {name: entry["parts"] for name, entry in {**baselines, **budgets}.items()}
    drawn["bytes"] = bytes_breakdown(parts, list(budgets))
    drawn["sizes"] = size_distribution(report["fields"], report["run"]["embedding_dim"])
    drawn["latency"] = latency_bars(_latency_rows(report), report["settings"]["threads"])
    drawn["learning"] = learning_curves(report["history"])
    return drawn


def _latency_rows(report: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Bars of the latency figure: the baselines and the headline bundle, forward and rank."""
    threads = report["settings"]["threads"]
    chosen = [(name, entry, "forward", False) for name, entry in report["baselines"].items()]
    label = report["headline"]
    for method in report["budgets"][label]["latency"][threads[0]]:
        chosen.append((f"{label} {method}", report["budgets"][label], method, True))
    rows: dict[str, list[dict[str, Any]]] = {}
    for candidates in map(str, report["settings"]["candidates"]):
        rows[candidates] = [
            {
                "name": name,
                "ours": ours,
                "p50": {t: entry["latency"][t][method][candidates]["p50"] for t in threads},
                "p95": {t: entry["latency"][t][method][candidates]["p95"] for t in threads},
            }
            for name, entry, method, ours in chosen
        ]
    return rows


CAPTIONS = {
    "careful": "Whole bundles over the whole test split: ours, and one dimension for all rows with the same "
    "teachers, schedule and dropped fields. Squares are the dense fp32 programs, alone. Hollow: another bundle is as "
    "small and as good.",
    "pareto": "Each program over the whole test split, its vocabulary and manifest counted with a bundle. Retrained: a "
    "training for each budget. Elastic: one training, from which each budget is cut. Hollow: another bundle is as "
    "small and as good.",
    "quality": "Each program over the whole test split. A bundle counts its vocabulary and manifest, a baseline "
    "the .pte alone. The dashed line is the dense fp32 program.",
    "bytes": "Read from the files. A baseline would need a vocabulary as well; it is not counted.",
    "sizes": "Rows of the headline bundle by how many leading dimensions they keep, number of rows in brackets. "
    "Rows of size 0 are not stored.",
    "latency": "Median of one call; the line goes on to the 95th percentile, or out of the figure. {threads}. "
    "Programs take turns, so that the machine's noise hits all alike. forward takes the same ids as the baselines; "
    "rank takes the context once.",
    "learning": "Validation AUC after each epoch; below, how many values the search still keeps.",
}


PROSE = {
    "programs": "fp32, int8, int4 and int2 are the same trained dense model, quantized by torchao and lowered by "
    "ExecuTorch alone. The rows below them are this run's bundles, with vocabulary and manifest; the shaded one was "
    "chosen on validation: the smallest within 0.003 AUC of the dense model, else the best. Latency with {threads} "
    "thread. Memory is what loading and one call of the most candidates add to a fresh process that holds the runtime.",
    "careful": "Bundles with one dimension for all rows and all else as ours: base model, teachers, schedule, fields "
    "left out, first-order weights, vocabulary. int8 is rounded after the training; int4 and int2 have one scale a "
    "table and are rounded in training. Which of them a bundle is compared with is chosen on validation. Taught is the "
    "dense model with the same teachers, its fp32 program alone.",
    "keys": "Keys that kept a row, and what each takes of the vocabulary and of the whole bundle. Export is from the "
    "run's files to the finished bundle, the exporter's libraries loaded and the check over the test split left out; "
    "its memory is the peak over what was resident before. Load is the program's, on this runtime.",
    "latency": "One call with real ids, the conversion of its inputs included. A ratio is the median over rounds of "
    "the ratio within a round.",
    "devices": "The demo app's own engine on the phone, rank with real ids: p50 · p95 of one call. Memory is the "
    "whole app's, after loading and calling, and by how much it grew.",
    "instructions": "Instructions of an emulated Cortex-A76 inside the runtime and its kernels for one ranking, with "
    "one thread, counted exactly; they say nothing of memory or clock. The dense programs rank with forward.",
    "parity": "From the trained model to the file that ships, link by link.",
}

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
{css}</style>
</head>
<body>
<main>
<p class="eyebrow">{eyebrow}</p>
<h1>{headline}</h1>
{tiles}
<div class="figures">{figures}</div>
{sections}
<footer>The same figures for programs to read: report.json in this folder.</footer>
</main>
</body>
</html>
"""


def headline(report: Mapping[str, Any]) -> str:
    """The first sentence of the report, as HTML: bytes, the ratios, the AUC and the latency."""
    entry = report["budgets"][report["headline"]]
    ratios, dense = entry["times_smaller"], report["baselines"]["fp32"]
    if "careful" in entry:
        comparison = entry["careful"]
        return (
            f"<b>{format_bytes(entry['bytes']['bundle'])}</b> at a test AUC of <b>{entry['test_auc']:.4f}</b>: "
            f"{escaped(as_good_text(comparison))}, {escaped(as_small_text(comparison))}."
        )
    others = [f"{ratios[n]:.1f}× than {n}" for n in report["baselines"] if n != "fp32"]
    return (
        f"<b>{format_bytes(entry['bytes']['bundle'])}</b> instead of {format_bytes(dense['pte_bytes'])}: the bundle "
        f"is <b>{ratios['fp32']:.1f}× smaller</b> than the dense fp32 program"
        + (f", {_join(others)}" if others else "")
        + f", at a test AUC of {entry['test_auc']:.4f} ({_signed(entry['test_auc'] - dense['test_auc'])})."
    )


def _signed(value: float) -> str:
    return f"{value:+.4f}".replace("-", "−")


def _join(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _tiles(report: Mapping[str, Any]) -> str:
    entry, dense = report["budgets"][report["headline"]], report["baselines"]["fp32"]
    reference = report["settings"]["reference"]
    tiles = [
        (
            f"{entry['times_smaller']['fp32']:.1f}×",
            "",
            f"smaller than fp32, {format_bytes(entry['bytes']['bundle'])} in all",
        ),
        (
            f"{entry['test_auc']:.4f}",
            _signed(entry["test_auc"] - dense["test_auc"]),
            f"test AUC of the program; dense fp32 {dense['test_auc']:.4f}",
        ),
    ]
    latency = entry["latency"][report["settings"]["threads"][0]]["forward"]
    most = str(max(report["settings"]["candidates"]))
    if "over_reference" in latency[most]:
        tiles.append(
            (
                f"{latency[most]['over_reference']:.2f}×",
                format_us(latency[most]["p50"]),
                f"the time of dense {reference} for {int(most):,} candidates, 1 thread",
            )
        )
    if reference in report["baselines"]:
        added, other = (
            entry["memory"]["added_rss_bytes"],
            report["baselines"][reference]["memory"]["added_rss_bytes"],
        )
        tiles.append(
            (
                f"{added / other:.2f}×",
                format_bytes(added),
                f"the memory of dense {reference}, load and one call",
            )
        )
    cells = [
        f'<div class="tile"><span class="value">{escaped(value)} <small>{escaped(small)}</small></span>'
        f'<span class="what">{escaped(what)}</span></div>'
        for value, small, what in tiles
    ]
    return f'<div class="tiles">{"".join(cells)}</div>'


def _definitions(pairs: Mapping[str, Any]) -> str:
    return f"<dl>{''.join(f'<dt>{escaped(k)}</dt><dd>{escaped(v)}</dd>' for k, v in pairs.items())}</dl>"


def _figure(name: str, drawing: Any, caption: str) -> str:
    title = FIGURES[name]
    svg = to_svg(drawing, f"figure-{name}").replace(
        "<svg", f'<svg role="img" aria-label="{escaped(title)}"', 1
    )
    return f'<figure id="{name}"><figcaption><h3>{escaped(title)}</h3>{escaped(caption)}</figcaption>{svg}</figure>'


def render(report: Mapping[str, Any]) -> str:
    """The whole page.

    Args:
        report: what `ondevice.bench.benchmark` measured.
    """
    run, threads = report["run"], report["settings"]["threads"]
    shades = f"{threads[0]} thread"
    if len(threads) > 1:
        shades = f"Dark bars {threads[0]} thread, light bars {threads[1]} threads"
    drawn = {
        name: _figure(name, figure, CAPTIONS[name].format(threads=shades))
        for name, figure in figures_of(report).items()
    }
    columns = (("careful", "pareto", "quality", "sizes", "learning"), ("bytes", "latency"))
    stacks = ("".join(drawn[name] for name in names if name in drawn) for names in columns)
    grid = "".join(f'<div class="column">{stack}</div>' for stack in stacks)
    facts = [
        run["dataset"],
        run["model"],
        run["method"],
        f"d = {run['embedding_dim']}",
        f"seed {run['seed']}",
    ]
    left_out = "".join(
        f'<p class="lead">{escaped(f"{name} left out: {why}")}</p>'
        for name, why in report["baselines_left_out"].items()
    )
    sections = [
        *([("The careful opponent", PROSE["careful"], careful_table(report))] if "careful" in report else []),
        ("Programs", PROSE["programs"].format(threads=threads[0]), left_out + programs_table(report)),
        ("Bytes by part", "", parts_table(report)),
        *([("Keys and export", PROSE["keys"], keys_table(report))] if has_keys(report) else []),
        (
            "Latency",
            PROSE["latency"],
            f"<details><summary>Every call</summary>{latency_table(report)}</details>",
        ),
        *([("On the phone", PROSE["devices"], devices_table(report))] if report.get("devices") else []),
        *(
            [("arm64 instructions", PROSE["instructions"], instructions_table(report))]
            if report.get("arm64_instructions")
            else []
        ),
        ("Parity", PROSE["parity"], parity_table(report)),
        ("Where this was measured", "", _definitions(report["environment"])),
    ]
    body = "\n".join(
        f"<h2>{escaped(title)}</h2>\n" + (f'<p class="lead">{escaped(lead)}</p>\n' if lead else "") + content
        for title, lead, content in sections
    )
    css = Path(__file__).with_name("report.css").read_text(encoding="utf-8")
    return PAGE.format(
        title=escaped(f"{run['name']}: size, speed and quality"),
        css=css,
        eyebrow=escaped(f"{run['name']} — {' · '.join(facts)}"),
        headline=headline(report),
        tiles=_tiles(report),
        figures=grid,
        sections=body,
    )
