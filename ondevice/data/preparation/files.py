"""The files of a data set, and their cutting into chunks of whole lines."""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ondevice.data.preparation.chunk import Chunk, ChunkId
from ondevice.data.preparation.plan import Plan
from ondevice.data.preparation.pool import BadLineError
from ondevice.data.preparation.text import BYTE_ORDER_MARK, TextFormat
from ondevice.errors import DataError

CHUNK_BYTES = 16 << 20  # of text; a constant, so that a preparation can go on under another memory option
_READ_BYTES = 1 << 20
_GZIP, _ZIP, _TAR = b"\x1f\x8b", b"PK\x03\x04", b"ustar"

Finished = dict[ChunkId, dict[str, Any]]


def find_files(path: str | os.PathLike[str], patterns: Sequence[str], what: str) -> list[Path]:
    """The file itself, or those of a folder that match the first pattern that any matches, in natural order.

    Args:
        path: a file, or a folder.
        patterns: regular expressions for whole names of files, without ``.gz``.
        what: name of the data set, for messages.

    Raises: DataError: when there is none, or one is there both packed and unpacked.
    """
    where = Path(path).expanduser()
    if where.is_file():
        return [where]
    if not where.is_dir():
        raise DataError(
            f"data.path: {where} does not exist; name the file of {what}, or a folder that holds it"
        )
    names = sorted(p.name for p in where.iterdir() if p.is_file())
    for pattern in patterns:
        matches = [name for name in names if re.fullmatch(pattern, name.removesuffix(".gz"))]
        both = [name for name in matches if f"{name}.gz" in matches]
        if both:
            raise DataError(f"data.path: {where} holds {both[0]} and {both[0]}.gz; keep one of them")
        if matches:
            return [where / name for name in sorted(matches, key=natural)]
    raise DataError(f"data.path: {where} holds no file of {what} (looked for: {', '.join(patterns)})")


def natural(name: str) -> list[tuple[str, int]]:
    """A key that sorts day_2 before day_10."""
    return [(text, int(number or -1)) for text, number in re.findall(r"([^0-9]*)([0-9]*)", name)]


class Budget:
    """How many lines or rows may still be read, over all files; None: all."""

    def __init__(self, left: int | None) -> None:
        self.left = left

    def take(self, wanted: int) -> int:
        """As many of these as may be read."""
        granted = wanted if self.left is None else min(wanted, self.left)
        if self.left is not None:
            self.left -= granted
        return granted


def text_tasks(plan: Plan, file: int, budget: Budget, finished: Finished) -> Iterator[dict[str, Any]]:
    """The tasks that parse a file; chunks that are there already go into ``finished`` instead.

    Raises: DataError: for a file that is empty, packed and cut short, or no text.
    """
    path, form = plan.files[file], TextFormat.from_dict(plan.source)
    try:
        with open(path, "rb") as raw:
            yield from _text_tasks(plan, form, ChunkId(file, 0), raw, budget, finished)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error}") from error


