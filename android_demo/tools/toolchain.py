"""Pieces to build and try the app without Gradle and the Android SDK, at pinned versions with their SHA-256.

`pieces.lock` lists them. They come through the ordinary clients (apt-get, pip, npm, mvn) into
``$ONDEVICE_CACHE``, or ``~/.cache/ondevice/android``; nothing is installed on the system.
``python toolchain.py`` fetches all.
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
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

MAVEN_REPOSITORY = Path.home() / ".m2" / "repository"


SECONDS = 1800
"""What any command may take."""

Command = list["str | os.PathLike[str]"]


class ToolError(Exception):
    """What went wrong, in one line for the user."""


class Unavailable(ToolError):
    """A piece, or a program that fetches it, cannot be had here; nothing is said of what it is for."""


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


def read_lock(text: str) -> dict[str, dict[str, Piece]]:
    """Sections of `pieces.lock`: name to piece."""
    sections: dict[str, dict[str, Piece]] = {}
    for line in text.splitlines():
        if line.startswith("["):
            section = sections.setdefault(line.strip("[]"), {})
        elif line and not line.startswith("#"):
            name, client, spec, sha256 = line.split()
            section[name] = Piece(client, spec, sha256)
    return sections


LOCK = Path(__file__).with_name("pieces.lock")
SECTIONS = read_lock(LOCK.read_text(encoding="utf-8"))
PIECES = {name: piece for section in SECTIONS.values() for name, piece in section.items()}


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
    failure: type[ToolError] = ToolError,
) -> str:
    """Standard output of a command. Raises ``failure`` with the end of its output when it fails.

    Raises Unavailable when the program is not installed.
    """
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
            timeout=SECONDS,
        )
    except FileNotFoundError as error:
        raise Unavailable(f"{what}: '{words[0]}' is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise failure(f"{what}: '{words[0]}' took more than {SECONDS // 60} minutes") from error
    if done.returncode != 0:
        tail = "\n".join(done.stdout.strip().splitlines()[-30:])
        raise failure(f"{what} failed ({words[0]} ended with {done.returncode}):\n{tail}")
    return done.stdout


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def fetch(name: str) -> Path:
    """The file of a piece, fetched when the cache lacks it.

    Raises:
        Unavailable: when its client cannot fetch it.
        ToolError: when another file came.
    """
    piece = PIECES[name]
    kept = cache() / "files" / piece.sha256
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache()) as folder:
            file = _CLIENTS[piece.client](piece.spec, Path(folder))
            digest = sha256(file)
            if digest != piece.sha256:
                raise ToolError(
                    f"{name} ({piece.spec}) has the SHA-256 {digest}, not the pinned {piece.sha256}"
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
    update: Command = ["apt-get", *options, "-qq", "update"]
    download: Command = ["apt-get", *options, "-qq", "download", spec]
    has_lists = any((cache() / "apt" / architecture / "lists").glob("*_Packages*"))
    if not has_lists:
        run(update, "apt-get update", failure=Unavailable)
    try:
        run(download, f"fetching {spec}", cwd=folder, failure=Unavailable)
    except Unavailable:
        if not has_lists:
            raise
        run(update, "apt-get update", failure=Unavailable)  # the lists may be of another day
        run(download, f"fetching {spec}", cwd=folder, failure=Unavailable)
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


# Wheels only: a source distribution would run its own build script.
PIP: Command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:"]


def _pip(spec: str, folder: Path) -> Path:
    run([*PIP, "-d", folder, spec], f"fetching {spec}", failure=Unavailable)
    return _only(folder, "*.whl")


def _pip_arm64(spec: str, folder: Path) -> Path:
    options: Command = ["--python-version", "3.11", "-d", folder]
    for glibc in ("2_28", "2_17"):
        options += ["--platform", f"manylinux_{glibc}_aarch64"]
    run([*PIP, *options, spec], f"fetching {spec}", failure=Unavailable)
    return _only(folder, "*.whl")


def _npm(spec: str, folder: Path) -> Path:
    run(["npm", "pack", "--silent", spec], f"fetching {spec}", cwd=folder, failure=Unavailable)
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
            failure=Unavailable,
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


def unpack_debs(names: Iterable[str], root: Path) -> None:
    """Lay the files of Debian packages into ``root``; nothing of them is run."""
    for name in names:
        run(["dpkg-deb", "-x", fetch(name), root], f"unpacking {name}")


def unpack_wheels(names: Iterable[str], folder: Path, skipped: tuple[str, ...] = ()) -> None:
    """Lay the files of Python wheels into ``folder``, but for those whose names begin as in ``skipped``."""
    for name in names:
        with zipfile.ZipFile(fetch(name)) as wheel:
            wheel.extractall(folder, [n for n in wheel.namelist() if not n.startswith(skipped)])


def label_of(names: Iterable[str], more: bytes = b"") -> str:
    """A short text that is another when one of the pieces is, or ``more``."""
    return hashlib.sha256("".join(PIECES[name].sha256 for name in names).encode() + more).hexdigest()[:12]


def debian_tools() -> Path:
    """The root of aapt2, zipalign and apksigner.

    Debian's libbacktrace also loads 7z.so, for compressed debug symbols that nothing here has; a library of
    empty functions stands in for it.
    """

    def unpack(root: Path) -> None:
        unpack_debs(SECTIONS["debian-tools"], root)
        names = ["CrcGenerateTable", "Crc64GenerateTable"]
        names += [f"XzUnpacker_{word}" for word in ("Code", "Construct", "Free", "IsStreamWasFinished")]
        source = root / "empty.c"
        source.write_text(
            "#include <stdlib.h>\n" + "".join(f"void {n}(void) {{ abort(); }}\n" for n in names[2:])
        )
        with source.open("a") as out:
            out.writelines(f"void {name}(void) {{}}\n" for name in names[:2])
        run(["gcc", "-shared", "-fPIC", "-o", root / "usr" / "lib" / "7z.so", source], "making 7z.so")

    return unpacked("debian-tools", label_of(SECTIONS["debian-tools"]), unpack)


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


def adb() -> Path:
    """The adb client, as a script that finds its libraries."""
    names = [*SECTIONS["adb"], "libbase", "libcutils", "liblog"]

    def unpack(root: Path) -> None:
        unpack_debs(names, root)
        script = root / "adb"
        folder = 'here=$(dirname "$(readlink -f "$0")")'
        libraries = "$here/usr/lib/x86_64-linux-gnu/android:$here/usr/lib/x86_64-linux-gnu"
        program = "$here/usr/lib/android-sdk/platform-tools/adb"
        script.write_text(f'#!/bin/sh\n{folder}\nLD_LIBRARY_PATH="{libraries}" exec "{program}" "$@"\n')
        script.chmod(0o755)

    return unpacked("adb", label_of(names), unpack) / "adb"


def apksigner_jar() -> Path:
    return debian_tools() / "usr/share/java/apksigner-31.0.2.jar"


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
