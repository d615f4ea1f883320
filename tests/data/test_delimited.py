"""Every kind of bad row is named by file and line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ondevice.data import delimited
from ondevice.data.delimited import BadRows, Chunk, read_csv, read_header, read_plain
from ondevice.errors import UserError


def rows(chunks: Iterator[Chunk]) -> list[tuple[int, tuple[str, ...]]]:
    return [
        row for chunk in chunks for row in zip(chunk.lines, zip(*chunk.columns, strict=True), strict=True)
    ]


def plain(
    path: Path, bad: BadRows | None = None, encoding: str = "utf-8", skip: int = 0
) -> list[tuple[int, tuple[str, ...]]]:
    return rows(read_plain(path, separator="::", num_columns=2, encoding=encoding, skip_lines=skip, bad=bad))


def comma(path: Path, bad: BadRows | None = None, skip: int = 0) -> list[tuple[int, tuple[str, ...]]]:
    return rows(read_csv(path, delimiter=",", encoding="utf-8", num_columns=2, skip_rows=skip, bad=bad))


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of two rows, so that every file here has several."""
    monkeypatch.setattr(delimited, "CHUNK_ROWS", 2)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "rows"


def test_plain_rows_with_their_lines(path: Path) -> None:
    path.write_bytes(b"head\na::b\r\n\nc::\x85d\ne::f")
    assert plain(path, encoding="latin-1", skip=1) == [(2, ("a", "b")), (4, ("c", "\x85d")), (5, ("e", "f"))]


def test_csv_rows_with_their_lines(path: Path) -> None:
    path.write_text('h,i\na,b\n\n"c\nd","e,""f"\ng,h\n')
    assert comma(path, skip=1) == [(2, ("a", "b")), (5, ("c\nd", 'e,"f')), (6, ("g", "h"))]


def test_a_byte_order_mark_is_no_part_of_the_first_name(path: Path) -> None:
    path.write_bytes(b"\xef\xbb\xbfa,b\n")
    assert read_header(path, delimiter=",", encoding="UTF-8") == ["a", "b"]


@pytest.mark.parametrize(
    ("reader", "content", "message"),
    [
        (plain, b"a::b\nc::d\ne::f::g\n", "rows:3: 3 columns where 2 are expected"),
        (plain, b"a::b\nc\n", "rows:2: 1 columns where 2 are expected"),
        (plain, b"a::b\nc::\xff\n", "rows:2: bytes that cannot be decoded"),
        (plain, b"", "rows: holds no rows"),
        (plain, b"\n\n", "rows: holds no rows"),
        (comma, b"a,b\nc,d\ne,f,g\n", "rows:3: 3 columns where 2 are expected"),
        (comma, b'a,b\n"c\nd",e\nf\n', "rows:4: 1 columns where 2 are expected"),
        (comma, b"a,b\nc,\xff\n", "rows:2: bytes that cannot be decoded"),
        (comma, b'a,b\n"\xff\n",d\n', "rows:3: bytes that cannot be decoded"),
        (comma, b"", "rows: holds no rows"),
        (comma, b'a,b\n"c,' + b"x" * 200_000 + b"\n", "rows:2: not CSV: field larger"),
    ],
)
def test_bad_rows_are_named(path: Path, reader: object, content: bytes, message: str) -> None:
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        reader(path)  # type: ignore[operator]


def test_bad_rows_are_skipped_and_counted(path: Path) -> None:
    path.write_bytes(b"a::b\nc\nd::\xff\ne::f::g\nh::i\n")
    bad = BadRows("skip")
    assert plain(path, bad) == [(1, ("a", "b")), (5, ("h", "i"))]
    assert bad.skipped == 3
    assert bad.first.endswith("rows:2: 1 columns where 2 are expected")
    path.write_bytes(b"a,b\nc\nd,\xff\ne,f,g\nh,i\n")
    bad = BadRows("skip")
    assert comma(path, bad) == [(1, ("a", "b")), (5, ("h", "i"))]
    assert bad.skipped == 3


def test_an_unknown_encoding_and_an_absent_file(path: Path) -> None:
    with pytest.raises(UserError, match="cannot read"):
        plain(path)
    path.write_text("a::b\n")
    with pytest.raises(UserError, match="unknown encoding 'utf8x'"):
        plain(path, encoding="utf8x")
    path.write_text("")
    with pytest.raises(UserError, match="is empty"):
        read_header(path, delimiter=",", encoding="utf-8")


cells = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\x00"), max_size=6)


@given(st.lists(st.tuples(cells, cells), min_size=1, max_size=9))
def test_csv_round_trip(tmp_path_factory: pytest.TempPathFactory, content: list[tuple[str, str]]) -> None:
    path = tmp_path_factory.mktemp("csv") / "rows"
    quoted = [['"' + cell.replace('"', '""') + '"' for cell in row] for row in content]
    path.write_bytes("".join(",".join(row) + "\n" for row in quoted).encode())
    assert [row for _, row in comma(path)] == content
