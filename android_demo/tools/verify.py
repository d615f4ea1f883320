"""Verifies one part of the demo, and says in one line what was found: what CI runs, by `android_demo/Makefile`.

    python android_demo/tools/verify.py PART BUNDLES [--executorch-jar CLASSES.jar]

PART is core, apk, library, engine, screens, runtime, instructions or adb; BUNDLES is what `export_bundles.py` wrote. A
part whose pieces cannot be fetched here is skipped, with the reason; a part that fails ends with its output and
status 1.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import add_bundles
import arm64
import build_apk
import desktop_engine
import screens as draw_screens
import toolchain
from toolchain import ToolError, Unavailable, run

DEMO = Path(__file__).resolve().parent.parent
ROOT = DEMO.parent
COMPARED = ("fp32", "int8", "int4", "ours")
NEXT, NEXT_GAPS = "next", "next_gaps"
RESCORED = "rescored"
COUNTS = ROOT / "docs" / "benchmarks" / "arm64_instructions.json"
# Training in float sums in another order on another processor, which can move a row to another size.
SLACK = 0.02
LIBRARY_VERSION = "0.1.0"


@dataclass(frozen=True)
class Options:
    """Where a part finds what it needs.

    Args:
        bundles: the folder that `export_bundles.py` wrote.
        executorch_jar: classes of org.pytorch.executorch to compile against; None for the runtime's own.
    """

    bundles: Path
    executorch_jar: Path | None

    def of(self, *names: str) -> dict[str, Path]:
        """Bundles by name.

        Raises: Unavailable: when `export_bundles.py` could not have its data.
        """
        unavailable = self.bundles / "unavailable.txt"
        if unavailable.exists():
            raise Unavailable(unavailable.read_text(encoding="utf-8").strip())
        chosen = {name: self.bundles / name for name in names}
        for folder in chosen.values():
            if not (folder / "manifest.json").is_file():
                raise ToolError(f"{folder} is no bundle; run export_bundles.py {self.bundles}")
        return chosen


def arm64_golden(options: Options) -> dict[str, arm64.Golden]:
    """Golden scores on the emulated processor, and beside the bundles copies with those scores.

    `engine` and `runtime` ask for the same, a minute of emulation: the second reads what the first kept, if it was made
    of these bundles by these pieces.
    """
    bundles = options.of(*COMPARED, NEXT, NEXT_GAPS, "tables")
    kept = options.bundles / RESCORED / "golden.json"
    files = [toolchain.LOCK, *(folder / "manifest.json" for folder in bundles.values())]
    # a manifest holds the hashes of a bundle's other files
    made_of = [toolchain.sha256(file) for file in files]
    if kept.exists() and (made := json.loads(kept.read_text(encoding="utf-8")))["made_of"] == made_of:
        return dict(made["figures"])
    figures = arm64.golden(bundles, arm64.TOLERANCE, kept.parent)
    kept.write_text(json.dumps({"made_of": made_of, "figures": figures}), encoding="utf-8")
    return figures


def core(options: Options) -> str:
    """Unit tests of core on the JVM, with the golden cases of the exported bundles."""
    bundles = options.of(*COMPARED, NEXT, NEXT_GAPS, "tables")
    folders = desktop_engine.joined(list(bundles.values()))
    build_apk.maven("test", f"-Dbundle.dir={folders}")
    tests = build_apk.num_tests("core")
    return f"{tests} unit tests passed, with the golden cases of {', '.join(bundles)}"


def apk(options: Options) -> str:
    """The app's tests, and the app compiled, dexed, packed, signed and verified without Gradle."""
    bundles = {name: add_bundles.bundle_files(name, at) for name, at in options.of(*COMPARED, NEXT).items()}
    report = build_apk.build(options.bundles / "demo.apk", bundles, options.executorch_jar, shrinks=True)
    megabytes = {key: f"{report[key] / 1e6:.1f} MB" for key in ("apk_bytes", "arm64-v8a_bytes")}
    shrunk = f"R8 shrinks the code to {report['shrunk_dex_bytes'] / 1e3:.0f} kB of dex by the rules that ship"
    classes = "the stock AAR's classes" if options.executorch_jar else "the fetched runtime's classes"
    return (
        f"{megabytes['apk_bytes']} with both processors' libraries and {len(bundles)} bundles "
        f"({megabytes['arm64-v8a_bytes']} of it arm64 libraries), .pte stored, signature {'+'.join(report['signed'])} "
        f"verified, {shrunk}, compiled against {classes}; {report['tests']} tests of the app's presenters passed"
    )


def engine(options: Options) -> str:
    """The app's engine on the Android libraries: x86_64 here, arm64-v8a emulated; golden cases to the last bit.

    Those of the next item within a unit in the last place or two (`DesktopEngineTest`).
    """
    classes = (options.executorch_jar or toolchain.android_runtime() / "classes.jar").resolve()
    bundles = options.of("ours", "fp32", "int8", "int4", NEXT, NEXT_GAPS, "tables")
    here = desktop_engine.test_here(list(bundles.values()), classes, 0.0)
    arm64_golden(options)
    rescored = [options.bundles / RESCORED / name for name in bundles]
    there = desktop_engine.test_emulated(rescored, classes, 0.0)
    return (
        f"{here} tests on x86_64 and {there} on arm64-v8a passed; golden cases of {', '.join(bundles)} are the "
        f"Python runtime's on the same processor, those of {NEXT} and {NEXT_GAPS} within 1e-6, the others in every bit"
    )


