"""The report for people: one HTML file that holds its figures and style and fetches nothing."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ondevice.bench.drawing import format_bytes, format_us, to_svg
from ondevice.bench.figures import (
    FIGURES,
    PART_NAMES,
    bytes_breakdown,
    latency_bars,
    learning_curves,
    pareto_curves,
    quality_against_bytes,
    size_distribution,
)

PARITY = {
    "eager_vs_packed": ("eager fp32 against packed, largest difference", "{:.1e}"),
    "packed_vs_int8_sqnr_db": ("packed fp32 against int8, signal over noise", "{:.1f} dB"),
    "int8_vs_pte_max_abs": ("int8 in PyTorch against the program, largest difference", "{:.1e}"),
    "test_auc_eager": ("test AUC, eager fp32", "{:.5f}"),
    "test_auc_pte": ("test AUC, the program", "{:.5f}"),
}
"""Key of a parity report: what it says and how it is written."""


def figures_of(report: Mapping[str, Any]) -> dict[str, Any]:
    """The matplotlib figure of each entry of `FIGURES` that the report has data for."""
    baselines, budgets = report["baselines"], report["budgets"]
    drawn: dict[str, Any] = {}
    points = [{"name": n, "bytes": b["pte_bytes"], "auc": b["test_auc"]} for n, b in baselines.items()]
    curve = [{"name": n, "bytes": b["bytes"]["bundle"], "auc": b["test_auc"]} for n, b in budgets.items()]
    drawn["quality"] = quality_against_bytes(points, curve)
    if "pareto" in report:
        drawn["pareto"] = pareto_curves(report["pareto"]["curves"], report["pareto"]["baselines"])
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
        f'<div class="tile"><span class="value">{_esc(value)} <small>{_esc(small)}</small></span>'
        f'<span class="what">{_esc(what)}</span></div>'
        for value, small, what in tiles
    ]
    return f'<div class="tiles">{"".join(cells)}</div>'


def _esc(value: Any) -> str:
    return html.escape(str(value))


def _table(head: Sequence[str], rows: Sequence[tuple[str, str, Sequence[str]]], style: str = "") -> str:
    """A table that scrolls sideways on a narrow screen: rows are (class, name, cells as HTML)."""
    top = "".join(f'<th scope="col">{_esc(cell)}</th>' for cell in head)
    body = "".join(
        f'<tr class="{kind}"><th scope="row">{_esc(name)}</th>{"".join(cells)}</tr>'
        for kind, name, cells in rows
    )
    table = f'<table class="{style}"><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>'
    return f'<div class="scroll">{table}</div>'


def _cell(value: Any) -> str:
    return f"<td>{_esc(value)}</td>"


def _programs(report: Mapping[str, Any]) -> list[tuple[str, str, Mapping[str, Any], int]]:
    """(row class, name, entry, shipped bytes) of every program, baselines first."""
    rows = [("", name, entry, entry["pte_bytes"]) for name, entry in report["baselines"].items()]
    for label, entry in report["budgets"].items():
        kind = "ours headline" if label == report["headline"] else "ours"
        rows.append((kind, label, entry, entry["bytes"]["bundle"]))
    return rows


def _programs_table(report: Mapping[str, Any]) -> str:
    thread = report["settings"]["threads"][0]
    candidates = [str(c) for c in report["settings"]["candidates"]]
    rows = []
    for kind, name, entry, shipped in _programs(report):
        latency = entry["latency"][thread]["forward"]
        cells = [
            _cell(format_bytes(shipped)),
            _cell(format_bytes(entry["deflated_bytes"])),
            _cell(f"{entry['test_auc']:.4f}"),
            _cell(f"{entry['test_logloss']:.4f}"),
            *(_cell(format_us(latency[c]["p50"])) for c in candidates),
            _cell(f"{entry['load_ms']:.1f} ms"),
            _cell(format_bytes(entry["memory"]["added_rss_bytes"])),
            _cell(f"{entry['delegated_fraction']:.0%}"),
        ]
        rows.append((kind, name, cells))
    times = [f"p50, {int(c):,} {'row' if c == '1' else 'rows'}" for c in candidates]
    head = ["program", "shipped", "deflated", "test AUC", "log loss", *times, "load", "memory", "delegated"]
    return _table(head, rows)


def _parts_table(report: Mapping[str, Any]) -> str:
    entries = _programs(report)
    used = [part for part in PART_NAMES if any(e["parts"].get(part) for _, _, e, _ in entries)]
    rows = []
    for kind, name, entry, shipped in entries:
        cells = [_cell(f"{entry['parts'].get(part, 0):,}") for part in used]
        rows.append((kind, name, [*cells, _cell(f"{shipped:,}")]))
    return _table(["bytes", *(PART_NAMES[part] for part in used), "total"], rows)


def _has_keys(report: Mapping[str, Any]) -> bool:
    return any("keys" in entry for entry in report["budgets"].values())


def _keys_table(report: Mapping[str, Any]) -> str:
    """Per bundle: its keys, what each takes, what the export took, how long the runtime takes to load it."""
    rows = []
    for label, entry in report["budgets"].items():
        keys, export = entry.get("keys", {}), entry.get("export", {})
        cells = [
            (keys.get("num_keys"), "{:,}"),
            (entry["bytes"]["vocabulary"], "{:,}"),
            (keys.get("vocabulary_bytes_per_key"), "{:.2f}"),
            (keys.get("bundle_bytes_per_key"), "{:.2f}"),
            (keys.get("vocabulary_share"), "{:.0%}"),
            (export.get("seconds"), "{:.1f} s"),
            ((export and format_bytes(export["added_rss_bytes"])) or None, "{}"),
            (export.get("over_dense_table"), "{:.2f}×"),
            (entry["load_ms"], "{:.1f} ms"),
        ]
        kind = "ours headline" if label == report["headline"] else "ours"
        rows.append((kind, label, [_cell("" if v is None else pattern.format(v)) for v, pattern in cells]))
    head = ["bundle", "keys", "vocabulary bytes", "of it a key", "of the bundle a key", "vocabulary's share"]
    return _table([*head, "export", "export memory", "over the dense fp32 table", "load"], rows)


def _latency_table(report: Mapping[str, Any]) -> str:
    rows = []
    for kind, name, entry, _ in _programs(report):
        for thread, methods in entry["latency"].items():
            for method, measured in methods.items():
                cells = [_cell(thread)]
                for m in measured.values():
                    cells += [_cell(f"{format_us(m['p50'])} · {format_us(m['p95'])}")]
                    cells += [_cell(f"{m['over_reference']:.2f}×" if "over_reference" in m else "")]
                rows.append((kind, f"{name} {method}", cells))
    head = ["call", "threads"]
    for count in report["settings"]["candidates"]:
        head += [f"{count:,}: p50 · p95", f"over {report['settings']['reference']}"]
    return _table(head, rows)


def _parity_table(report: Mapping[str, Any]) -> str:
    budgets = {label: entry["parity"] for label, entry in report["budgets"].items() if entry.get("parity")}
    rows = []
    for key, (text, pattern) in PARITY.items():
        values = [parity.get(key) for parity in budgets.values()]
        rows.append(("", text, [_cell("" if v is None else pattern.format(v)) for v in values]))
    return _table(["link", *budgets], rows, "wide-names")


def _devices_table(report: Mapping[str, Any]) -> str:
    """One table per phone: bundle and threads against latency, load time and memory."""
    tables = []
    for model, device in report["devices"].items():
        entries = device["bundles"]
        counts = sorted(
            {c for e in entries.values() for m in e["measurements"] for c in m["rank_us"]}, key=int
        )
        rows = []
        for name, entry in entries.items():
            kind = "ours headline" if name == report["headline"] else "ours"
            for m in entry["measurements"]:
                calls = [m["rank_us"].get(count) for count in counts]
                times = [
                    _cell("" if c is None else f"{format_us(c['p50'])} · {format_us(c['p95'])}")
                    for c in calls
                ]
                cells = [_cell(m["num_threads"]), *times, _cell(f"{m['load_ms']:.1f} ms"), _cell(_memory(m))]
                rows.append((kind, name, cells))
        facts = [f"Android {device['android']}", device["soc"], device["abi"], device["measured"]]
        caption = f"{model} ({', '.join(str(fact) for fact in facts if fact)})"
        failed = "".join(
            f'<p class="lead">{_esc(f"{name} was not measured: {why}")}</p>'
            for name, why in device["errors"].items()
        )
        head = ["bundle", "threads", *(f"{int(c):,}: p50 · p95" for c in counts), "load", "memory"]
        tables.append(f"<h3>{_esc(caption)}</h3>{failed}{_table(head, rows)}")
    return "".join(tables)


def _memory(measurement: Mapping[str, Any]) -> str:
    """The app's memory after a measurement, and how much it grew; empty where the phone does not tell."""
    before, after = measurement["pss_before_bytes"], measurement["pss_after_bytes"]
    if before is None or after is None:
        return ""
    sign = "+" if after >= before else "−"
    return f"{format_bytes(after)} ({sign}{format_bytes(abs(after - before))})"


