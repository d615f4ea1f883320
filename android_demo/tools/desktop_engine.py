"""Runs the app's own engine over an Android build of the runtime, on a desktop JVM (x86_64 Linux).

    python android_demo/tools/desktop_engine.py BUNDLE [--executorch-jar CLASSES.jar]

``engine``'s tests load the bundle through the same Kotlin as the app, ask it its golden cases, and provoke
every error. The Android libraries are copied with their symbol versions removed; `desktop/bionic.c` takes the
place of Android's C library and goes over to the desktop's.
"""

from __future__ import annotations

import argparse
import json
import os
import struct
import sys
from pathlib import Path

import toolchain
from toolchain import Command, ToolError, run

DEMO = Path(__file__).resolve().parent.parent
SOURCES = Path(__file__).resolve().parent / "desktop"
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


def libraries(abi: str, compiler: str, label: str) -> Path:
    """A folder with the Android libraries of ``abi``, ready for a desktop of that processor."""

    def unpack(folder: Path) -> None:
        for name in LIBRARIES:
            source = toolchain.android_runtime() if name == "libexecutorch.so" else toolchain.fbjni()
            (folder / name).write_bytes(without_versions((source / abi / name).read_bytes()))
        shared: Command = [compiler, "-shared", "-fPIC", "-O1", "-w"]
        source_file = SOURCES / "bionic.c"
        # The stand-ins are named as Android's libraries; glibc's own are libc.so.6 and libm.so.6.
        run([*shared, "-fno-builtin", "-o", folder / "libc.so", source_file, "-ldl"], "compiling bionic.c")
        empty = folder / "empty.c"
        empty.write_text("")
        for name, needs in (
            ("libm.so", ["-Wl,--no-as-needed", "-lm"]),
            ("libdl.so", []),
            ("liblog.so", []),
            ("libandroid.so", []),
        ):
            run([*shared, "-o", folder / name, empty, *needs], f"making {name}")
        empty.unlink()
        run([*shared, "-o", folder / "libpreload.so", SOURCES / "preload.c", "-ldl"], "compiling preload.c")

    sources = b"".join((SOURCES / name).read_bytes() for name in ("bionic.c", "preload.c"))
    return toolchain.unpacked(
        f"desktop-{abi}", toolchain.label_of(["runtime", "fbjni"], label.encode() + sources), unpack
    )


def run_tests(bundle: Path, executorch: Path | None, tolerance: float) -> dict[str, object]:
    """Run engine's tests over ``bundle``. Raises ToolError with their output when one fails or none ran."""
    native = libraries("x86_64", "gcc", "x86_64")
    classes = (executorch or toolchain.android_runtime() / "classes.jar").resolve()
    command: Command = ["mvn", "-q", "-B", "-T1", "test", "-pl", "core,engine", "-Dtest=DesktopEngineTest"]
    command += ["-Dsurefire.failIfNoSpecifiedTests=false", f"-Dexecutorch.jar={classes}"]
    command += [f"-Dfbjni.jar={toolchain.fbjni() / 'classes.jar'}", f"-Dnative.dir={native}"]
    command += [f"-Dbundle.dir={bundle.resolve()}", f"-Dtolerance={tolerance}"]
    results = DEMO / "engine" / "target" / "surefire-reports" / "org.ondevice.engine.DesktopEngineTest.txt"
    results.unlink(missing_ok=True)
    run(command, "the engine's tests", cwd=DEMO, env={"MAVEN_OPTS": os.environ.get("MAVEN_OPTS", "-Xmx1g")})
    summary = next(line for line in results.read_text().splitlines() if line.startswith("Tests run"))
    counts = {
        name.strip(): int(value) for name, value in (part.split(":") for part in summary.split(",")[:4])
    }
    if counts["Tests run"] == counts["Skipped"]:
        raise ToolError(f"no test of the engine ran: {summary}")
    return {
        "bundle": str(bundle),
        "abi": "x86_64",
        "tests": counts["Tests run"],
        "skipped": counts["Skipped"],
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--tolerance", type=float, default=0.0, help="how far a golden score may be off")
    parser.add_argument("--executorch-jar", type=Path, help="classes of org.pytorch.executorch")
    options = parser.parse_args(arguments)
    try:
        if not (options.bundle / "manifest.json").is_file():
            raise ToolError(f"{options.bundle} is no bundle: it has no manifest.json")
        report = run_tests(options.bundle, options.executorch_jar, options.tolerance)
    except ToolError as error:
        print(error, file=sys.stderr)
        return 2
    print(json.dumps(report, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