def _text_tasks(
    plan: Plan, form: TextFormat, which: ChunkId, raw: BinaryIO, budget: Budget, finished: Finished
) -> Iterator[dict[str, Any]]:
    path = plan.files[which.file]
    packed = raw.read(2) == _GZIP
    raw.seek(0)
    if not packed and path.suffix == ".gz":
        raise DataError(f"{path}: is no gzip file; is the name right, and the file whole?")
    stream = _Unpacked(raw) if packed else raw
    rest = stream.read(min(_READ_BYTES, CHUNK_BYTES))
    if rest.startswith(_ZIP) or rest[257:262] == _TAR:
        raise DataError(f"{path}: is an archive; unpack it, and name the file or the folder that was in it")
    offset, line = _head(form, path, rest)
    rest = rest[offset:]
    while budget.left != 0:
        meta = chunk_meta(plan, which)
        if meta is not None and not packed:
            size, num_lines, rest = meta["consumed_bytes"], meta["consumed_lines"], b""
            raw.seek(offset + size)
        else:
            block = rest + stream.read(CHUNK_BYTES - len(rest))
            if isinstance(stream, _Unpacked) and stream.trouble:
                line += block.count(b"\n") + 1
                raise BadLineError(f"{path}:{line}: {stream.trouble}; get the file again", (which.file, line))
            if not block:
                break
            cut = len(block) if len(block) < CHUNK_BYTES else block.rfind(b"\n") + 1
            if not cut:
                raise DataError(
                    f"{path}:{line + 1}: a line of more than {CHUNK_BYTES} bytes; is this the right file?"
                )
            block, rest = block[:cut], block[cut:]
            size, num_lines = cut, block.count(b"\n") + (not block.endswith(b"\n"))
        granted = budget.take(num_lines)
        if meta is not None:
            finished[which] = meta
        else:
            if granted < num_lines:
                ends = np.flatnonzero(np.frombuffer(block, dtype=np.uint8) == ord("\n"))
                size = int(ends[granted - 1]) + 1
            task = {
                "step": "text",
                "file": which.file,
                "number": which.number,
                "line": line,
                "num_lines": granted,
            }
            source, start = (_spool(plan, which, block[:size]), 0) if packed else (path, offset)
            yield {**task, "path": str(source), "offset": start, "size": size, "temporary": packed}
        offset, line, which = offset + size, line + num_lines, ChunkId(which.file, which.number + 1)
    if which.number == 0 and budget.left != 0:
        raise DataError(f"{path}: holds no rows; the file is empty or cut short")


def chunk_meta(plan: Plan, which: ChunkId) -> dict[str, Any] | None:
    """What is remembered of a chunk that is there."""
    path = plan.chunk_path(which)
    meta = Chunk(path).meta if path.exists() else None
    return None if meta is not None and meta["skipped"] and plan.bad_rows == "error" else meta


def _spool(plan: Plan, which: ChunkId, block: bytes) -> Path:
    """An unpacked block as a file, for the worker that gets its task."""
    path = plan.folder / "unpacked" / f"{which.file}-{which.number}"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(block)
    return path


def _head(form: TextFormat, path: Path, block: bytes) -> tuple[int, int]:
    """Bytes and lines before the first row; a file without the header is a piece of a larger one."""
    mark = len(BYTE_ORDER_MARK) if block.startswith(BYTE_ORDER_MARK) else 0
    end = block.find(b"\n") + 1 or len(block)
    names = block[mark:end].decode("utf-8", "replace").strip().split(form.delimiter)
    expected = list(form.columns)
    if not form.header or names[0] != expected[0]:
        return mark, 0
    if names == expected:
        return end, 1
    missing = [name for name in expected if name not in names]
    what = f"lacks the column {', '.join(missing)}" if missing else "has other columns, or in another order"
    raise DataError(f"{path}:1: the header {what}; expected {form.delimiter.join(expected)}")


class _Unpacked:
    """The content of a gzip file of one or several members; where it is broken, ``trouble`` says how."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self._pending = b""
        self._decoder: Any = None
        self.trouble = ""

    def read(self, size: int) -> bytes:
        """The next bytes, fewer only at the end or where the file is broken."""
        parts: list[bytes] = []
        left = size
        while left and not self.trouble:
            packed = self._pending or self._raw.read(_READ_BYTES)
            if self._decoder is None:
                if not packed:
                    break
                self._pending = packed.lstrip(b"\0")  # members may be padded
                if not self._pending:
                    continue
                packed = self._pending
                self._decoder = zlib.decompressobj(31)
            try:
                piece = self._decoder.decompress(packed, left)
            except zlib.error as error:
                self.trouble = f"the compressed data are damaged here or soon after ({error})"
                break
            if not packed and not piece and not self._decoder.eof:
                self.trouble = "the compressed data end in the middle"
            parts.append(piece)
            left -= len(piece)
            self._pending = self._decoder.unconsumed_tail
            if self._decoder.eof:
                self._pending, self._decoder = self._decoder.unused_data, None
        return b"".join(parts)
