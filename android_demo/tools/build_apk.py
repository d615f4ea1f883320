"""Builds, signs and verifies the demo app without Gradle and the Android SDK, and prints its sizes as JSON.

    python android_demo/tools/build_apk.py --out ondevice-demo.apk [--bundle [NAME=]BUNDLE ...]

Steps: aapt2 compiles and links the resources, Maven compiles the Kotlin and runs the unit tests, D8 makes the
dex, this script packs (native libraries deflated, ``.pte`` stored and aligned), zipalign checks the alignment,
apksigner signs and verifies. The pieces come from `toolchain.py`. The runtime is the Android build that can be
fetched; a Gradle build takes the stock ``org.pytorch:executorch-android`` instead.

``--executorch-jar`` compiles against and packs other classes of org.pytorch.executorch (those of 1.4.1,
say) in place of the ones the runtime came with.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import struct
import sys
import tempfile
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import add_bundles
import shrink
import toolchain
from toolchain import Command, ToolError, Unavailable, run

DEMO = Path(__file__).resolve().parent.parent
MAIN = DEMO / "app" / "src" / "main"
ABIS = ("arm64-v8a", "x86_64")
MIN_SDK = "26"
KOTLIN_VERSION = "2.4.20"
TIMESTAMP = (1981, 1, 1, 1, 1, 2)
STORED = {".pte", ".arsc"}
ALIGNMENT = 4


def gradle(name: str) -> str:
    """What the app's Gradle file says, so that both builds have the same."""
    text = (DEMO / "app" / "build.gradle.kts").read_text(encoding="utf-8")
    match = re.search(rf'^ *{name} = "?([^"\n]+)"?$', text, re.MULTILINE)
    if match is None:
        raise ToolError(f"app/build.gradle.kts has no {name}")
    return match[1]


def compile_resources(work: Path) -> tuple[Path, Path]:
    """The linked resources (an APK without code) and the folder with R.java."""
    aapt2, env = toolchain.debian_tool("aapt2")
    compiled = []
    for variant in ("main", "debug"):
        archive = work / f"resources-{variant}.zip"
        folder = DEMO / "app" / "src" / variant / "res"
        run([aapt2, "compile", "--dir", folder, "-o", archive], f"compiling {variant} resources", env=env)
        compiled.append(archive)
    manifest = work / "AndroidManifest.xml"
    text = (MAIN / "AndroidManifest.xml").read_text(encoding="utf-8")
    # Gradle writes the package from the namespace.
    manifest.write_text(
        text.replace("<manifest ", '<manifest package="org.ondevice.demo" ', 1), encoding="utf-8"
    )
    linked, generated = work / "linked.apk", work / "generated"
    generated.mkdir()
    command: Command = [aapt2, "link", "-I", android_jar(work), "--manifest", manifest, "-o", linked]
    command += ["--java", generated, "--auto-add-overlay", "--debug-mode", "--min-sdk-version", MIN_SDK]
    command += ["--target-sdk-version", gradle("targetSdk")]
    command += ["--version-code", gradle("versionCode"), "--version-name", gradle("versionName")]
    command += ["--proguard", work / "manifest.pro", "-R", compiled[1], compiled[0]]
    run(command, "linking resources", env=env)
    return linked, generated


def android_jar(work: Path) -> Path:
    """The framework under a name that tools take for an archive."""
    jar = work / "android.jar"
    if not jar.exists():
        jar.symlink_to(toolchain.fetch("android"))
    return jar


UNRESOLVED = ("Could not transfer artifact", "Could not find artifact", "could not be resolved")


def maven(goal: str, *options: str) -> None:
    """Run Maven on the modules. Raises Unavailable when it cannot fetch what it needs itself."""
    env = {"MAVEN_OPTS": os.environ.get("MAVEN_OPTS", "-Xmx1g")}
    # Kotlin compiles everything each time, and leaves the classes of sources that are gone.
    for name in ("surefire-reports", "classes", "test-classes"):
        for folder in DEMO.glob(f"*/target/{name}"):
            shutil.rmtree(folder)
    try:
        run(["mvn", "-q", "-B", "-T1", goal, *options], f"mvn {goal}", cwd=DEMO, env=env)
    except ToolError as error:
        for line in str(error).splitlines():
            if any(text in line for text in UNRESOLVED):
                raise Unavailable(line) from error
        raise


def num_tests(module: str) -> int:
    """The number of tests in Surefire's reports of a module. Raises ToolError when one did not pass."""
    total = 0
    for report in (DEMO / module / "target" / "surefire-reports").glob("*.txt"):
        match = re.search(r"Tests run: (\d+), Failures: 0, Errors: 0, Skipped: 0", report.read_text())
        if match is None:
            raise ToolError(f"not every test ran and passed: {report.read_text()}")
        total += int(match[1])
    return total


