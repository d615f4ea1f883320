"""The files of a table, how their text is written, and what to do with rows that cannot be used."""

from __future__ import annotations

import contextlib
import csv
import glob
import io
import itertools
import lzma
import os
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from ondevice.data.field import is_whole
from ondevice.errors import ConfigError, DataError, nearest

POLICIES = ("error", "skip")
WAY_OUT = "mend or remove the line, or leave such rows out with data.bad_rows=skip"
SUFFIXES = {
    "text": (".csv", ".tsv", ".txt", ".data", ".dat", ".psv"),
    "json": (".jsonl", ".ndjson", ".json"),
    "parquet": (".parquet", ".pq"),
}
_PACKED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bz2", b"\xfd7zXZ": "xz"}
_PACKED_SUFFIXES = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2", ".xz": "xz"}


@dataclass(frozen=True)
class Format:
    """The ``format`` section of a table's YAML file: how text is written.

    Args:
        delimiter: between cells, one to four characters; None: a tab in ``.tsv``, else a comma.
        quote: around cells that hold a delimiter or a line break; empty: cells are never quoted.
        escape: stands before a quote inside a quoted cell; None: such a quote is doubled.
        encoding: of the text.
        columns: names, for files without a header line.
        skip: lines before the header.
        missing: texts that say that a value is missing, beside the empty one.
    """

    delimiter: str | None = None
    quote: str = '"'
    escape: str | None = None
    encoding: str = "utf-8"
    columns: Sequence[str] | None = None
    skip: int = 0
    missing: Sequence[str] = ()

    def __post_init__(self) -> None:
        rules = (
            ("delimiter", (str, type(None)), range(1, 5), "one to four characters"),
            ("quote", str, range(2), "one character, or '' for cells that are never quoted"),
            ("escape", (str, type(None)), range(1, 2), "one character"),
            ("encoding", str, None, "a name such as utf-8 or latin-1"),
        )
        for name, kind, lengths, allowed in rules:
            value = getattr(self, name)
            good = isinstance(value, kind)  # type: ignore[arg-type]
            if not good or (lengths is not None and isinstance(value, str) and len(value) not in lengths):
                raise DataError(f"format.{name}: must be {allowed}, got {value!r}")
        for name in ("columns", "missing"):
            value = getattr(self, name)
            listed = isinstance(value, Sequence) and not isinstance(value, str)
            if value is not None and not (listed and all(isinstance(each, str) for each in value)):
                what = "column names" if name == "columns" else "texts"
                raise DataError(f"format.{name}: must be a list of {what}, got {value!r}")
        if not is_whole(self.skip) or self.skip < 0:
            raise DataError(f"format.skip: must be a number of lines, got {self.skip!r}")
        try:
            "".encode(self.encoding)
        except LookupError:
            raise DataError(
                f"format.encoding: unknown encoding '{self.encoding}'; use for example utf-8 or latin-1"
            ) from None

    def delimiter_of(self, path: Path) -> str:
        """What stands between the cells of a file."""
        return self.delimiter or ("\t" if ".tsv" in path.suffixes else ",")


@dataclass(frozen=True)
class Part:
    """A file of a table, with the values that its folders' names give it (``day=2024-01-01/…``)."""

    path: Path
    partitions: Mapping[str, str] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """``text``, ``json`` or ``parquet``: by its suffix; a file of another suffix by what it begins with."""
        suffixes = [s for s in self.path.suffixes if s.lower() not in _PACKED_SUFFIXES]
        for kind, known in SUFFIXES.items():
            if suffixes and suffixes[-1].lower() in known:
                return kind
        with contextlib.suppress(OSError), open(self.path, "rb") as file:
            return "parquet" if file.read(4) == b"PAR1" else "text"
        return "text"


@dataclass
class BadRows:
    """What to do with a row that cannot be used: raise, or skip and count.

    Args:
        policy: ``error`` or ``skip``.
        way_out: ends the message of the error.
    """

    policy: str = "error"
    way_out: str = WAY_OUT
    skipped: int = 0
    first: str = ""

    def __post_init__(self) -> None:
        if self.policy not in POLICIES:
            raise ConfigError(
                f"data.bad_rows: '{self.policy}' is unknown {nearest(str(self.policy), POLICIES)}"
            )

    def report(self, path: str | os.PathLike[str], line: int, trouble: str, number: int = 1) -> None:
        """Note bad rows, the first of which is named. Raises UserError under ``error``."""
        message = f"{path}:{line}: {trouble}"
        if self.policy == "error":
            raise DataError(f"{message}; {self.way_out}")
        self.skipped += number
        self.first = self.first or message