def _instructions_table(report: Mapping[str, Any]) -> str:
    counts, reference = report["arm64_instructions"], report["settings"]["reference"]
    kinds = {name: kind for kind, name, _, _ in _programs(report)}
    candidates = list(next(iter(counts.values())))
    rows = []
    for name, by_candidates in counts.items():
        cells = []
        for each in candidates:
            cells.append(_cell(f"{by_candidates[each]:,}"))
            over = by_candidates[each] / counts[reference][each] if reference in counts else None
            cells.append(_cell("" if over is None else f"{over:.2f}×"))
        rows.append((kinds.get(name, ""), name, cells))
    head = ["program"]
    for each in candidates:
        head += [f"{int(each):,} candidates", f"over {reference}"]
    return _table(head, rows)


def _definitions(pairs: Mapping[str, Any]) -> str:
    return f"<dl>{''.join(f'<dt>{_esc(k)}</dt><dd>{_esc(v)}</dd>' for k, v in pairs.items())}</dl>"


def _figure(name: str, drawing: Any, caption: str) -> str:
    title = FIGURES[name]
    svg = to_svg(drawing, f"figure-{name}").replace("<svg", f'<svg role="img" aria-label="{_esc(title)}"', 1)
    return f'<figure id="{name}"><figcaption><h3>{_esc(title)}</h3>{_esc(caption)}</figcaption>{svg}</figure>'


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
    columns = (("pareto", "quality", "sizes", "learning"), ("bytes", "latency"))
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
        f'<p class="lead">{_esc(f"{name} left out: {why}")}</p>'
        for name, why in report["baselines_left_out"].items()
    )
    sections = [
        ("Programs", PROSE["programs"].format(threads=threads[0]), left_out + _programs_table(report)),
        ("Bytes by part", "", _parts_table(report)),
        *([("Keys and export", PROSE["keys"], _keys_table(report))] if _has_keys(report) else []),
        (
            "Latency",
            PROSE["latency"],
            f"<details><summary>Every call</summary>{_latency_table(report)}</details>",
        ),
        *([("On the phone", PROSE["devices"], _devices_table(report))] if report.get("devices") else []),
        *(
            [("arm64 instructions", PROSE["instructions"], _instructions_table(report))]
            if report.get("arm64_instructions")
            else []
        ),
        ("Parity", PROSE["parity"], _parity_table(report)),
        ("Where this was measured", "", _definitions(report["environment"])),
    ]
    body = "\n".join(
        f"<h2>{_esc(title)}</h2>\n" + (f'<p class="lead">{_esc(lead)}</p>\n' if lead else "") + content
        for title, lead, content in sections
    )
    css = Path(__file__).with_name("report.css").read_text(encoding="utf-8")
    return PAGE.format(
        title=_esc(f"{run['name']}: size, speed and quality"),
        css=css,
        eyebrow=_esc(f"{run['name']} — {' · '.join(facts)}"),
        headline=headline(report),
        tiles=_tiles(report),
        figures=grid,
        sections=body,
    )
