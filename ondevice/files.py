"""Files that are either whole or absent: atomic writes of files and folders."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

T = TypeVar("T")
_syncs: ContextVar[bool] = ContextVar("syncs", default=True)


@contextlib.contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A file to write, put at ``path`` only when the block ends without an error and all is on the disk."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = _beside(target, _new_file)
    try:
        with os.fdopen(handle, "wb") as out:
            yield out
            out.flush()
            sync(out.fileno())
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def sync(handle: int) -> None:
    """Wait until what was written to an open file is on the disk, but in an `unsynced` block."""
    if _syncs.get():
        os.fsync(handle)


@contextlib.contextmanager
def unsynced() -> Iterator[None]:
    """Do not wait for the disk in this block: for files of a folder that is thrown away as a whole on an error."""
    token = _syncs.set(False)
    try:
        yield
    finally:
        _syncs.reset(token)


def atomic_write(path: str | os.PathLike[str], content: bytes | str) -> None:
    """Write ``content`` so that a reader (or a crash) sees the old file or the new one, never a part."""
    with atomic_file(path) as out:
        out.write(content.encode() if isinstance(content, str) else content)


def atomic_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write ``value`` as indented JSON, atomically."""
    atomic_write(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


@contextlib.contextmanager
def atomic_directory(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A new folder to fill, renamed to ``path`` only when the block ends without an error.

    An existing folder at ``path`` is replaced as a whole; on an error it stays as it was.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    _, building = _beside(target, os.mkdir)
    try:
        yield building
        if target.exists():
            _, old = _beside(target, os.mkdir)
            os.replace(target, old / "old")
            try:
                os.replace(building, target)
            except BaseException:
                os.replace(old / "old", target)
                old.rmdir()
                raise
            shutil.rmtree(old, ignore_errors=True)
        else:
            os.replace(building, target)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise


def _new_file(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)


def _beside(target: Path, make: Callable[[Path], T]) -> tuple[T, Path]:
    """Make something new under a hidden name in the folder of ``target``; returns what ``make`` did, and its path.

    `tempfile` would give it to its owner alone. ``make`` leaves the mode to the umask.
    """
    while True:
        path = target.parent / f".{target.name}.{secrets.token_hex(4)}"
        with contextlib.suppress(FileExistsError):
            return make(path), path
