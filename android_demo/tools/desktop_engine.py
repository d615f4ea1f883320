"""Runs the app's own engine over an Android build of the runtime, in a JVM on x86_64 Linux.

    python android_demo/tools/desktop_engine.py BUNDLE ... [--abi arm64-v8a] [--executorch-jar CLASSES.jar]

``engine``'s tests load the bundles through the same Kotlin as the app, ask them their golden cases, and provoke
every error with the first, which has ``rank``. The Android libraries are copied with their symbol versions
removed; `desktop/bionic.c` takes the place of Android's C library and goes over to the desktop's. With
``--abi arm64-v8a`` the library, the JVM and all else are those of arm64, emulated.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import struct
import sys
from collections.abc import Sequence
from pathlib import Path

import arm64
import build_apk
import emulation
import toolchain
from toolchain import Command, ToolError, run

DEMO = Path(__file__).resolve().parent.parent
SOURCES = Path(__file__).resolve().parent / "desktop"
TEST = "org.ondevice.engine.DesktopEngineTest"
# Golden scores are those of x86, of which arm64's kernels differ (`arm64.TOLERANCE`); bundles that
# `arm64.py golden --rescored` wrote are met exactly.
TOLERANCE = {"x86_64": 0.0, "arm64-v8a": arm64.TOLERANCE}
MODULES = ("-pl", "core,engine")
LIBRARIES = ("libexecutorch.so", "libfbjni.so", "libc++_shared.so")
DT_NULL, DT_VERSYM, DT_VERNEED, DT_VERNEEDNUM = 0, 0x6FFFFFF0, 0x6FFFFFFE, 0x6FFFFFFF
PT_DYNAMIC = 2


def without_versions(elf: bytes) -> bytes:
    """A 64-bit little-endian library without the versions of the symbols it needs, which glibc has not."""
    if elf[:6] != b"\x7fELF\x02\x01":
        raise ToolError("the runtime's library is no 64-bit ELF file")
    data = bytearray(elf)
    header_offset = struct.unpack_from("<Q", data, 32)[0]
    header_size, num_headers = struct.unpack_from("<HH", data, 54)
    for index in range(num_headers):
        kind, _, offset, _, _, size = struct.unpack_from("<IIQQQQ", data, header_offset + index * header_size)
        if kind != PT_DYNAMIC:
            continue
        entries = [struct.unpack_from("<qQ", data, offset + place) for place in range(0, size, 16)]
        kept = [entry for entry in entries if entry[0] not in (DT_VERSYM, DT_VERNEED, DT_VERNEEDNUM)]
        if len(kept) == len(entries):
            raise ToolError("the runtime's library has no symbol versions to remove")
        kept += [(DT_NULL, 0)] * (len(entries) - len(kept))
        for place, entry in enumerate(kept):
            struct.pack_into("<qQ", data, offset + 16 * place, *entry)
        return bytes(data)
    raise ToolError("the runtime's library has no dynamic section")


def libraries(abi: str) -> Path:
    """A folder with the Android libraries of ``abi``, ready for a Linux of that processor."""

    def unpack(folder: Path) -> None:
        compiler: Command = ["gcc"] if abi == "x86_64" else emulation.cross_compiler()
        for name in LIBRARIES:
            source = toolchain.android_runtime() if name == "libexecutorch.so" else toolchain.fbjni()
            (folder / name).write_bytes(without_versions((source / abi / name).read_bytes()))
        shared: Command = [*compiler, "-shared", "-fPIC", "-O1", "-w"]
        # The stand-ins are named as Android's libraries; glibc's own are libc.so.6 and libm.so.6.
        shim: Command = ["-fno-builtin", "-o", folder / "libc.so", SOURCES / "bionic.c", "-ldl"]
        run([*shared, *shim], "compiling bionic.c")
        empty = folder / "empty.c"
        empty.write_text("")
        run([*shared, "-o", folder / "libm.so", empty, "-Wl,--no-as-needed", "-lm"], "making libm.so")
        for name in ("libdl.so", "liblog.so", "libandroid.so"):
            run([*shared, "-o", folder / name, empty], f"making {name}")
        empty.unlink()
        run([*shared, "-o", folder / "libpreload.so", SOURCES / "preload.c", "-ldl"], "compiling preload.c")

    sources = b"".join((SOURCES / name).read_bytes() for name in ("bionic.c", "preload.c"))
    label = toolchain.label_of(["runtime", "fbjni"], sources + Path(__file__).read_bytes())
    return toolchain.unpacked(f"desktop-{abi}", label, unpack)


def test_here(bundles: list[Path], classes: Path, tolerance: float) -> int:
    """Run the tests in this machine's JVM. The number of tests that passed."""
    properties = [f"-Dtest={TEST.rpartition('.')[2]}", "-Dsurefire.failIfNoSpecifiedTests=false"]
    properties += [f"-Dnative.dir={libraries('x86_64')}", f"-Dfbjni.jar={toolchain.fbjni() / 'classes.jar'}"]
    properties += [f"-Dbundle.dir={joined(bundles)}", f"-Dtolerance={tolerance}"]
    results = DEMO / "engine" / "target" / "surefire-reports" / f"{TEST}.txt"
    build_apk.maven("test", *MODULES, f"-Dexecutorch.jar={classes}", *properties)
    return passed(results.read_text(), r"Tests run: (\d+), Failures: 0, Errors: 0, Skipped: 0")


