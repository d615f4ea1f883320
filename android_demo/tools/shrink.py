"""What R8 makes of the app in a release build: whether the rules that `engine` hands on are enough.

R8 gets the classes, `engine/consumer-rules.pro`, and the rules that aapt2 writes for what the manifest and the layouts
name. Its view of the phone is cut out of the framework's jar and of the JDK's own record of Java 8, since it cannot
read the whole of either (their records).
"""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import toolchain
from toolchain import Command, ToolError, run

DEMO = Path(__file__).resolve().parent.parent
# What the app and its libraries call; the rest of the framework they do not know.
ANDROID = ("annotation", "app", "content", "database", "graphics", "net", "os", "provider", "text", "util")
ANDROID += ("view", "widget")
KEPT = ("org/pytorch/executorch/Module", "com/facebook/jni/HybridData", "org/ondevice/demo/RecommendActivity")


def phone() -> Path:
    """A folder with the jars of Android's and Java's classes that R8 can read."""

    def unpack(folder: Path) -> None:
        prefixes = ("android/R.", "android/R$", *(f"android/{package}/" for package in ANDROID))
        with zipfile.ZipFile(toolchain.fetch("android")) as source:
            names = [name for name in source.namelist() if name.startswith(prefixes)]
            _write(folder / "android.jar", ((name, source.read(name)) for name in names))
        home = Path(shutil.which("javac") or "/usr/bin/javac").resolve().parent.parent
        with zipfile.ZipFile(home / "lib" / "ct.sym") as source:
            signatures = {}  # of RELEASES/CLASS.sig, or RELEASES/MODULE/CLASS.sig
            for name in source.namelist():
                releases, _, rest = name.partition("/")
                of_class = rest.removeprefix("java.base/")
                if "8" in releases and of_class.startswith("java/") and of_class.endswith(".sig"):
                    signatures[of_class.removesuffix(".sig") + ".class"] = name
            _write(folder / "java.jar", ((name, source.read(at)) for name, at in signatures.items()))

    return toolchain.unpacked(
        "r8-phone", toolchain.label_of(["android"], Path(__file__).read_bytes()), unpack
    )


def _write(jar: Path, entries: Iterable[tuple[str, bytes]]) -> None:
    with zipfile.ZipFile(jar, "w") as target:
        for name, data in entries:
            target.writestr(name, data)


def shrink(work: Path, program: Path, libraries: Sequence[Path], manifest_rules: Path) -> int:
    """Bytes of dex that R8 makes of ``program``, the app's own classes, with its libraries.

    Args:
        manifest_rules: what aapt2 wrote with ``--proguard``.

    Raises: ToolError: when R8 stops, or drops what native code finds by name.
    """
    cut = work / "cut.pro"
    cut.write_text(
        "".join(f"-dontwarn {package}.**\n" for package in ("android", "com.android", "dalvik", "java"))
    )
    output = work / "shrunk"
    output.mkdir()
    command: Command = [
        "java",
        "-Xmx1500m",
        "-cp",
        toolchain.fetch("r8"),
        "com.android.tools.r8.R8",
        "--release",
    ]
    command += ["--min-api", "26", "--output", output]
    for jar in ("android.jar", "java.jar"):
        command += ["--lib", phone() / jar]
    for rules in (cut, manifest_rules, DEMO / "engine" / "consumer-rules.pro"):
        command += ["--pg-conf", rules]
    run([*command, program, *libraries], "shrinking with R8")
    code = b"".join(file.read_bytes() for file in sorted(output.glob("*.dex")))
    if dropped := [name for name in KEPT if f"L{name};".encode() not in code]:
        raise ToolError(f"R8 dropped {', '.join(dropped)}")
    return len(code)
