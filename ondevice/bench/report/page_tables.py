"""The tables of the report's page, as HTML: one function for each."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

from ondevice.bench.report.drawing import format_bytes, format_us
from ondevice.bench.report.figures import PART_NAMES

PARITY = {
    "eager_vs_packed": ("eager fp32 against packed, largest difference", "{:.1e}"),
    "packed_vs_int8_sqnr_db": ("packed fp32 against int8, signal over noise", "{:.1f} dB"),
    "int8_vs_pte_max_abs": ("int8 in PyTorch against the program, largest difference", "{:.1e}"),
    "test_auc_eager": ("test AUC, eager fp32", "{:.5f}"),
    "test_auc_pte": ("test AUC, the program", "{:.5f}"),
}
"""Key of a parity report: what it says and how it is written."""


def escaped(value: Any) -> str:
    """A value as text that HTML takes for nothing else."""
    return html.escape(str(value))


def _table(head: Sequence[str], rows: Sequence[tuple[str, str, Sequence[str]]], style: str = "") -> str:
    """A table that scrolls sideways on a narrow screen: rows are (class, name, cells as HTML)."""
    top = "".join(f'<th scope="col">{escaped(cell)}</th>' for cell in head)
    body = "".join(
        f'<tr class="{kind}"><th scope="row">{escaped(name)}</th>{"".join(cells)}</tr>'
        for kind, name, cells in rows
    )
    table = f'<table class="{style}"><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>'
    return f'<div class="scroll">{table}</div>'


def _cell(value: Any) -> str:
    return f"<td>{escaped(value)}</td>"


def _programs(report: Mapping[str, Any]) -> list[tuple[str, str, Mapping[str, Any], int]]:
    """(row class, name, entry, shipped bytes) of every program, baselines first."""
    rows = [("", name, entry, entry["pte_bytes"]) for name, entry in report["baselines"].items()]
    for label, entry in report["budgets"].items():
        kind = "ours headline" if label == report["headline"] else "ours"
        rows.append((kind, label, entry, entry["bytes"]["bundle"]))
    return rows


def programs_table(report: Mapping[str, Any]) -> str:
    """Every program: bytes, quality, latency, load time and memory."""
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


def careful_table(report: Mapping[str, Any]) -> str:
    """Every bundle with the careful programs that it is compared with, and all of these."""
    rows = []
    for name, entry in report["budgets"].items():
        good, small = entry["careful"]["as_good"], entry["careful"]["as_small"]
        kind = "ours headline" if name == report["headline"] else "ours"
        cells = [
            format_bytes(entry["bytes"]["bundle"]),
            f"{entry['valid_auc']:.4f}",
            f"{entry['test_auc']:.4f}",
        ]
        cells += ["none" if good is None else f"{good['times_smaller']:.2f}× ({good['name']})"]
        gain = "" if small is None else f"{small['auc_gain']:+.4f}".replace("-", "−")
        cells += ["none" if small is None else f"{gain} ({small['name']})"]
        rows.append((kind, name, [_cell(cell) for cell in cells]))
    others = [(p["name"], p) for p in report["careful"]["programs"]]
    taught = report["careful"]["taught"]
    others += [] if taught is None else [("dense, taught (fp32)", taught)]
    for name, p in others:
        cells = [format_bytes(p["bytes"]), f"{p['valid_auc']:.4f}", f"{p['test_auc']:.4f}", "", ""]
        rows.append(("", name, [_cell(cell) for cell in cells]))
    head = ["program", "shipped", "validation AUC", "test AUC", "smaller than the smallest as good"]
    return _table([*head, "test AUC over the best as small"], rows)


def parts_table(report: Mapping[str, Any]) -> str:
    """What the bytes of every program are made of."""
    entries = _programs(report)
    used = [part for part in PART_NAMES if any(e["parts"].get(part) for _, _, e, _ in entries)]
    rows = []
    for kind, name, entry, shipped in entries:
        cells = [_cell(f"{entry['parts'].get(part, 0):,}") for part in used]
        rows.append((kind, name, [*cells, _cell(f"{shipped:,}")]))
    return _table(["bytes", *(PART_NAMES[part] for part in used), "total"], rows)


def has_keys(report: Mapping[str, Any]) -> bool:
    """Whether any bundle says what its keys take, for `keys_table`."""
    return any("keys" in entry for entry in report["budgets"].values())


def keys_table(report: Mapping[str, Any]) -> str:
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


def latency_table(report: Mapping[str, Any]) -> str:
    """Every program, number of threads and method: the time of a call, and over the reference."""
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


def parity_table(report: Mapping[str, Any]) -> str:
    """Link by link from the trained model to the file, a column for each bundle."""
    budgets = {label: entry["parity"] for label, entry in report["budgets"].items() if entry.get("parity")}
    rows = []
    for key, (text, pattern) in PARITY.items():
        values = [parity.get(key) for parity in budgets.values()]
        rows.append(("", text, [_cell("" if v is None else pattern.format(v)) for v in values]))
    return _table(["link", *budgets], rows, "wide-names")


def devices_table(report: Mapping[str, Any]) -> str:
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
            f'<p class="lead">{escaped(f"{name} was not measured: {why}")}</p>'
            for name, why in device["errors"].items()
        )
        head = ["bundle", "threads", *(f"{int(c):,}: p50 · p95" for c in counts), "load", "memory"]
        tables.append(f"<h3>{escaped(caption)}</h3>{failed}{_table(head, rows)}")
    return "".join(tables)


def _memory(measurement: Mapping[str, Any]) -> str:
    """The app's memory after a measurement, and how much it grew; empty where the phone does not tell."""
    before, after = measurement["pss_before_bytes"], measurement["pss_after_bytes"]
    if before is None or after is None:
        return ""
    sign = "+" if after >= before else "−"
    return f"{format_bytes(after)} ({sign}{format_bytes(abs(after - before))})"


def instructions_table(report: Mapping[str, Any]) -> str:
    """Counted arm64 instructions of a ranking, and over the reference."""
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
