"""Rows of delimited text files, in chunks, each bad row with its file and line."""

from __future__ import annotations

import csv
import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ondevice.errors import DataError

CHUNK_ROWS = 65536
POLICIES = ("error", "skip")


@dataclass
class BadRows:
    """What to do with a row that cannot be used: raise, or skip and count.

    Args:
        policy: ``error`` or ``skip``.
        way_out: ends the message of the error.
    """

    policy: str = "error"
    way_out: str = "mend or remove the line"
    skipped: int = 0
    first: str = field(default="")

    def report(self, path: str | os.PathLike[str], line: int, trouble: str) -> None:
        """Note one bad row. Raises UserError under ``error``."""
        message = f"{path}:{line}: {trouble}"
        if self.policy == "error":
            raise DataError(f"{message}; {self.way_out}")
        self.skipped += 1
        self.first = self.first or message


@dataclass(frozen=True)
class Chunk:
    """Some rows of a file, column by column, with the line on which each row ends."""

    columns: list[tuple[str, ...]]
    lines: Sequence[int]

    def __len__(self) -> int:
        return len(self.lines)


def read_plain(
    path: Path,
    *,
    separator: str,
    num_columns: int,
    encoding: str,
    skip_lines: int = 0,
    bad: BadRows | None = None,
) -> Iterator[Chunk]:
    """Chunks of a file whose cells are never quoted; empty lines are passed over.

    Raises: DataError: on a wrong number of columns or undecodable bytes (see `BadRows`), or no row at all.
    """
    bad = bad or BadRows()
    rows_seen = 0
    with _open(path, encoding, newline="\n") as file:
        numbered = enumerate(file, start=1)
        next(itertools.islice(numbered, skip_lines, skip_lines), None)
        while block := list(itertools.islice(numbered, CHUNK_ROWS)):
            rows = [line.rstrip("\r\n").split(separator) for _, line in block]
            lines: list[int] = [number for number, _ in block]
            text_is_good = _decoded("".join(line for _, line in block))
            if not text_is_good or any(len(row) != num_columns for row in rows):
                rows, lines = _good_rows(path, rows, lines, num_columns, set(), bad)
            if rows:
                rows_seen += len(rows)
                yield Chunk(list(zip(*rows, strict=True)), lines)
    if not rows_seen:
        raise DataError(f"{path}: holds no rows; the file is empty or cut short")


def read_csv(
    path: Path,
    *,
    delimiter: str,
    encoding: str,
    num_columns: int,
    skip_rows: int = 0,
    escape: str | None = None,
    bad: BadRows | None = None,
) -> Iterator[Chunk]:
    """Chunks of a CSV file (quoted cells, line breaks inside quotes); empty lines are passed over.

    Args:
        escape: the character that stands before a quote inside a quoted cell, and before itself; None: such a
            quote is doubled.

    Raises: DataError: as `read_plain`; also for text that is not CSV at all.
    """
    bad = bad or BadRows()
    undecoded: set[int] = set()
    rows_seen = 0
    with _open(path, encoding, newline="") as file:
        # Under strict, a quote that is still open at the end of the file is an error.
        escaped = {} if escape is None else {"escapechar": escape, "doublequote": False, "strict": True}
        reader = csv.reader(_watch(file, undecoded), delimiter=delimiter, **escaped)  # type: ignore[arg-type]
        for _ in range(skip_rows):
            next(reader, None)
        ended = False
        while not ended:
            rows: list[list[str]] = []
            lines: list[int] = []
            while len(rows) < CHUNK_ROWS:
                try:
                    row = next(reader, None)
                except csv.Error as error:
                    bad.report(path, reader.line_num, f"not CSV: {error}")
                    continue
                if row is None:
                    ended = True
                    break
                rows.append(row)
                lines.append(reader.line_num)
            if undecoded or any(len(row) != num_columns for row in rows):
                rows, lines = _good_rows(path, rows, lines, num_columns, undecoded, bad)
            if rows:
                rows_seen += len(rows)
                yield Chunk(list(zip(*rows, strict=True)), lines)
    if not rows_seen:
        raise DataError(f"{path}: holds no rows; the file is empty or cut short")


def read_header(path: Path, *, delimiter: str, encoding: str) -> list[str]:
    """The cells of a CSV file's first row. Raises UserError when there is none."""
    undecoded: set[int] = set()
    with _open(path, encoding, newline="") as file:
        try:
            header = next(csv.reader(_watch(file, undecoded), delimiter=delimiter), None)
        except csv.Error as error:
            raise DataError(f"{path}:1: not CSV: {error}") from error
    if not header:
        raise DataError(f"{path}: is empty; expected a header line with the column names")
    if undecoded:
        raise DataError(f"{path}:1: bytes that are not {encoding}; name the right encoding (format.encoding)")
    return header


def _open(path: Path, encoding: str, newline: str):  # type: ignore[no-untyped-def]  # TextIO, but for LookupError
    # surrogateescape keeps an undecodable byte as a lone surrogate, so that its line can be named.
    encoding = "utf-8-sig" if encoding.lower().replace("_", "-") in ("utf-8", "utf8") else encoding
    try:
        return open(path, encoding=encoding, errors="surrogateescape", newline=newline)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error}") from error
    except LookupError as error:
        raise DataError(f"{path}: unknown encoding '{encoding}'; use for example utf-8 or latin-1") from error


def _decoded(text: str) -> bool:
    """Whether the text holds no lone surrogate, the mark of a byte that could not be decoded."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _watch(lines: Iterator[str], undecoded: set[int]) -> Iterator[str]:
    for number, line in enumerate(lines, start=1):
        if not line.isascii() and not _decoded(line):
            undecoded.add(number)
        yield line


def _good_rows(
    path: Path, rows: list[list[str]], lines: list[int], num_columns: int, undecoded: set[int], bad: BadRows
) -> tuple[list[list[str]], list[int]]:
    """The rows that can be used; the others go to ``bad``. Empty lines vanish."""
    good: list[list[str]] = []
    good_lines: list[int] = []
    for row, line in zip(rows, lines, strict=True):
        if not row or row == [""]:
            continue
        if line in undecoded or not _decoded("".join(row)):
            bad.report(path, line, "bytes that cannot be decoded")
        elif len(row) != num_columns:
            bad.report(path, line, f"{len(row)} columns where {num_columns} are expected")
        else:
            good.append(row)
            good_lines.append(line)
    return good, good_lines