def compile_and_test(generated: Path, executorch: Path) -> list[Path]:
    """The folders with the compiled classes of core, engine and app; the app's unit tests passed."""
    # core's tests run by themselves
    tests = ("-Dtest=org.ondevice.demo.*Test", "-Dsurefire.failIfNoSpecifiedTests=false")
    maven("test", f"-Dexecutorch.jar={executorch}", f"-Dapp.generated={generated}", *tests)
    return [DEMO / module / "target" / "classes" for module in ("core", "engine", "app")]


def kotlin_stdlib() -> Path:
    folder = toolchain.MAVEN_REPOSITORY / "org/jetbrains/kotlin/kotlin-stdlib" / KOTLIN_VERSION
    return folder / f"kotlin-stdlib-{KOTLIN_VERSION}.jar"


def kotlin_libraries() -> list[Path]:
    """Kotlin's library, and the annotations that it refers to."""
    return [
        kotlin_stdlib(),
        toolchain.MAVEN_REPOSITORY / "org/jetbrains/annotations/13.0/annotations-13.0.jar",
    ]


def make_dex(work: Path, classes: Iterable[Path], libraries: Iterable[Path]) -> list[Path]:
    """The dex files of all classes."""
    program = work / "program.jar"
    with zipfile.ZipFile(program, "w") as jar:
        for folder in classes:
            for file in sorted(folder.rglob("*.class")):
                jar.write(file, file.relative_to(folder).as_posix())
    inputs = [program]
    for index, library in enumerate(libraries):
        link = work / f"library{index}.jar"
        link.symlink_to(library)
        inputs.append(link)
    output = work / "dex"
    output.mkdir()
    java_home = Path(shutil.which("javac") or "/usr/bin/javac").resolve().parent.parent
    command: Command = [
        "java",
        "-Xmx1g",
        "-cp",
        toolchain.fetch("r8"),
        "com.android.tools.r8.D8",
        "--release",
    ]
    command += [
        "--min-api",
        MIN_SDK,
        "--lib",
        android_jar(work),
        "--lib",
        java_home,
        "--output",
        output,
        *inputs,
    ]
    run(command, "making dex")
    return sorted(output.glob("*.dex"))


def contents(linked: Path, dex: list[Path], bundles: dict[str, list[Path]]) -> dict[str, bytes]:
    """What goes into the APK, by name."""
    entries: dict[str, bytes] = {}
    with zipfile.ZipFile(linked) as resources:
        for name in resources.namelist():
            entries[name] = resources.read(name)
    for file in dex:
        entries[file.name] = file.read_bytes()
    for abi in ABIS:
        for folder in (toolchain.android_runtime() / abi, toolchain.fbjni() / abi):
            for library in sorted(folder.glob("*.so")):
                entries[f"lib/{abi}/{library.name}"] = library.read_bytes()
    for bundle, files in bundles.items():
        for file in files:
            entries[f"assets/bundles/{bundle}/{file.name}"] = file.read_bytes()
    return entries


def pack(entries: dict[str, bytes], target: Path) -> None:
    """Write an APK whose stored entries begin at multiples of four bytes. Same entries, same bytes."""
    with zipfile.ZipFile(target, "w") as apk:
        for name, data in entries.items():
            entry = zipfile.ZipInfo(name, TIMESTAMP)
            entry.external_attr = 0o644 << 16
            stored = Path(name).suffix in STORED
            entry.compress_type = zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED
            if stored:
                assert apk.fp is not None
                start = apk.fp.tell() + 30 + len(name.encode())
                entry.extra = padding(-start % ALIGNMENT)
            apk.writestr(entry, data, compresslevel=None if stored else 9)


def padding(size: int) -> bytes:
    """An extra field of zip whose length is ``size`` more than a multiple of four."""
    return b"" if size == 0 else struct.pack("<HH", 0xD935, size) + bytes(size)


def sign(apk: Path) -> dict[str, bool]:
    """Sign with this cache's debug key, then verify. Which signature schemes hold."""
    keystore = toolchain.cache() / "debug.keystore"
    if not keystore.exists():
        part = keystore.with_suffix(".part")
        part.unlink(missing_ok=True)
        command: Command = ["keytool", "-genkeypair", "-keystore", part, "-storetype", "PKCS12"]
        command += ["-storepass", "android", "-keypass", "android", "-dname", "CN=ondevice debug"]
        command += ["-alias", "debug", "-keyalg", "RSA", "-keysize", "2048", "-validity", "10000"]
        run(command, "making a debug key")
        os.replace(part, keystore)
    signer: Command = ["java", "-jar", toolchain.apksigner_jar()]
    options: Command = ["--ks", keystore, "--ks-pass", "pass:android", "--min-sdk-version", MIN_SDK]
    run([*signer, "sign", *options, "--v1-signing-enabled", "false", apk], "signing")
    report = run(
        [*signer, "verify", "--verbose", "--min-sdk-version", MIN_SDK, apk], "verifying the signature"
    )
    true = [line for line in report.splitlines() if line.rstrip().endswith("true")]
    return {
        scheme: any(f"Verified using {scheme} scheme" in line for line in true) for scheme in ("v2", "v3")
    }


