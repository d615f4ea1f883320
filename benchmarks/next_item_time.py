"""How long ``recommend`` of bundles of the next item takes: a full history read, all items ranked, the best returned.

The items' vectors are there already: how long ``items`` takes, which makes them once, is ``items_us``.

    python benchmarks/next_item_time.py [NAME=]BUNDLE ... [--processes 5] [--rounds 20] [--calls 50] [--json OUT]

Every process is fresh and holds nothing but ExecuTorch's runtime with one thread; in it the bundles take turns, a round
of one after a round of the other, so that what else the machine does hits all alike. p50 and p90 are medians over the
processes, with the smallest and the largest of them beside; a ratio is to the first bundle, taken in each round.
Histories are full, of items drawn at random: the time depends on none of them. The machine should do nothing else.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from ondevice.bench.measure.latency import Timing, percentile, take_turns
from ondevice.bench.measure.runtime import Program, set_threads
from ondevice.bench.report.report import environment
from ondevice.bundle.manifest import PROGRAM, read_manifest
from ondevice.bundle.manifest_check import ITEMS
from ondevice.data.gaps import NUM_BUCKETS
from ondevice.errors import UserError, run_script
from ondevice.files import atomic_json
from ondevice.program.best_items import leaves_out
from ondevice.program.bundle import load_bundle

REQUESTS = 16


def requests_of(folder: Path) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Inputs of ``recommend``: full histories of rows, and of gaps, drawn at random, and nothing else to leave out.

    Raises: UserError: for a bundle of something else.
    """
    manifest, _ = read_manifest(folder)
    method = manifest["methods"].get("recommend")
    if not leaves_out(method):
        raise UserError(f"{folder}: its recommend leaves out no history; give bundles of the next item")
    width, num_rows = method["inputs"][0]["shape"][1], manifest["num_rows"]
    num_gaps = sum(field["last"] for field in manifest["schema"]["fields"] if "gaps" in field)
    drawn = torch.Generator().manual_seed(0)
    nothing = torch.full((1, 1), num_rows)
    contexts = [torch.randint(num_rows, (1, width - num_gaps), generator=drawn) for _ in range(REQUESTS)]
    gaps = [torch.randint(NUM_BUCKETS, (1, num_gaps), generator=drawn) for _ in range(REQUESTS)]
    return [(torch.cat(each, 1), nothing) for each in zip(contexts, gaps, strict=True)]


def time_here(bundles: Mapping[str, Path], rounds: int, calls: int) -> dict[str, dict[str, float]]:
    """Of each bundle: microseconds of ``recommend`` in this process, the ratio to the first, those of ``items``."""

    def call_of(program: Program, folder: Path) -> Any:
        (vectors,), method = program.run(ITEMS), program.method("recommend")
        requests = [(*each, vectors) for each in requests_of(folder)]
        return lambda number: method(requests[number % len(requests)])

    def items_of(program: Program) -> Any:
        method = program.method(ITEMS)
        return lambda number: method(())

    programs = {name: Program(folder / PROGRAM) for name, folder in bundles.items()}
    calls_of = {name: call_of(programs[name], folder) for name, folder in bundles.items()}
    timings: dict[str, Timing] = take_turns(calls_of, rounds=rounds, calls_per_round=calls)
    once = take_turns(
        {name: items_of(program) for name, program in programs.items()}, rounds=rounds, calls_per_round=calls
    )
    first = timings[next(iter(bundles))]
    return {
        name: {
            **{f"p{percent}_us": _microseconds(timing, percent) for percent in (50, 90)},
            "over_first": timing.ratio_to(first),
            "items_us": _microseconds(once[name], 50),
        }
        for name, timing in timings.items()
    }


def _microseconds(timing: Timing, percent: int) -> float:
    return statistics.median(percentile(each, percent) for each in timing.rounds) / 1e3


def spread(values: list[float]) -> dict[str, float]:
    """Median, smallest and largest."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundles", nargs="+", metavar="[NAME=]BUNDLE")
    parser.add_argument("--processes", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=20, help="of each bundle in a process")
    parser.add_argument("--calls", type=int, default=50, help="of each bundle in a round")
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    bundles = {}
    for text in given.bundles:
        name, separator, folder = text.partition("=")
        bundles[name if separator else Path(text).name] = Path(folder if separator else text)
    if min(given.processes, given.rounds, given.calls) < 1:
        raise UserError("--processes, --rounds and --calls must be at least 1")
    if given.here:
        set_threads(1)
        print(json.dumps(time_here(bundles, given.rounds, given.calls)))
        return 0
    for folder in bundles.values():
        load_bundle(folder)  # what is damaged is said once, by this process
        requests_of(folder)
    words = [f"{name}={folder}" for name, folder in bundles.items()]
    command = [
        sys.executable,
        __file__,
        *words,
        "--here",
        f"--rounds={given.rounds}",
        f"--calls={given.calls}",
    ]
    runs = [
        json.loads(
            subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
        )
        for _ in range(given.processes)
    ]
    figures = {
        name: {key: spread([run[name][key] for run in runs]) for key in runs[0][name]} for name in bundles
    }
    for name, entry in figures.items():
        p50, p90, ratio, once = (entry[key] for key in ("p50_us", "p90_us", "over_first", "items_us"))
        print(
            f"{name}: p50 {p50['median']:.0f} µs ({p50['min']:.0f} to {p50['max']:.0f}), p90 {p90['median']:.0f} µs "
            f"({p90['min']:.0f} to {p90['max']:.0f}), "
            f"{ratio['median']:.2f}x ({ratio['min']:.2f} to {ratio['max']:.2f}), items once {once['median']:.0f} µs"
        )
    if given.json:
        text = " ".join(["python", "benchmarks/next_item_time.py", *(arguments or sys.argv[1:])])
        atomic_json(given.json, {"command": text, "environment": environment(), "recommend": figures})
    return 0


if __name__ == "__main__":
    run_script(main)
