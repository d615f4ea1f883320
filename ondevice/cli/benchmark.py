"""Measure a run's bundles against the dense programs that torchao and ExecuTorch make of the same run.

    ondevice benchmark runs/NAME [--budget 64KB …] [--bundle DIR] [--repeats 15] [--threads 1,2]
        [--candidates 1,100,1000] [--baselines fp32,int8,int4,int2] [--cold-starts 3] [--arm64-counts JSON]
        [--careful-dims 2,4,8,16,32] [--careful-bits 8,4,2] [--careful-min-counts 1] [--no-careful] [--no-taught]
        [--pareto [--also OTHER_RUN …]]
    ondevice benchmark RUN_OR_BUNDLE --device adb[:SERIAL] [--apk APK] [--device-timeout 600]
        [--calls 200] [--warmups 20]

Bundles that are missing are exported first. The careful programs, one dimension for all rows with all else as the run
has it, are trained first, each as long as a compact model, once, below the run directory; those of earlier calls take
part. Writes report.json beside each bundle, and report.json and report.html into the run directory. With --pareto,
every budget of the run and of the others on the same data is measured: one curve of quality against bytes in the
report, in pareto.json and in pareto.png. With --device, the demo app of android_demo measures the bundles on a phone,
and its figures go into the same reports; a bundle without its run gets them into the report.json beside it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ondevice.errors import ConfigError


def numbers(option: str, text: str) -> tuple[int, ...]:
    """A comma-separated list of whole numbers."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"--{option} {text}: give whole numbers separated by commas") from None


def settings_of(
    arguments: argparse.Namespace, candidates: tuple[int, ...], threads: tuple[int, ...] | None
) -> Any:
    """What is measured on this computer."""
    from ondevice.bench.settings import CAREFUL_DIMS, Settings

    careful: dict[str, tuple[int, ...]] = {"careful_dims": () if arguments.no_careful else CAREFUL_DIMS}
    for key in ("careful-dims", "careful-bits", "careful-min-counts"):
        given = getattr(arguments, key.replace("-", "_"))
        if given is not None:
            careful[key.replace("-", "_")] = numbers(key, given)
    return Settings(
        rounds=arguments.repeats,
        cold_starts=arguments.cold_starts,
        candidates=candidates,
        threads=threads or (1, 2),
        baselines=tuple(arguments.baselines.split(",")),
        taught=not arguments.no_taught,
        **careful,
    )


def on_phone(
    arguments: argparse.Namespace,
    candidates: tuple[int, ...],
    threads: tuple[int, ...] | None,
    say: Callable[[str], None],
) -> None:
    """Measure on a phone, which is looked for before anything else is done."""
    from ondevice.bench import require_packages
    from ondevice.bench.phone.adb import connect
    from ondevice.bench.phone.devices import benchmark_bundle, benchmark_run, require_all, text_table
    from ondevice.bench.phone.phone import Plan

    run, bundle = arguments.run, arguments.bundle
    if run is not None and (Path(run) / "manifest.json").is_file():
        if bundle or arguments.budget:
            raise ConfigError(f"{run} is a bundle; give no --bundle and no --budget with it")
        run, bundle = None, run
    if run is None and bundle is None:
        raise ConfigError("give a run directory or a bundle")
    if run is None and arguments.budget:
        raise ConfigError("--budget: give the run directory that it is a budget of")
    calls = {
        key: getattr(arguments, key) for key in ("warmups", "calls") if getattr(arguments, key) is not None
    }
    plan = Plan(candidates, threads or Plan.threads, arguments.device_timeout, **calls)
    if run is not None:
        require_packages()
    phone = connect(arguments.device, arguments.apk, say)
    if run is None:
        report = benchmark_bundle(phone, bundle, plan, say)
    else:
        report = benchmark_run(
            phone,
            run,
            bundles=arguments.budget,
            bundle=bundle,
            plan=plan,
            settings=settings_of(arguments, candidates, threads),
            say=say,
        )
    print(f"\n{text_table(report['measured'])}\n\nreport: {report['files'][-1]}")
    require_all(report["measured"])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", nargs="?", help="a run directory; with --device, also a bundle")
    parser.add_argument("data", nargs="*", help="where the data are now, if they have moved: data.path=FILE")
    parser.add_argument(
        "--budget",
        action="append",
        default=[],
        help="a bundle of the run by its name: 64KB, 10pct; may be repeated",
    )
    parser.add_argument("--bundle", help="one bundle exported from this run, wherever it is")
    parser.add_argument("--repeats", type=int, default=15, help="rounds of timing (default 15)")
    parser.add_argument("--cold-starts", type=int, default=3, help="fresh processes per program (default 3)")
    parser.add_argument("--threads", help="numbers of threads (default 1,2; on a phone 1,2,4)")
    parser.add_argument("--candidates", default="1,100,1000", help="rows of one call (default 1,100,1000)")
    parser.add_argument("--baselines", default="fp32,int8,int4,int2", help="dense programs to compare with")
    parser.add_argument(
        "--arm64-counts", help="arm64 instructions that android_demo/tools/arm64.py counted, for the report"
    )
    parser.add_argument("--careful-dims", help="dimensions of the careful programs (default 2,4,8,16,32)")
    parser.add_argument("--careful-bits", help="bits of their values (default 8,4,2)")
    parser.add_argument(
        "--careful-min-counts", help="training occurrences below which they store no value (default 1)"
    )
    parser.add_argument("--no-careful", action="store_true", help="make and compare with no careful programs")
    parser.add_argument(
        "--no-taught", action="store_true", help="train no dense model with the same teachers"
    )
    parser.add_argument("--pareto", action="store_true", help="the curve over all budgets and methods")
    parser.add_argument("--also", nargs="+", default=[], help="with --pareto: further runs on the same data")
    parser.add_argument("--device", help="measure on a phone too: adb, or adb:SERIAL where there are several")
    parser.add_argument("--apk", help="the demo app, installed when the phone lacks it or has another")
    parser.add_argument("--calls", type=int, help="on a phone: calls of a ranking that count (default 200)")
    parser.add_argument("--warmups", type=int, help="on a phone: calls before those (default 20)")
    parser.add_argument(
        "--device-timeout", type=float, default=600, help="seconds the phone may measure (default 600)"
    )