def test_emulated(bundles: list[Path], classes: Path, tolerance: float) -> int:
    """Run the tests in an emulated arm64 JVM. The number of tests that passed."""
    native = libraries("arm64-v8a")
    build_apk.maven("test-compile", *MODULES, f"-Dexecutorch.jar={classes}")
    jars = [DEMO / module / "target" / "classes" for module in ("core", "engine")]
    jars += [DEMO / "engine" / "target" / "test-classes", build_apk.kotlin_stdlib(), classes]
    jars += [toolchain.fbjni() / "classes.jar", toolchain.fetch("nativeloader"), toolchain.fetch("junit")]
    command, env = emulation.emulator(emulation.sysroot())
    command += [
        "-E",
        f"LD_LIBRARY_PATH={native}",
        emulation.java(),
        "-XX:TieredStopAtLevel=1",
        "-XX:+UseSerialGC",
    ]
    command += ["-Xmx512m", f"-Djava.library.path={native}", f"-Dnative.dir={native}"]
    command += [f"-Dbundle.dir={joined(bundles)}", f"-Dtolerance={tolerance}", "-cp", joined(jars)]
    command += ["org.junit.platform.console.ConsoleLauncher", "execute", f"--select-class={TEST}"]
    output = run([*command, "--details=summary", "--disable-banner"], "the engine's tests on arm64", env=env)
    return passed(output, r"\[ +(\d+) tests successful +\]\s+\[ +0 tests failed")


def joined(paths: Sequence[Path]) -> str:
    return os.pathsep.join(str(path.resolve()) for path in paths)


def passed(output: str, pattern: str) -> int:
    """The number of tests in a summary. Raises ToolError when one failed or was left out, or none ran."""
    match = re.search(pattern, output)
    if match is None or int(match[1]) == 0:
        raise ToolError(f"not every test of the engine ran and passed:\n{output}")
    return int(match[1])


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundles", type=Path, nargs="+", metavar="BUNDLE")
    parser.add_argument("--abi", choices=("x86_64", "arm64-v8a"), default="x86_64")
    parser.add_argument("--tolerance", type=float, help="how far a golden score may be off")
    parser.add_argument("--executorch-jar", type=Path, help="classes of org.pytorch.executorch")
    options = parser.parse_args(arguments)
    try:
        for bundle in options.bundles:
            if not (bundle / "manifest.json").is_file():
                raise ToolError(f"{bundle} is no bundle: it has no manifest.json")
        classes = (options.executorch_jar or toolchain.android_runtime() / "classes.jar").resolve()
        test = test_here if options.abi == "x86_64" else test_emulated
        tolerance = TOLERANCE[options.abi] if options.tolerance is None else options.tolerance
        tests = test(options.bundles, classes, tolerance)
    except ToolError as error:
        print(error, file=sys.stderr)
        return 2
    print(json.dumps({"bundles": list(map(str, options.bundles)), "abi": options.abi, "tests_passed": tests}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