def library(options: Options) -> str:
    """What another app takes: core's jar and the engine's AAR with sources and KDoc; an example that uses them."""
    classes = (options.executorch_jar or toolchain.android_runtime() / "classes.jar").resolve()
    words = ("-Dlibrary", "-DskipTests", f"-Dexecutorch.jar={classes}", "-pl", "core,engine,example")
    build_apk.maven("package", *words)
    expected = {
        "core.jar": "org/ondevice/core/ModelLibrary.class",
        "core-sources.jar": "org/ondevice/core/ModelLibrary.kt",
        "core-javadoc.jar": "org/ondevice/core/ModelLibrary.html",
        "engine.aar": "classes.jar",
        "engine-sources.jar": "org/ondevice/engine/OnDevice.kt",
        "engine-javadoc.jar": "org/ondevice/engine/OnDevice.html",
        "example.jar": "org/example/films/JavaFilmsActivity.class",
    }
    sizes = []
    for name, entry in expected.items():
        module = name.split(".")[0].split("-")[0]
        archive = DEMO / module / "target" / name.replace(module, f"{module}-{LIBRARY_VERSION}")
        with zipfile.ZipFile(archive) as content:
            if entry not in content.namelist():
                raise ToolError(f"{archive} has no {entry}")
        sizes.append(f"{name} {archive.stat().st_size / 1e3:.0f} kB")
    return f"{', '.join(sizes)}; the example compiles against them, in Kotlin and in Java"


def screens(options: Options) -> str:
    """Every screen of the app in every state, drawn over the Android x86_64 library with the exported bundles."""
    classes = (options.executorch_jar or toolchain.android_runtime() / "classes.jar").resolve()
    bundles = {name: add_bundles.bundle_files(name, at) for name, at in options.of(*COMPARED, NEXT).items()}
    out = options.bundles / "screens"
    pictures = draw_screens.draw(out, bundles, classes)
    return (
        f"{build_apk.num_tests('screens')} tests passed, {pictures} pictures in {out.relative_to(DEMO)}: the ranking "
        "is in sight, no text is cut or faint, everything to touch is large enough and has words for TalkBack"
    )


def runtime(options: Options) -> str:
    """The Python runtime's arm64 wheel, emulated, against x86."""
    figures = arm64_golden(options)
    if figures["tables"]["max_abs"] != 0:
        raise ToolError(f"int8 tables are read differently on arm64: off by {figures['tables']['max_abs']}")
    off = ", ".join(f"{name} {each['max_abs']:.1e}" for name, each in figures.items())
    return f"arm64 against x86 over {figures['ours']['cases']} golden cases, largest difference: {off}"


def instructions(options: Options) -> str:
    """arm64 instructions of ranking, against the committed ones."""
    bundles = options.of(*COMPARED)
    counts = arm64.count(bundles, list(arm64.CANDIDATES))
    text = arm64.counts_text(counts, bundles, "make -C android_demo instructions")
    (options.bundles / COUNTS.name).write_text(text, encoding="utf-8")
    arm64.check_against(counts, COUNTS, SLACK)
    shown = "; ".join(
        f"{candidates} candidates: "
        + ", ".join(f"{name} {counts[name][str(candidates)] / 1e6:.2f} M" for name in bundles)
        for candidates in arm64.CANDIDATES
    )
    return f"{shown}; within {SLACK:.0%} of docs/benchmarks/{COUNTS.name}"


def adb(options: Options) -> str:
    """The benchmark's way to a phone: the real adb client without a device, and with a stand-in for adbd."""
    client = toolchain.adb()
    words = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "tests/bench/phone/test_adbd.py"]
    output = run(words, "tests with the adb client", cwd=ROOT, env={"ADB": str(client)})
    match = re.search(r"^(\d+) passed in [\d.]+s", output, re.MULTILINE)
    if match is None:
        raise ToolError(f"not every test ran and passed:\n{output}")
    version = subprocess.run([client, "version"], capture_output=True, text=True, check=True).stdout
    return f"{match[1]} tests passed with adb {version.split('Version ')[1].split()[0]}"


PARTS: dict[str, Callable[[Options], str]] = {
    "core": core,
    "apk": apk,
    "library": library,
    "engine": engine,
    "screens": screens,
    "runtime": runtime,
    "instructions": instructions,
    "adb": adb,
}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("bundles", type=Path)
    parser.add_argument("--executorch-jar", type=Path, help="classes of org.pytorch.executorch")
    given = parser.parse_args(arguments)
    jar = given.executorch_jar.resolve() if given.executorch_jar else None
    started = time.monotonic()
    try:
        if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
            raise Unavailable(
                f"the pieces are for x86_64 Linux, this is {platform.system()} {platform.machine()}"
            )
        text = PARTS[given.part](Options(given.bundles.resolve(), jar))
    except Unavailable as error:
        lines = str(error).splitlines()
        print(f"{given.part}: SKIPPED: {lines[0]}{' ' + lines[-1].strip() if lines[1:] else ''}")
        return 0
    except (ToolError, ValueError, OSError) as error:
        print(f"{given.part}: FAILED: {error}", file=sys.stderr)
        return 1
    print(f"{given.part}: {text} ({time.monotonic() - started:.0f} s)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
