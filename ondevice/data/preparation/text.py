"""Chunks of delimited text without quotes: parsed by Arrow, and line by line where something is wrong."""

from __future__ import annotations

import dataclasses
import datetime
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ondevice.data.keys import LARGEST, SMALLEST
from ondevice.data.preparation.chunk import write_chunk
from ondevice.data.preparation.columns import parse_hexadecimal
from ondevice.data.schema import Schema

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# Arrow takes ' 7', '\t7' and '0x7' for integers, and a lone carriage return for the end of a line.
_SUSPECT = (b" ", b"\t", b"x", b"X", b"\r")
_INTEGER = re.compile(r"-?0*[0-9]{1,19}")
_HEXADECIMAL = re.compile(r"[0-9a-fA-F]{8}")
_TROUBLE = {
    "label": "label '{}' is not 0 or 1",
    "integer": "column {column}: '{}' is not an integer",
    "hexadecimal": "column {column}: '{}' is not 8 hexadecimal digits",
    "hour": "column {column}: '{}' is not a date and hour YYMMDDHH",
}


@dataclass(frozen=True)
class TextFormat:
    """How a text file is written.

    Args:
        delimiter: between cells.
        columns: what each column is, by name, in the order of the file: ``label``, ``integer``,
            ``hexadecimal`` (8 digits), ``hour`` (YYMMDDHH, from which the columns ``hour`` and ``weekday``
            are made, 0 being Sunday) or ``ignored``.
        header: whether the first line may hold the names.
        gaps: whether cells of integers and hexadecimal texts may be empty.
    """

    delimiter: str
    columns: Mapping[str, str]
    header: bool = False
    gaps: bool = False

    def to_dict(self) -> dict[str, Any]:
        """As JSON-able values."""
        return {"kind": "text", **dataclasses.asdict(self), "columns": dict(self.columns)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TextFormat:
        """What `to_dict` wrote."""
        return cls(**{key: value for key, value in values.items() if key != "kind"})


def parse_text(
    form: TextFormat,
    schema: Schema,
    data: bytes,
    first_line: int,
    num_lines: int,
    target: Path,
    bad_rows: str,
) -> dict[str, Any]:
    """Write the chunk of some whole lines.

    Args:
        form: how they are written.
        schema: the fields.
        data: the lines.
        first_line: number of the first, from 0.
        num_lines: how many they are.
        target: the chunk file.
        bad_rows: ``error`` or ``skip``.

    Returns: the chunk's meta; or under ``error``, for a line that cannot be used, {"line", "trouble"}.
    """
    lines = np.arange(first_line, first_line + num_lines)
    columns = _read(form, data.replace(b"\r\n", b"\n") if b"\r" in data else data, num_lines)
    skipped, first_bad = 0, ""
    if columns is None:
        good, numbers, wrong = check_lines(form, data)
        if wrong and bad_rows == "error":
            number, trouble = wrong[0]
            return {"line": first_line + number, "trouble": trouble}
        skipped = len(wrong)
        first_bad = f"{first_line + wrong[0][0] + 1}: {wrong[0][1]}" if wrong else ""
        lines = lines[numbers]
        columns = _read(form, b"".join(line + b"\n" for line in good), len(good), checked=True)
        assert columns is not None, "the lines were checked"
    label = next(name for name, kind in form.columns.items() if kind == "label")
    labels = columns[label].dictionary_decode().to_numpy().astype(np.uint8)
    consumed: dict[str, Any] = {"consumed_lines": num_lines, "consumed_bytes": len(data)}
    return write_chunk(
        target, schema, columns, labels, lines, **consumed, skipped=skipped, first_bad=first_bad
    )


def check_lines(form: TextFormat, data: bytes) -> tuple[list[bytes], np.ndarray, list[tuple[int, str]]]:
    """Lines that can be used, their numbers, and number and trouble of the others; empty lines are neither."""
    cells_of = list(form.columns.items())
    delimiter = form.delimiter.encode()
    good, numbers, wrong = [], [], []
    lines = data.split(b"\n")
    cut = bool(lines[-1])  # no line break at the end
    for number, raw in enumerate(lines if cut else lines[:-1]):
        line = raw.removesuffix(b"\r")
        if not line:
            continue
        inside = b"\r" in line
        trouble = "a carriage return inside" if inside else _trouble(form, cells_of, line.split(delimiter))
        if trouble is None:
            good.append(line)
            numbers.append(number)
        else:
            last = cut and number == len(lines) - 1
            wrong.append((number, trouble + (" (the file ends there, without a line break)" if last else "")))
    return good, np.array(numbers, dtype=np.int64), wrong


def _trouble(form: TextFormat, columns: list[tuple[str, str]], cells: list[bytes]) -> str | None:
    if len(cells) != len(columns):
        return f"{len(cells)} columns where {len(columns)} are expected"
    for (column, kind), cell in zip(columns, cells, strict=True):
        if kind == "ignored" or (not cell and form.gaps and kind in ("integer", "hexadecimal")):
            continue
        try:
            text = cell.decode()
        except UnicodeDecodeError:
            return f"column {column}: bytes that cannot be decoded"
        if not _is_good(kind, text):
            shown = repr(text[:40])[1:-1]
            return _TROUBLE[kind].format(shown, column=column)
    return None


def _is_good(kind: str, text: str) -> bool:
    if kind == "hexadecimal":
        return _HEXADECIMAL.fullmatch(text) is not None
    if not _INTEGER.fullmatch(text) or not SMALLEST <= int(text) <= LARGEST:
        return False
    if kind == "label":
        return int(text) in (0, 1)
    return kind == "integer" or _hour_and_weekday(int(text)) is not None


def _read(form: TextFormat, data: bytes, num_rows: int, checked: bool = False) -> dict[str, Any] | None:
    """Arrow arrays by column; None where something is wrong or might be."""
    import pyarrow as pa
    from pyarrow import csv

    suspect = (byte for byte in _SUSPECT if byte != form.delimiter.encode())
    if not checked and (data.startswith(BYTE_ORDER_MARK) or any(byte in data for byte in suspect)):
        return None
    types = {"label": pa.int64(), "integer": pa.int64(), "hour": pa.int64(), "hexadecimal": pa.string()}
    used = {name: types[kind] for name, kind in form.columns.items() if kind != "ignored"}
    if not num_rows:
        used |= {"weekday": pa.int64()} if "hour" in form.columns.values() else {}
        return {name: pa.array([], kind).dictionary_encode() for name, kind in used.items()}
    try:
        table = csv.read_csv(
            pa.py_buffer(data),
            csv.ReadOptions(
                use_threads=False,
                column_names=list(form.columns),
                # Blocks that fit a cache are read twice as fast, but a line must not be longer than one.
                block_size=len(data) + 1 if checked else 1 << 20,
            ),
            csv.ParseOptions(delimiter=form.delimiter, quote_char=False, double_quote=False),
            csv.ConvertOptions(
                column_types=used,
                include_columns=list(used),
                null_values=[""],
                strings_can_be_null=True,
                check_utf8=False,
            ),
        )
    except pa.ArrowInvalid:
        return None
    if table.num_rows != num_rows:
        return None
    columns = {name: table[name].combine_chunks().dictionary_encode() for name in used}
    for name, kind in form.columns.items():
        if kind != "ignored" and not _usable(kind, columns[name], form.gaps):
            return None
        if kind == "hour":
            columns.update(_split_hour(columns[name]))
    return columns


def _usable(kind: str, column: Any, gaps: bool) -> bool:
    """Whether every cell of a column is what it should be."""
    if column.null_count and not (gaps and kind in ("integer", "hexadecimal")):
        return False
    if kind == "integer":
        return True
    distinct = column.dictionary
    if kind == "hexadecimal":
        parsed = parse_hexadecimal(distinct) if len(distinct) else None
        return not len(distinct) or (parsed is not None and bool(parsed[1].all()))
    values = distinct.to_pylist()
    if kind == "label":
        return all(value in (0, 1) for value in values)
    return all(_hour_and_weekday(value) is not None for value in values)


def _hour_and_weekday(value: int) -> tuple[int, int] | None:
    """Hour of the day and day of the week (0 is Sunday) of YYMMDDHH."""
    if not 0 <= value < 10**8:
        return None
    days, hour = divmod(value, 100)
    years, days = divmod(days, 10000)
    try:
        moment = datetime.datetime(2000 + years, days // 100, days % 100, hour)
    except ValueError:
        return None
    return hour, moment.isoweekday() % 7


def _split_hour(column: Any) -> dict[str, Any]:
    import pyarrow as pa

    pairs = [_hour_and_weekday(value) for value in column.dictionary.to_pylist()]
    return {
        name: pa.DictionaryArray.from_arrays(column.indices, pa.array([pair[i] for pair in pairs if pair]))
        for i, name in enumerate(("hour", "weekday"))
    }
