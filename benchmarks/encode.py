"""How long a bundle's vocabulary takes to be read, and raw values to become rows, on one core; and in how much memory.

Times are the processor's, so that what else the machine does counts less. Memory is what is resident in a process of
its own that has scored before and let go of it, once a row of raw values has been encoded, and once it is scored.

python benchmarks/encode.py runs/NAME/bundles/64KB [--rows 1000] [--repeats 30] [--output docs/benchmarks/encode.json]
"""

from __future__ import annotations

import argparse
import functools
import random
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ondevice import memory
from ondevice.bench.report.report import environment
from ondevice.bundle import vocabulary_file
from ondevice.errors import run_script
from ondevice.files import atomic_json
from ondevice.program.bundle import Bundle, load_bundle


def raw_rows(bundle: Bundle, count: int, generator: random.Random) -> list[dict[str, Any]]:
    """Rows of values drawn from the vocabulary, one in ten of them unknown."""
    columns: dict[str, list[Any]] = {}
    for f, field in enumerate(bundle.schema.fields):
        keys: list[Any] = [text for _, text in bundle.vocabulary.items(f)]
        if field.has_integer_keys:
            keys = [int(key) for key in keys]
        known = [field.raw(key) for key in keys] or [None]
        columns[field.name] = [
            generator.choice(known) if generator.random() < 0.9 else None for _ in range(count)
        ]
    names = list(columns)
    return [dict(zip(names, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def milliseconds(call: Callable[[], Any]) -> float:
    started = time.process_time_ns()
    call()
    return (time.process_time_ns() - started) / 1e6


def resident(folder: str, row: dict[str, Any]) -> dict[str, int]:
    """Bytes that a process gains by a bundle: its vocabulary and manifest alone, then the program, too."""
    load_bundle(folder).score(row)  # imports and the runtime's own memory
    before = memory.settle()["anonymous"]
    bundle = load_bundle(folder)
    bundle.encode(row)
    encoded = memory.settle()["anonymous"]
    bundle.score(row)
    return {"without_program_bytes": encoded - before, "memory_bytes": memory.read()["anonymous"] - before}


def measured_apart(folder: str, row: dict[str, Any], repeats: int) -> dict[str, float]:
    """Medians of `resident` over fresh processes."""
    each = []
    for _ in range(repeats):
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
            each.append(process.submit(resident, folder, row).result())
    return {key: statistics.median(one[key] for one in each) for key in each[0]}


def measure(folder: str, count: int, repeats: int) -> dict[str, Any]:
    """Medians over repeats; each encodes rows of its own, and ``first`` is the first of a bundle just opened."""
    bundle, generator = load_bundle(folder), random.Random(0)
    content = bundle.contents["vocabulary.bin"]
    batches = [raw_rows(bundle, count, generator) for _ in range(repeats)]
    first = [milliseconds(lambda: load_bundle(folder).encode_all(batches[0])) for _ in range(repeats)]
    encoded = [milliseconds(functools.partial(bundle.encode_all, batch)) for batch in batches]
    opened = [milliseconds(lambda: load_bundle(folder)) for _ in range(repeats)]
    return {
        "keys": bundle.vocabulary.num_keys(),
        "vocabulary_bytes": len(content),
        "rows": count,
        "fields": len(bundle.schema.fields),
        "read_vocabulary_ms": statistics.median(
            milliseconds(lambda: vocabulary_file.decode(content)) for _ in range(repeats)
        ),
        "open_bundle_ms": statistics.median(opened),
        "open_and_encode_ms": statistics.median(first),
        "encode_ms": statistics.median(encoded),
        **measured_apart(folder, batches[0][0], 5),
        "environment": environment(),
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", help="a bundle's directory")
    parser.add_argument("--rows", type=int, default=1000, help="raw rows a call (default 1000)")
    parser.add_argument("--repeats", type=int, default=30, help="calls (default 30)")
    parser.add_argument("--output", help="a JSON file to write")
    arguments = parser.parse_args()
    measured = measure(arguments.bundle, arguments.rows, arguments.repeats)
    for key, value in measured.items():
        if key != "environment":
            print(f"{key:>20} {value:,.2f}" if isinstance(value, float) else f"{key:>20} {value:,}")
    if arguments.output:
        atomic_json(arguments.output, measured)
    return 0


if __name__ == "__main__":
    run_script(main)
