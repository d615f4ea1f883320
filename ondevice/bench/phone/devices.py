"""A phone's figures in the reports of a run or of a bundle, next to those of the computer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ondevice.bench.phone.adb import Phone
from ondevice.bench.phone.phone import Plan, disturbed, failure_text, measure
from ondevice.bench.report.drawing import format_us
from ondevice.bench.report.report import FORMAT_VERSION, REPORT, current, merge, model_sha256, read_report
from ondevice.errors import UserError
from ondevice.files import atomic_json
from ondevice.program.bundle import load_bundle

if TYPE_CHECKING:
    from ondevice.bench.settings import Settings


def benchmark_bundle(
    phone: Phone, folder: str | Path, plan: Plan, say: Callable[[str], None]
) -> dict[str, Any]:
    """Measure one bundle on a phone and merge the figures into the report.json beside it.

    Returns: ``devices``, ``measured`` (on this phone) and ``files`` that were written.

    Raises: UserError: when the folder is no bundle, or the phone could not measure it.
    """
    bundle, name = load_bundle(folder), Path(folder).resolve().name
    measured = measure(phone, {name: bundle}, plan, say)
    path = Path(folder) / REPORT
    report = read_report(path) or {"format_version": FORMAT_VERSION, "label": name}
    devices = merge(current(report.get("devices", {}), {name: model_sha256(bundle)}), measured)
    atomic_json(path, {**report, "devices": devices})
    return {"devices": devices, "measured": measured, "files": [path]}


def benchmark_run(
    phone: Phone,
    run_path: str | Path,
    *,
    bundles: Sequence[str],
    bundle: str | Path | None,
    plan: Plan,
    settings: Settings,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Measure a run's bundles on a phone and merge the figures into the run's reports.

    The computer's figures are taken from report.json where it has them for the same programs; else they are
    measured first.

    Returns: the report with ``measured`` (on this phone) and ``files`` that were written.

    Raises: UserError: as `run_benchmark`, and when the phone could not measure a bundle; the reports then hold
        what it did measure.
    """
    from ondevice.bench.benchmark import run_benchmark
    from ondevice.bench.report.report import write
    from ondevice.bench.shipped import field_sizes, find_bundles
    from ondevice.run.directory import Run

    run = Run(run_path)
    folders = find_bundles(run, bundles, bundle, say)
    opened = {name: load_bundle(folder) for name, folder in folders.items()}
    programs = {name: model_sha256(each) for name, each in opened.items()}
    report = read_report(run.path / REPORT)
    known = {name: entry.get("model_sha256") for name, entry in (report or {}).get("budgets", {}).items()}
    if report is not None and all(known.get(name) == sha256 for name, sha256 in programs.items()):
        day = report["environment"].get("measured", "an earlier day")
        say(f"this computer's figures are those of {day}; without --device they are measured anew")
        label = report["budgets"][report["headline"]]["label"]
        report |= {"fields": field_sizes(run, label), "history": run.metrics.get("history", {})}
    else:
        report = run_benchmark(run, bundles=bundles, bundle=bundle, settings=settings, say=say)
        report.pop("files")
    measured = measure(phone, opened, plan, say)
    report["devices"] = merge(report.get("devices", {}), measured)
    files = write(report, run.path, folders)
    return {**report, "measured": measured, "files": files}


def text_table(measured: Mapping[str, Any]) -> str:
    """The short table that the script prints."""
    lines = [measured["model"]]
    for name, entry in measured["bundles"].items():
        for each in entry["measurements"]:
            calls = [
                f"{count}: {format_us(c['p50'])} · {format_us(c['p95'])}"
                for count, c in each["rank_us"].items()
            ]
            lines.append(
                f"{name}  {each['num_threads']} threads  load {each['load_ms']:.1f} ms  p50 · p95 at {'  '.join(calls)}"
            )
    return "\n".join([*lines, *disturbed(measured)])


def require_all(measured: Mapping[str, Any]) -> None:
    """Refuse to call it done when the phone could not measure some of the bundles.

    Raises: UserError: with the phone's own sentences.
    """
    if measured["errors"]:
        raise UserError(f"not measured on {measured['model']}: {failure_text(measured['errors'])}")