def check(apk: Path) -> None:
    """What must hold of the finished file. Raises ToolError when it does not."""
    zipalign, env = toolchain.debian_tool("zipalign")
    run([zipalign, "-c", "4", apk], "checking the alignment", env=env)
    with zipfile.ZipFile(apk) as archive:
        for entry in archive.infolist():
            if Path(entry.filename).suffix in STORED and entry.compress_type != zipfile.ZIP_STORED:
                raise ToolError(f"{entry.filename} is compressed in the APK")
        names = set(archive.namelist())
        code = b"".join(archive.read(name) for name in names if name.endswith(".dex"))
    needed = {"AndroidManifest.xml", "classes.dex", "resources.arsc"}
    needed |= {
        f"lib/{abi}/{name}.so" for abi in ABIS for name in ("libexecutorch", "libfbjni", "libc++_shared")
    }
    if missing := needed - names:
        raise ToolError(f"the APK lacks {', '.join(sorted(missing))}")
    for class_name in ("org/ondevice/demo/RecommendActivity", "org/pytorch/executorch/Module", "kotlin/Unit"):
        if f"L{class_name};".encode() not in code:
            raise ToolError(f"the dex has no class {class_name}")
    aapt2, env = toolchain.debian_tool("aapt2")
    badging = run([aapt2, "dump", "badging", apk], "reading the manifest", env=env)
    if permissions := [line for line in badging.splitlines() if line.startswith("uses-permission")]:
        raise ToolError(f"the APK asks for permissions: {'; '.join(permissions)}")


def sizes(apk: Path) -> dict[str, int]:
    """Bytes in the APK, compressed as they are there."""
    groups = {"dex_bytes": 0, "resources_bytes": 0, "bundles_bytes": 0, **{f"{abi}_bytes": 0 for abi in ABIS}}
    with zipfile.ZipFile(apk) as archive:
        for entry in archive.infolist():
            parts = entry.filename.split("/")
            if parts[0] == "lib":
                group = f"{parts[1]}_bytes"
            elif entry.filename.endswith(".dex"):
                group = "dex_bytes"
            elif parts[:2] == ["assets", "bundles"]:
                group = "bundles_bytes"
            else:
                group = "resources_bytes"
            groups[group] += entry.compress_size
    return groups


def build(
    out: Path, bundles: dict[str, list[Path]], executorch: Path | None, shrinks: bool = False
) -> dict[str, Any]:
    """Build ``out``. Returns the report; with ``shrinks``, also what R8 would make of the code."""
    classes_jar = (executorch or toolchain.android_runtime() / "classes.jar").resolve()
    fbjni, nativeloader = toolchain.fbjni() / "classes.jar", toolchain.fetch("nativeloader")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".apk-") as folder:
        work = Path(folder)
        linked, generated = compile_resources(work)
        classes = compile_and_test(generated, classes_jar)
        dex = make_dex(work, classes, [*kotlin_libraries(), classes_jar, fbjni, nativeloader])
        apk = work / "demo.apk"
        pack(contents(linked, dex, bundles), apk)
        schemes = sign(apk)
        if not all(schemes.values()):
            raise ToolError(f"the signature does not hold: {schemes}")
        check(apk)
        dex_sha256 = hashlib.sha256(b"".join(file.read_bytes() for file in dex)).hexdigest()
        report: dict[str, Any] = {"apk": str(out), "apk_bytes": apk.stat().st_size, **sizes(apk)}
        if shrinks:
            libraries = sorted(work.glob("library*.jar"))
            report["shrunk_dex_bytes"] = shrink.shrink(
                work, work / "program.jar", libraries, work / "manifest.pro"
            )
        report.update(
            tests=num_tests("app"),
            bundles=sorted(bundles),
            dex_sha256=dex_sha256,
            signed=sorted(schemes),
            abis=list(ABIS),
        )
        os.replace(apk, out)
    return report


def asset_bundles() -> list[str]:
    """Arguments for the bundles that `add_bundles.py` put into the assets."""
    if not add_bundles.ASSETS.is_dir():
        return []
    return [str(path) for path in sorted(add_bundles.ASSETS.iterdir()) if path.is_dir()]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="the APK to write")
    parser.add_argument(
        "--bundle", action="append", default=[], metavar="[NAME=]BUNDLE", help="pack a bundle"
    )
    parser.add_argument("--executorch-jar", type=Path, help="classes of org.pytorch.executorch")
    options = parser.parse_args(arguments)
    try:
        named = map(add_bundles.parse, asset_bundles() + options.bundle)
        bundles = {name: add_bundles.bundle_files(name, folder) for name, folder in named}
        report = build(options.out.resolve(), bundles, options.executorch_jar)
    except (ToolError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    print(json.dumps(report, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
