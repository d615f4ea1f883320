"""Runs bundles on an emulated arm64 processor (a Cortex-A76), and counts the instructions that ranking takes.

    python android_demo/tools/arm64.py golden [NAME=]BUNDLE ... [--tolerance 1e-3] [--rescored DIR]
    python android_demo/tools/arm64.py count [NAME=]BUNDLE ... [--candidates 100 ...] [--expect JSON] [--out JSON]

``golden`` compares the scores of the arm64 Python runtime with those in the manifest, made on x86. With
``--rescored`` it writes copies of the bundles whose golden scores are those of arm64: what another arm64
runtime must give to the last bit. ``count`` counts the instructions of ranking 100 and 1000 candidates inside
the runtime and its kernels, with one thread: exact, the same in every run, and the mobile-CPU cost figure that needs
no phone. A program without ``rank`` ranks with ``forward``; of one of the next item ``recommend`` is counted, too, with
a full history and all items, and ``items``, which is called once. Times under emulation mean nothing and are not taken.

With ``--expect``, a count above the one in the file by more than ``--slack`` is an error. QEMU, Debian's
arm64 packages and the aarch64 wheels come through `emulation.py`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import add_bundles
import emulation
import toolchain
from toolchain import ToolError, run

SOURCES = Path(__file__).resolve().parent / "arm64"
CANDIDATES = (100, 1000)
RECOMMEND, ITEMS = "recommend", "items"
# An activation that arm64's kernels round the other way is a step of 255 off; a wrong table is off by far more.
TOLERANCE = 1e-3

Golden = dict[str, "int | float"]
Result = TypeVar("Result")


def counter() -> Path:
    """The QEMU plugin."""
    source = SOURCES / "count.c"

    def unpack(folder: Path) -> None:
        run(["gcc", "-shared", "-fPIC", "-O2", "-w", "-o", folder / "count.so", source], "compiling count.c")

    return toolchain.unpacked("qemu-plugin", toolchain.label_of([], source.read_bytes()), unpack) / "count.so"


def guest(bundle: Path, candidates: list[int]) -> tuple[dict[str, Any], list[tuple[int, int]]]:
    """Run `arm64/guest.py` over a bundle. Its answer, and the counts between its marks."""
    root, libraries = emulation.sysroot(), emulation.site()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "counts"
        plugin = f"{counter()},library={emulation.RUNTIME},out={out}" if candidates else None
        command, env = emulation.emulator(root, plugin)
        for variable in (
            f"PYTHONPATH={libraries}",
            "PYTHONDONTWRITEBYTECODE=1",
            "PYTHONHASHSEED=0",
            "OMP_NUM_THREADS=1",
        ):
            command += ["-E", variable]
        command += [
            root / "usr/bin/python3.11",
            "-s",
            SOURCES / "guest.py",
            bundle.resolve(),
            ",".join(map(str, candidates)),
        ]
        done = subprocess.run(
            [str(word) for word in command],
            env={**os.environ, **env},
            capture_output=True,
            text=True,
            errors="replace",
            timeout=1800,
        )
        lines = done.stdout.strip().splitlines()
        if done.returncode != 0 or not lines:
            tail = "\n".join(done.stderr.strip().splitlines()[-20:])
            raise ToolError(f"{bundle}: the emulated runtime ended with {done.returncode}:\n{tail}")
        counts = (
            [tuple(map(int, line.split())) for line in out.read_text().splitlines()] if candidates else []
        )
    return json.loads(lines[-1]), [(in_program, everything) for in_program, everything in counts]


def manifest_of(bundle: Path) -> dict[str, Any]:
    try:
        manifest: dict[str, Any] = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
        return manifest
    except (OSError, ValueError) as error:
        raise ToolError(f"{bundle} is no bundle: {error}") from error


def is_next_item(manifest: dict[str, Any]) -> bool:
    """Whether the vectors of its items are made once, as those of a model of the next item are."""
    return ITEMS in manifest["methods"]


def single(value: float) -> float:
    """The float32 that a text stands for."""
    return float(struct.unpack("<f", struct.pack("<f", value))[0])


def in_parallel(function: Callable[[Path], Result], bundles: dict[str, Path]) -> dict[str, Result]:
    """Results by name; each emulated process has one thread."""
    emulation.site()  # what all need is made once, by one
    counter()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(bundles, pool.map(function, bundles.values()), strict=True))


def golden(bundles: dict[str, Path], tolerance: float, rescored: Path | None = None) -> dict[str, Golden]:
    """Largest difference of a golden score by bundle. Raises ToolError when one is too large."""

    def compare(bundle: Path) -> Golden:
        manifest = manifest_of(bundle)
        expected = [single(case["score"]) for case in manifest["golden"]]
        answer, _ = guest(bundle, [])
        scores: list[float] = answer["golden"]
        difference = max(abs(a - b) for a, b in zip(scores, expected, strict=True))
        allowed = max(tolerance, manifest.get("golden_tolerance", 0.0))
        if answer["machine"] != "aarch64" or not difference <= allowed:
            raise ToolError(f"{bundle}: arm64 scores {scores}, expected {expected} within {allowed}")
        if rescored is not None:
            write_rescored(bundle, manifest, scores, rescored / bundle.name)
        return {"cases": len(scores), "max_abs": difference}

    return in_parallel(compare, bundles)


def write_rescored(bundle: Path, manifest: dict[str, Any], scores: list[float], target: Path) -> None:
    """A copy of a bundle with other golden scores, and none of what x86 recommends."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(bundle, target)
    for case, score in zip(manifest["golden"], scores, strict=True):
        case["score"] = score
        case.pop("best", None)
    zeros = "0" * 64
    text = json.dumps({**manifest, "sha256": zeros}, separators=(",", ":"), ensure_ascii=False)
    digest = hashlib.sha256(text.encode()).hexdigest()
    (target / "manifest.json").write_text(text.replace(zeros, digest, 1), encoding="utf-8")