def run(arguments: argparse.Namespace) -> None:
    if arguments.budget and arguments.bundle:
        raise ConfigError("--budget and --bundle: give one of them")
    if arguments.no_careful and arguments.careful_dims:
        raise ConfigError("--no-careful and --careful-dims: give one of them")
    if arguments.also and not arguments.pareto:
        raise ConfigError("--also: only used with --pareto")
    if arguments.pareto and (arguments.bundle or arguments.device):
        raise ConfigError(
            "--pareto: measures every budget of a run on this computer; leave out --bundle and --device"
        )
    for option in ("apk", "calls", "warmups"):
        if getattr(arguments, option) is not None and not arguments.device:
            raise ConfigError(f"--{option}: only used with --device adb")
    if arguments.arm64_counts and arguments.device:
        raise ConfigError("--arm64-counts: give it without --device; a phone keeps the report's counts")
    candidates = numbers("candidates", arguments.candidates)
    threads = None if arguments.threads is None else numbers("threads", arguments.threads)
    started = time.perf_counter()

    def say(text: str) -> None:
        print(f"{time.perf_counter() - started:6.1f} s  {text}", flush=True)

    if arguments.device:
        on_phone(arguments, candidates, threads, say)
        return
    if arguments.run is None:
        raise ConfigError("give a run directory; a bundle alone can be measured with --device adb")

    from ondevice.bench import run_benchmark
    from ondevice.bench.report.careful import careful_lines
    from ondevice.bench.report.pareto import text_lines
    from ondevice.bench.report.report import text_table
    from ondevice.run.directory import Run, data_options
    from ondevice.run.effects import is_next_item

    measured = Run(arguments.run, data_options(arguments.data))
    if is_next_item(measured.config):
        raise ConfigError(
            f"{arguments.run}: a run of the next item, which has no budgets to compare; ondevice export proves its "
            "program, and benchmarks/peers_next_item.py measures it"
        )
    report = run_benchmark(
        measured,
        bundles=arguments.budget,
        bundle=arguments.bundle,
        settings=settings_of(arguments, candidates, threads),
        arm64_counts=arguments.arm64_counts,
        also=arguments.also if arguments.pareto else None,
        say=say,
    )
    print(f"\n{text_table(report)}\n")
    print(
        f"* {report['headline']}: chosen on validation; times with {report['settings']['threads'][0]} thread"
    )
    if "careful" in report:
        print("\n".join(careful_lines(report)))
    if "pareto" in report:
        print("\n".join(text_lines(report["pareto"])))
    print(f"report: {report['files'][-1]}")
