"""report.json and report.html: what was measured, for programs and for people."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ondevice.bench.report.drawing import format_us
from ondevice.bundle.manifest import PROGRAM
from ondevice.files import atomic_json, atomic_write
from ondevice.program.bundle import Bundle
from ondevice.version import __version__

FORMAT_VERSION = 1
TOLERATED_AUC_LOSS = 0.003
PACKAGES = ("torch", "torchao", "executorch", "numpy")


def choose_headline(dense_valid_auc: float, budgets: Mapping[str, Mapping[str, Any]]) -> str:
    """The smallest bundle whose model lost at most `TOLERATED_AUC_LOSS` of validation AUC, else the best one.

    The choice is made on validation, so that the test AUC that is shown was not chosen by.

    Args:
        dense_valid_auc: validation AUC of the dense model.
        budgets: label to an entry with ``valid_auc`` and ``bytes``.
    """
    close = [n for n, b in budgets.items() if b["valid_auc"] >= dense_valid_auc - TOLERATED_AUC_LOSS]
    if close:
        return min(close, key=lambda n: budgets[n]["bytes"]["bundle"])
    return max(budgets, key=lambda n: budgets[n]["valid_auc"])


def times_smaller(bundle_bytes: int, baselines: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Bytes of each baseline's program over those of the whole bundle."""
    return {name: round(b["pte_bytes"] / bundle_bytes, 2) for name, b in baselines.items()}


def latency_summary(latency: Mapping[str, Any], method: str = "forward") -> dict[str, dict[str, float]]:
    """p50, p95 and ratio to the reference by number of candidates, of one method with the first number of threads."""
    first = latency[next(iter(latency))]
    return {group: dict(measured) for group, measured in first[method].items()}


def environment(further: Sequence[str] = ()) -> dict[str, str]:
    """Where a report was measured: processor, system, versions (of ``further`` packages too), day."""
    versions = {"ondevice": __version__}  # that name is another package's on the index
    for package in (*PACKAGES, *further):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "processor": f"{processor_name()}, {os.cpu_count()} cores",
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        **versions,
        "measured": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
    }


def processor_name() -> str:
    """The processor's name as the kernel gives it, or its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def bundle_report(report: Mapping[str, Any], label: str) -> dict[str, Any]:
    """What lies beside one bundle: its own figures and those of the baselines it is compared with."""
    entry = report["budgets"][label]
    baselines = {
        name: {
            "pte_bytes": b["pte_bytes"],
            "test_auc": b["test_auc"],
            "p50_us": {group: m["p50"] for group, m in b["latency_us"].items()},
            **{k: v for k, v in b.items() if k not in ("pte_bytes", "test_auc")},
        }
        for name, b in report["baselines"].items()
    }
    return {
        "format_version": report["format_version"],
        "run": report["run"],
        "label": label,
        **entry,
        "baselines": baselines,
        "devices": {
            model: {**device, "bundles": {label: device["bundles"][label]}}
            for model, device in report.get("devices", {}).items()
            if label in device["bundles"]
        },
        **{key: report[key] for key in ("arm64_instructions",) if key in report},
        "settings": report["settings"],
        "environment": report["environment"],
    }


def write(report: Mapping[str, Any], run_path: str | Path, bundles: Mapping[str, Path]) -> list[Path]:
    """Write every report of a run: one beside each bundle, the run's own, and the page with its figures.

    Args:
        report: what `ondevice.bench.benchmark` measured.
        run_path: the run directory.
        bundles: label to the bundle's directory.

    Returns: the files written, the page last.
    """
    from ondevice.bench.report.drawing import to_png, to_svg
    from ondevice.bench.report.page import figures_of, render

    run_path = Path(run_path)
    written = []
    for label, folder in bundles.items():
        written.append(folder / "report.json")
        atomic_json(written[-1], bundle_report(report, label))
    written.append(run_path / "report.json")
    atomic_json(written[-1], {k: v for k, v in report.items() if k not in ("history", "fields")})
    figures = figures_of(report)
    if "pareto" in report:
        written.append(run_path / "pareto.json")
        atomic_json(written[-1], report["pareto"])
        written.append(run_path / "pareto.png")
        atomic_write(written[-1], to_png(figures["pareto"]))
    for name, figure in figures.items():
        written.append(run_path / "figures" / f"{name}.svg")
        atomic_write(written[-1], to_svg(figure, name, themed=False))
    written.append(run_path / "report.html")
    atomic_write(written[-1], render(report))
    return written


def text_table(report: Mapping[str, Any]) -> str:
    """The short table that the script prints."""
    from ondevice.bench.report.drawing import format_bytes

    candidates = [str(c) for c in report["settings"]["candidates"]]
    head = [
        "program",
        "bytes",
        "test AUC",
        "log loss",
        *(f"p50 at {c}" for c in candidates),
        "load",
        "memory",
    ]
    rows: list[Sequence[str]] = [head]
    for name, entry in {**report["baselines"], **report["budgets"]}.items():
        shipped = entry["bytes"]["bundle"] if "bytes" in entry else entry["pte_bytes"]
        rows.append(
            [
                name + (" *" if name == report["headline"] else ""),
                format_bytes(shipped),
                f"{entry['test_auc']:.4f}",
                f"{entry['test_logloss']:.4f}",
                *(format_us(entry["latency_us"][c]["p50"]) for c in candidates),
                f"{entry['load_ms']:.1f} ms",
                format_bytes(entry["memory"]["added_rss_bytes"]),
            ]
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    lines = [
        "  ".join(
            c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    return "\n".join(lines)


REPORT = "report.json"


def model_sha256(bundle: Bundle) -> str:
    """What tells whether figures are those of a bundle's program."""
    return bundle.manifest["files"][PROGRAM]["sha256"]


def read_report(path: Path) -> dict[str, Any] | None:
    """A report.json; None where there is none that can be added to."""
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    usable = isinstance(report, dict) and report.get("format_version") == FORMAT_VERSION
    return report if usable else None


def current(devices: Mapping[str, Any], programs: Mapping[str, str]) -> dict[str, Any]:
    """The figures of phones that are still true: those of the programs there are now.

    Args:
        devices: ``devices`` of a report.
        programs: SHA-256 of model.pte by bundle.
    """
    kept = {}
    for model, device in devices.items():
        bundles = {n: e for n, e in device["bundles"].items() if programs.get(n) == e["model_sha256"]}
        if bundles:
            kept[model] = {**device, "bundles": bundles}
    return kept


def merge(devices: Mapping[str, Any], measured: Mapping[str, Any]) -> dict[str, Any]:
    """Devices with what was measured added; earlier figures of other bundles on the same phone stay."""
    device = {key: value for key, value in measured.items() if key != "model"}
    earlier = devices.get(measured["model"], {}).get("bundles", {})
    return {**devices, measured["model"]: {**device, "bundles": {**earlier, **measured["bundles"]}}}