def count(bundles: dict[str, Path], candidates: list[int]) -> dict[str, dict[str, int]]:
    """Instructions of one ranking inside the runtime, by bundle and number of candidates."""

    def measure(bundle: Path) -> dict[str, int]:
        _, counts = guest(bundle, candidates)
        names = [str(n) for n in candidates] + [RECOMMEND, ITEMS] * is_next_item(manifest_of(bundle))
        repeats = len(counts) // len(names)
        in_program = [part for part, _ in counts]
        groups = [in_program[i * repeats : (i + 1) * repeats] for i in range(len(names))]
        if repeats < 2 or any(min(group) != max(group) or group[0] == 0 for group in groups):
            raise ToolError(f"{bundle}: repeated calls took different numbers of instructions: {groups}")
        return {name: group[0] for name, group in zip(names, groups, strict=True)}

    return in_parallel(measure, bundles)


def counts_text(counts: dict[str, dict[str, int]], bundles: dict[str, Path], command: str) -> str:
    """What ``count`` writes: the counts, and what they are counts of."""
    content = {
        "command": command,
        "processor": f"{emulation.CPU}, emulated",
        "runtime": toolchain.PIECES["executorch"].spec,
        "models": {n: manifest_of(b)["files"]["model.pte"]["sha256"] for n, b in bundles.items()},
        "instructions": counts,
    }
    return json.dumps(content, indent=2) + "\n"


def check(
    measured: dict[str, dict[str, int]], expected: dict[str, dict[str, int]], slack: float
) -> list[str]:
    """What takes more instructions than expected, one line each, and what only one of the two has."""
    problems = []
    for name in sorted(set(measured) | set(expected)):
        for call in sorted(set(measured.get(name, {})) | set(expected.get(name, {}))):
            now, before = measured.get(name, {}).get(call), expected.get(name, {}).get(call)
            what = f"{name}, {call}" if call in (RECOMMEND, ITEMS) else f"{name}, {call} candidates"
            if now is None or before is None:
                problems.append(f"{what}: only in one of the two")
            elif now > before * (1 + slack):
                problems.append(f"{what}: {now:,} instructions, expected {before:,}")
    return problems


def check_against(counts: dict[str, dict[str, int]], file: Path, slack: float) -> None:
    """Raises ToolError when a count grew over the one in an earlier file."""
    expected = json.loads(file.read_text(encoding="utf-8"))["instructions"]
    if problems := check(counts, expected, slack):
        raise ToolError("more instructions than expected:\n" + "\n".join(problems))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    compare = commands.add_parser("golden", help="golden cases on arm64")
    compare.add_argument("--tolerance", type=float, default=TOLERANCE, help="how far a score may be off")
    compare.add_argument(
        "--rescored", type=Path, help="write copies of the bundles with arm64's scores there"
    )
    counting = commands.add_parser("count", help="instructions of ranking on arm64")
    counting.add_argument("--candidates", type=int, action="append", help="default: 100 and 1000")
    counting.add_argument("--expect", type=Path, help="JSON of an earlier count")
    counting.add_argument("--slack", type=float, default=0.0, help="fraction by which a count may grow")
    counting.add_argument("--out", type=Path, help="write the counts there")
    for command in (compare, counting):
        command.add_argument("bundles", nargs="+", metavar="[NAME=]BUNDLE")
    options = parser.parse_args(arguments)
    bundles = dict(map(add_bundles.parse, options.bundles))
    try:
        if options.command == "golden":
            print(json.dumps(golden(bundles, options.tolerance, options.rescored), indent=2))
            return 0
        counts = count(bundles, options.candidates or list(CANDIDATES))
        print(json.dumps(counts, indent=2))
        if options.out:
            command = " ".join(["python", "android_demo/tools/arm64.py", *sys.argv[1:]])
            options.out.write_text(counts_text(counts, bundles, command), encoding="utf-8")
        if options.expect:
            check_against(counts, options.expect, options.slack)
    except (ToolError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
