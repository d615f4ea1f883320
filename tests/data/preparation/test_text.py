"""Arrow's parser and the line-by-line check take and refuse the same lines, for the same reasons."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ondevice.data.preparation.chunk import Chunk
from ondevice.data.preparation.text import TextFormat, _read, check_lines, parse_text
from ondevice.data.schema import Field, Label, Schema

from .rows import patient

FORM = TextFormat("\t", {"y": "label", "n": "integer", "h": "hexadecimal"}, gaps=True)
HOURS = TextFormat(",", {"id": "ignored", "y": "label", "when": "hour", "n": "integer"}, header=True)
FIELDS = (
    Field("n", "context", "integer", transform="log_integer", missing=-100),
    Field("h", "context", "integer", transform="hex", missing=-1),
)
SCHEMA = Schema("small", FIELDS, Label(column="y"))
GOOD = b"0\t5\t0000000a\n1\t\t\n1\t-3\tFFFFFFFF\n"

odd_cells = st.text("0129-abxX \"'\\.+,\t\r\0é", max_size=9)
labels = st.sampled_from(["0", "1", "01", "-0", "2", ""]) | odd_cells
numbers = st.integers(-(10**20), 10**20).map(str) | st.sampled_from(["", "007", "-"]) | odd_cells
hexadecimal = st.text("0123456789abcdefABCDEF", min_size=8, max_size=8) | st.just("") | odd_cells
hours = st.sampled_from(["14102100", "14103123", "14022900", "14102124", "00010100", "141021"]) | numbers
ends = st.sampled_from(["\n", "\r\n", "\n\n", ""])


def lines_of(*cells: st.SearchStrategy[str], delimiter: str) -> st.SearchStrategy[bytes]:
    row = st.tuples(*cells).map(delimiter.join) | st.lists(odd_cells, max_size=5).map(delimiter.join)
    return st.lists(st.tuples(row, ends).map("".join), max_size=6).map(lambda lines: "".join(lines).encode())


def count_lines(data: bytes) -> int:
    return data.count(b"\n") + (not data.endswith(b"\n"))


def values(columns: dict[str, Any]) -> dict[str, list[Any]]:
    return {name: column.dictionary_decode().to_pylist() for name, column in columns.items()}


def agree(form: TextFormat, data: bytes) -> None:
    """What the fast parser takes, the check takes, and as the same lines; it refuses none that are good."""
    fast = _read(form, data.replace(b"\r\n", b"\n"), count_lines(data)) if data else None
    good, places, wrong = check_lines(form, data)
    again = _read(form, b"".join(line + b"\n" for line in good), len(good), checked=True)
    assert again is not None
    if fast is not None:
        assert not wrong
        assert len(good) == count_lines(data)
        assert values(fast) == values(again)
    elif data and not wrong and len(good) == count_lines(data):
        assert any(byte in data for byte in (b" ", b"\t", b"x", b"X", b"\r"))  # in a cell that is ignored
    assert len(set(places.tolist()) | {number for number, _ in wrong}) == len(good) + len(wrong)


@patient
@given(lines_of(labels, numbers, hexadecimal, delimiter="\t"))
@example(GOOD)
@example(b"0\t0x1F\t\n")
@example(b"0\t 5\t\n")
@example(b"0\t1\t0000000a\r1\t1\t0000000a\n")
@example(b"0\t0000000000000000000000000007\t\n")
@example(b"\xef\xbb\xbf0\t1\t\n")
@example(b'"0"\t"1"\t\n')
def test_both_ways_agree(data: bytes) -> None:
    agree(FORM, data)


@patient
@given(lines_of(odd_cells, labels, hours, numbers, delimiter=","))
@example(b"17,1,14102100,5\n")
@example(b"x x,1,14102100,5\n")
@example(b"17,1,14102100,\t5\n")
def test_both_ways_agree_on_hours(data: bytes) -> None:
    agree(HOURS, data)


@patient
@given(lines_of(labels, numbers, hexadecimal, delimiter="\t").filter(bool))
def test_the_chunk_holds_the_good_lines(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("chunk") / "chunk"
    meta = parse_text(FORM, SCHEMA, data, 100, count_lines(data), path, "skip")
    good, places, wrong = check_lines(FORM, data)
    chunk = Chunk(path)
    assert (chunk.num_rows, meta["skipped"]) == (len(good), len(wrong))
    assert chunk.lines().tolist() == (100 + places).tolist()
    cells = [line.decode().split("\t") for line in good]
    assert chunk.labels().tolist() == [int(row[0]) for row in cells]
    for f, field in enumerate(FIELDS):
        keys = [None, *chunk.keys(f).to_pylist()]
        result = [keys[code] for code in chunk.codes(f)]
        assert result == [field.key(str(int(row[1])) if f == 0 and row[1] else row[1 + f]) for row in cells]


TROUBLES = [
    (b"0\t1\n", "2 columns where 3 are expected"),
    (b"0\t1\t\t\n", "4 columns where 3 are expected"),
    (b"2\t1\t\n", "label '2' is not 0 or 1"),
    (b"\t1\t\n", "label '' is not 0 or 1"),
    (b"1\t1.5\t\n", "column n: '1.5' is not an integer"),
    (b"1\t9223372036854775808\t\n", "column n: '9223372036854775808' is not an integer"),
    (b"1\t0x1\t\n", "column n: '0x1' is not an integer"),
    (b"1\t1\t0000000g\n", "column h: '0000000g' is not 8 hexadecimal digits"),
    (b"1\t1\t0000000\n", "column h: '0000000' is not 8 hexadecimal digits"),
    (b"1\t1\t" + b"f" * 99 + b"\n", f"column h: '{'f' * 40}' is not 8 hexadecimal digits"),
    (b"1\t1\t\xff\xfe\n", "column h: bytes that cannot be decoded"),
    (b"1\t1\t\0\n", r"column h: '\x00' is not 8 hexadecimal digits"),
    (b"1\r\t1\t\n", "a carriage return inside"),
    (b"1\t1", "2 columns where 3 are expected (the file ends there, without a line break)"),
]


@pytest.mark.parametrize(("line", "trouble"), TROUBLES, ids=[str(i) for i in range(len(TROUBLES))])
def test_what_is_wrong_with_a_line(tmp_path: Path, line: bytes, trouble: str) -> None:
    data = GOOD + line
    answer = parse_text(FORM, SCHEMA, data, 10, 4, tmp_path / "chunk", "error")
    assert answer == {"line": 13, "trouble": trouble}
    assert not (tmp_path / "chunk").exists()
    meta = parse_text(FORM, SCHEMA, data, 10, 4, tmp_path / "chunk", "skip")
    assert (meta["rows"], meta["skipped"], meta["first_bad"]) == (3, 1, f"14: {trouble}")


@pytest.mark.parametrize("when", ["14102124", "14130100", "14022900", "-1", "114102100"])
def test_what_is_no_hour(tmp_path: Path, when: str) -> None:
    answer = parse_text(HOURS, SCHEMA, f"a,1,{when},5\n".encode(), 0, 1, tmp_path / "chunk", "error")
    assert answer["trouble"] == f"column when: '{when}' is not a date and hour YYMMDDHH"


def test_hours_by_hand(tmp_path: Path) -> None:
    """The 21st of October 2014 was a Tuesday, the 26th a Sunday."""
    fields = tuple(Field(name, "context", "integer") for name in ("hour", "weekday", "n"))
    data = b"a,1,14102100,5\nb,0,14102123,5\nc,0,14102607,-1\n"
    parse_text(HOURS, Schema("hours", fields, Label(column="y")), data, 1, 3, tmp_path / "chunk", "error")
    chunk = Chunk(tmp_path / "chunk")
    rows = [[chunk.keys(f).to_pylist()[code - 1] for code in chunk.codes(f)] for f in range(3)]
    assert rows == [[0, 23, 7], [2, 2, 0], [5, 5, -1]]
    assert chunk.lines().tolist() == [1, 2, 3]


def test_a_cell_longer_than_a_block(tmp_path: Path) -> None:
    """Arrow reads blocks of a megabyte, and a line must not be longer: such lines are read as a whole."""
    data = b"a,1,14102100,5\n" + b"b" * (3 << 20) + b",0,14102100,5\n"
    fields = (Field("n", "context", "integer"),)
    meta = parse_text(
        HOURS, Schema("long", fields, Label(column="y")), data, 0, 2, tmp_path / "chunk", "error"
    )
    assert meta["rows"] == 2


def test_more_than_a_block(tmp_path: Path) -> None:
    lines = [f"{i % 2}\t{i}\t{i:08x}\n".encode() for i in range(100_000)]
    meta = parse_text(FORM, SCHEMA, b"".join(lines), 0, len(lines), tmp_path / "chunk", "error")
    chunk = Chunk(tmp_path / "chunk")
    assert meta["rows"] == 100_000
    assert np.array_equal(chunk.keys(1).to_numpy()[chunk.codes(1) - 1], np.arange(100_000))
