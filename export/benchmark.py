"""Measure a run's bundles against the dense programs that torchao and ExecuTorch make of the same run.

    python export/benchmark.py runs/NAME [--budget 64KB …] [--bundle DIR] [--repeats 15] [--threads 1,2]
        [--candidates 1,100,1000] [--baselines fp32,int8,int4,int2] [--cold-starts 3]

Bundles that are missing are exported first. Writes report.json beside each bundle, and report.json and report.html
into the run directory.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ondevice.errors import UserError, run_script


def numbers(option: str, text: str) -> tuple[int, ...]:
    """A comma-separated list of whole numbers."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UserError(f"--{option} {text}: give whole numbers separated by commas") from None


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", help="a run directory that train/run.py wrote")
    parser.add_argument(
        "--budget",
        action="append",
        default=[],
        help="a bundle of the run by its name: 64KB, 10pct; may be repeated",
    )
    parser.add_argument("--bundle", help="one bundle exported from this run, wherever it is")
    parser.add_argument("--repeats", type=int, default=15, help="rounds of timing (default 15)")
    parser.add_argument("--cold-starts", type=int, default=3, help="fresh processes per program (default 3)")
    parser.add_argument("--threads", default="1,2", help="numbers of threads (default 1,2)")
    parser.add_argument("--candidates", default="1,100,1000", help="rows of one call (default 1,100,1000)")
    parser.add_argument("--baselines", default="fp32,int8,int4,int2", help="dense programs to compare with")
    arguments = parser.parse_args()
    if arguments.budget and arguments.bundle:
        raise UserError("--budget and --bundle: give one of them")
    candidates, threads = numbers("candidates", arguments.candidates), numbers("threads", arguments.threads)

    from ondevice.bench import run_benchmark
    from ondevice.bench.benchmark import Settings
    from ondevice.bench.report import text_table

    started = time.perf_counter()
    report = run_benchmark(
        arguments.run,
        bundles=arguments.budget,
        bundle=arguments.bundle,
        settings=Settings(
            rounds=arguments.repeats,
            cold_starts=arguments.cold_starts,
            candidates=candidates,
            threads=threads,
            baselines=tuple(arguments.baselines.split(",")),
        ),
        say=lambda text: print(f"{time.perf_counter() - started:6.1f} s  {text}", flush=True),
    )
    print(f"\n{text_table(report)}\n")
    print(
        f"* {report['headline']}: chosen on validation; times with {report['settings']['threads'][0]} thread"
    )
    print(f"report: {report['files'][-1]}")
    return 0


if __name__ == "__main__":
    run_script(main)