def find_parts(given: Any) -> list[Part]:
    """The files that a path, a pattern, a folder or a list of them names, in the order of their rows.

    Raises: UserError: when something named is not there, or a folder holds no table or tables of two kinds.
    """
    if isinstance(given, (list, tuple)):
        if not given:
            raise DataError("data.path: an empty list; name at least one file")
        return [part for each in given for part in find_parts(each)]
    if not isinstance(given, (str, os.PathLike)):
        raise DataError(f"data.path: must be a path, a pattern or a list of them, got {given!r}")
    path = Path(given).expanduser()
    if path.is_file():
        return [Part(path)]
    if path.is_dir():
        return _folder_parts(path)
    matches = sorted(glob.glob(str(path), recursive=True)) if glob.has_magic(str(path)) else []
    if not matches:
        raise DataError(f"data.path: {path} does not exist")
    return [part for each in matches for part in find_parts(each)]


def _folder_parts(folder: Path) -> list[Part]:
    parts: list[Part] = []
    for file in sorted(folder.rglob("*"), key=lambda file: file.relative_to(folder).parts):
        inside = file.relative_to(folder).parts
        suffixes = [s.lower() for s in file.suffixes if s.lower() not in _PACKED_SUFFIXES]
        known = suffixes and any(suffixes[-1] in each for each in SUFFIXES.values())
        if not file.is_file() or not known or any(name.startswith((".", "_")) for name in inside):
            continue
        pairs = (name.split("=", 1) for name in inside[:-1] if "=" in name)
        parts.append(Part(file, {key: urllib.parse.unquote(value) for key, value in pairs}))
    kinds = {part.kind for part in parts}
    if len(kinds) > 1:
        raise DataError(
            f"data.path: {folder} holds both {' and '.join(kind for kind in SUFFIXES if kind in kinds)} files; "
            "name one kind of them (data.path=FOLDER/*.csv), or part them"
        )
    if not parts:
        endings = ", ".join(suffix for each in SUFFIXES.values() for suffix in each)
        raise DataError(f"data.path: {folder} holds no file ending in {endings} (packed or not)")
    return parts


def packing_of(path: Path) -> str | None:
    """How a file is packed, by what it begins with. Raises UserError for an archive and a wrong suffix."""
    try:
        with open(path, "rb") as file:
            head = file.read(262)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error}") from error
    if head.startswith(b"PK\x03\x04") or head[257:262] == b"ustar":
        raise DataError(f"{path}: is an archive; unpack it, and name the file or the folder that was in it")
    packing = next((name for magic, name in _PACKED.items() if head.startswith(magic)), None)
    named = _PACKED_SUFFIXES.get(path.suffix.lower())
    if named is not None and packing != named and head:
        raise DataError(f"{path}: is no {named} file; is the name right, and the file whole?")
    return packing


def open_packed(path: Path) -> BinaryIO:
    """The content of a file, unpacked."""
    packing = packing_of(path)
    if packing is None:
        return open(path, "rb")
    if packing == "xz":
        return lzma.open(path, "rb")  # type: ignore[return-value]
    import pyarrow as pa

    return pa.input_stream(str(path), compression=packing)  # type: ignore[no-any-return]


def line_at(path: Path, offset: int) -> int:
    """The line, from 1, of the first text at or after a byte."""
    line, left = 1, offset
    with open_packed(path) as file:
        while left > 0 and (block := file.read(min(left, 1 << 20))):
            line += block.count(b"\n")
            left -= len(block)
        while (byte := file.read(1)) in (b"\n", b"\r"):
            line += byte == b"\n"
    return line


def line_of(part: Part, columns: Sequence[str], form: Format, number: int) -> int:
    """The line (or row) of a file, from 1, on which its row ``number`` ends; lines left out do not count."""
    if part.kind != "text":
        return number + 1
    delimiter = form.delimiter_of(part.path)
    text = lines_of(part.path, form.encoding)
    if len(delimiter) > 1 or not form.quote:
        rows: Any = ((n, line.rstrip("\r\n").split(delimiter)) for n, line in enumerate(text, start=1))
    else:
        reader = csv.reader(text, delimiter=delimiter, quotechar=form.quote, escapechar=form.escape)
        rows = ((reader.line_num, row) for row in reader)
    rows = itertools.islice(rows, form.skip, None)
    names = list(form.columns) if form.columns is not None else next(rows)[1]
    needed = [names.index(name) for name in columns if name in names]
    for line, row in rows:
        if (
            row in ([], [""])
            or len(row) != len(names)
            or not decoded("".join(row[place] for place in needed))
        ):
            continue
        if number == 0:
            return int(line)
        number -= 1
    return number + 1


def lines_of(path: Path, encoding: str) -> Iterator[str]:
    """The lines of a text file, unpacked; a byte that cannot be decoded stays as a lone surrogate."""
    with open_packed(path) as raw:
        yield from io.TextIOWrapper(raw, encoding=encoding, errors="surrogateescape", newline="")


def decoded(text: str) -> bool:
    """Whether the text holds no lone surrogate, the mark of a byte that could not be decoded."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
