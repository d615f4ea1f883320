"""Runs bundles on an emulated arm64 processor (a Cortex-A76), and counts the instructions that ranking takes.

    python android_demo/tools/arm64.py golden BUNDLE ...
    python android_demo/tools/arm64.py count BUNDLE ... [--candidates 100 ...] [--expect JSON] [--out JSON]

``golden`` compares the scores of the arm64 Python runtime with those in the manifest. ``count`` counts the
instructions of one ``rank`` inside the runtime's library, with one thread: exact, the same in every run, and
the mobile-CPU cost figure that needs no phone. Times under emulation mean nothing and are not taken.

With ``--expect``, a count above the one in the file by more than ``--slack`` is an error. QEMU, Debian's
arm64 packages and the aarch64 wheels come through `toolchain.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import emulation
import toolchain
from toolchain import ToolError, run

SOURCES = Path(__file__).resolve().parent / "arm64"


def counter() -> Path:
    """The QEMU plugin."""
    source = SOURCES / "count.c"

    def unpack(folder: Path) -> None:
        run(["gcc", "-shared", "-fPIC", "-O2", "-w", "-o", folder / "count.so", source], "compiling count.c")

    return toolchain.unpacked("qemu-plugin", toolchain.label_of([], source.read_bytes()), unpack) / "count.so"


def guest(bundle: Path, candidates: list[int]) -> tuple[dict[str, object], list[tuple[int, int]]]:
    """Run `arm64/guest.py` over a bundle. Its answer, and the counts between its marks."""
    root, libraries = emulation.sysroot(), emulation.site()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "counts"
        plugin = f"{counter()},library={emulation.LIBRARY},out={out}" if candidates else None
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
    return json.loads(lines[-1]), [(own, everything) for own, everything in counts]


def manifest_of(bundle: Path) -> dict[str, object]:
    try:
        manifest: dict[str, object] = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
        return manifest
    except (OSError, ValueError) as error:
        raise ToolError(f"{bundle} is no bundle: {error}") from error


def single(value: float) -> float:
    """The float32 that a text stands for."""
    return float(struct.unpack("<f", struct.pack("<f", value))[0])


def golden(bundles: list[Path], tolerance: float) -> dict[str, object]:
    """Largest difference of a golden score by bundle. Raises ToolError when one is too large."""
    report: dict[str, object] = {}
    for bundle in bundles:
        cases: list[dict[str, float]] = manifest_of(bundle)["golden"]  # type: ignore[assignment]
        expected = [single(case["score"]) for case in cases]
        answer, _ = guest(bundle, [])
        found: list[float] = answer["golden"]  # type: ignore[assignment]
        difference = max(abs(a - b) for a, b in zip(found, expected, strict=True))
        if answer["machine"] != "aarch64" or len(found) != len(expected) or not difference <= tolerance:
            raise ToolError(f"{bundle}: arm64 scores {found}, expected {expected} within {tolerance}")
        report[bundle.name] = {"cases": len(found), "max_abs": difference}
    return report


def count(bundles: list[Path], candidates: list[int]) -> dict[str, dict[str, int]]:
    """Instructions of one ``rank`` inside the runtime, by bundle and number of candidates."""
    report: dict[str, dict[str, int]] = {}
    for bundle in bundles:
        _, counts = guest(bundle, candidates)
        repeats = len(counts) // len(candidates)
        own = [part for part, _ in counts]
        groups = [own[i * repeats : (i + 1) * repeats] for i in range(len(candidates))]
        if repeats < 2 or any(min(group) != max(group) or group[0] == 0 for group in groups):
            raise ToolError(f"{bundle}: repeated calls took different numbers of instructions: {groups}")
        report[bundle.name] = {str(n): group[0] for n, group in zip(candidates, groups, strict=True)}
    return report


def check(found: dict[str, dict[str, int]], expected: dict[str, dict[str, int]], slack: float) -> list[str]:
    """What takes more instructions than expected, one line each, and what only one of the two has."""
    problems = []
    for name in sorted(set(found) | set(expected)):
        for candidates in sorted(set(found.get(name, {})) | set(expected.get(name, {})), key=int):
            now, before = found.get(name, {}).get(candidates), expected.get(name, {}).get(candidates)
            if now is None or before is None:
                problems.append(f"{name}, {candidates} candidates: only in one of the two")
            elif now > before * (1 + slack):
                problems.append(f"{name}, {candidates} candidates: {now:,} instructions, expected {before:,}")
    return problems


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    compare = commands.add_parser("golden", help="golden cases on arm64")
    compare.add_argument("--tolerance", type=float, default=1e-6, help="how far a score may be off")
    counting = commands.add_parser("count", help="instructions of rank on arm64")
    counting.add_argument("--candidates", type=int, action="append", help="default: 100 and 1000")
    counting.add_argument("--expect", type=Path, help="JSON of an earlier count")
    counting.add_argument("--slack", type=float, default=0.0, help="fraction by which a count may grow")
    counting.add_argument("--out", type=Path, help="write the counts there")
    for command in (compare, counting):
        command.add_argument("bundles", type=Path, nargs="+", metavar="BUNDLE")
    options = parser.parse_args(arguments)
    try:
        if options.command == "golden":
            print(json.dumps(golden(options.bundles, options.tolerance), indent=2))
            return 0
        counts = count(options.bundles, options.candidates or [100, 1000])
        text = json.dumps(counts, indent=2)
        print(text)
        if options.out:
            options.out.write_text(text + "\n", encoding="utf-8")
        if options.expect:
            problems = check(counts, json.loads(options.expect.read_text(encoding="utf-8")), options.slack)
            if problems:
                raise ToolError("more instructions than expected:\n" + "\n".join(problems))
    except (ToolError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
