"""What the reader takes: any dialect, packed text, JSON lines, Parquet of every scalar type, folders, patterns."""

from __future__ import annotations

import bz2
import datetime
import decimal
import gzip
import lzma
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ondevice.data import read
from ondevice.data.arrow import canonical
from ondevice.data.field import Field
from ondevice.data.parts import BadRows, Format, Part, find_parts, line_of
from ondevice.errors import UserError

pa = pytest.importorskip("pyarrow", reason="tables are read with pyarrow")
pq = pytest.importorskip("pyarrow.parquet", reason="tables are read with pyarrow")
pytest.importorskip("duckdb", reason="tables are read with duckdb")

ROWS = [{"user": str(k % 4), "item": str(k % 3), "title": f"Film {k % 3}"} for k in range(12)]
TEXT = "user,item,title\n" + "".join(f"{r['user']},{r['item']},{r['title']}\n" for r in ROWS)


def rows(
    path: Any,
    form: Format | None = None,
    columns: Sequence[str] = ("user", "item", "title"),
    policy: str = "error",
) -> tuple[list[dict[str, Any]], BadRows]:
    """All rows of a table, and what was left out of it."""
    bad, result = BadRows(policy), []
    with read.Engine(threads=2) as engine:
        for part in find_parts(path):
            for numbers, batch in engine.batches(part, columns, form or Format(), bad):
                assert len(numbers) == batch.num_rows
                result += batch.to_pylist()
    return result, bad


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def zstd(content: bytes) -> bytes:
    return pa.compress(content, codec="zstd", asbytes=True)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.csv", TEXT.encode()),
        ("t.tsv", TEXT.replace(",", "\t").encode()),
        ("t.csv.gz", gzip.compress(TEXT.encode())),
        ("t.csv", gzip.compress(TEXT.encode())),
        ("t.csv.bz2", bz2.compress(TEXT.encode())),
        ("t.csv.xz", lzma.compress(TEXT.encode())),
        ("t.csv.zst", zstd(TEXT.encode())),
        ("t.csv", b"\xef\xbb\xbf" + TEXT.encode()),
        ("t.csv", TEXT.replace("\n", "\r\n").encode()),
        ("t.csv", TEXT.replace("\n", "\r").encode()),
        ("t.csv", TEXT.replace("0\n", "0\r\n").encode()),
        ("t.csv", TEXT.replace("\n", "\n\n").encode()),
        ("t", TEXT.encode()),
    ],
    ids=[
        "csv",
        "tsv",
        "gz",
        "gz unnamed",
        "bz2",
        "xz",
        "zst",
        "mark",
        "crlf",
        "cr",
        "both",
        "empty lines",
        "bare",
    ],
)
def test_the_same_table_however_it_is_written(tmp_path: Path, name: str, content: bytes) -> None:
    assert rows(write(tmp_path / name, content))[0] == ROWS


def test_dialects(tmp_path: Path) -> None:
    quoted = write(tmp_path / "q.csv", 'user;title\n1;"a; \\"b\\""\n2;"two\nlines"\n')
    result, _ = rows(quoted, Format(delimiter=";", escape="\\"), ["title"])
    assert [row["title"] for row in result] == ['a; "b"', "two\nlines"]
    films = write(tmp_path / "films.dat", '1::"Til Dawn::x\n2::b::y\n'.encode("latin-1"))
    form = Format(delimiter="::", quote="", encoding="latin-1", columns=["item", "title", "genre"])
    assert rows(films, form, ["title", "item"])[0] == [
        {"title": '"Til Dawn', "item": "1"},
        {"title": "b", "item": "2"},
    ]
    wide = write(tmp_path / "w.csv", ("no rows yet\n" + TEXT).encode("utf-16"))
    assert rows(wide, Format(encoding="utf-16", skip=1))[0] == ROWS


def test_cells_that_are_never_quoted_lose_no_row(tmp_path: Path) -> None:
    """Two stray quotes, 1,800 rows apart: what is between them is no cell."""
    lines = [f"{k % 40}\t{k % 30}\tFilm\n" for k in range(2000)]
    for k in (100, 1900):
        lines[k] = f'{k % 40}\t{k % 30}\t"Til Dawn\n'
    path = write(tmp_path / "t.tsv", "user\titem\ttitle\n" + "".join(lines))
    assert len(rows(path, Format(quote=""))[0]) == 2000
    for policy in (
        "error",
        "skip",
    ):  # nothing after an open quote can be trusted, so it is not skipped either
        with pytest.raises(UserError, match=r't.tsv:102: a " opens a cell .* format: \{quote: \'\'\}'):
            rows(path, policy=policy)
    path = write(tmp_path / "open.csv", TEXT.replace("0,0,Film 0", '0,0,"Film 0', 1))
    with pytest.raises(UserError, match=r'open.csv:2: a " opens a cell'):
        rows(path, policy="skip")


@pytest.mark.parametrize(
    ("lines", "line", "message"),
    [
        (["1,2,a", "1,2", "3,4,b"], 3, "2 columns where 3 are expected"),
        (['1,2,"two\nlines"', "", "1,2,x,4"], 5, "4 columns where 3 are expected"),
        (["1,2,a", "1,2,\udcff", "3,4,b"], 3, "bytes that cannot be decoded"),
        (["1,2,a", "1,2"], 3, "2 columns where 3 are expected"),
    ],
)
@pytest.mark.parametrize("packing", ["plain", "gzip", "bz2"])
def test_lines_that_cannot_be_read(
    tmp_path: Path, lines: list[str], line: int, message: str, packing: str
) -> None:
    content = "\n".join(["user,item,title", *lines]).encode(errors="surrogateescape")
    pack = {"plain": bytes, "gzip": gzip.compress, "bz2": bz2.compress}[packing]
    path = write(tmp_path / "t.csv", pack(content))
    with pytest.raises(UserError) as caught:
        rows(path)
    assert f"{path}:{line}: {message}" in str(caught.value)
    assert "data.bad_rows=skip" in str(caught.value)
    result, bad = rows(path, policy="skip")
    assert (len(result), bad.skipped) == (sum(1 for each in lines if each) - 1, 1)
    assert bad.first.startswith(f"{path}:{line}: {message}")


def test_the_line_of_a_row(tmp_path: Path) -> None:
    content = 'user,title\n1,"two\nlines"\n\n2\n3,"a ""b"""\n4,c\n'
    path = write(tmp_path / "t.csv", content)
    (part,) = find_parts(path)
    assert [line_of(part, ["user"], Format(), number) for number in range(3)] == [3, 6, 7]
    never = Format(quote="", columns=["user", "title"])
    assert line_of(part, ["user"], never, 1) == 2


@pytest.mark.parametrize(
    ("name", "content", "form", "message"),
    [
        ("t.csv.gz", gzip.compress(TEXT.encode() * 99)[:-20], Format(), "the packed data end in the middle"),
        ("t.csv.gz", TEXT.encode(), Format(), "is no gzip file"),
        ("t.csv", b"PK\x03\x04....", Format(), "is an archive; unpack it"),
        ("t.csv", TEXT.encode("utf-16")[:-1], Format(encoding="utf-16"), "not whole in utf-16"),
        ("t.csv", b"", Format(), "t.csv: is empty; expected a header line"),
        ("t.csv", TEXT.encode(), Format(delimiter=";"), r"no column 'user' .*is the delimiter ';'\?"),
        ("t.csv", TEXT.replace("title", "user").encode(), Format(), "column 'user' is there 2 times"),
        ("t.csv", TEXT.replace("user", "usr").encode(), Format(), "no column 'user' .did you mean 'usr'"),
        ("t.csv", "nützer,item\n1,2\n".encode("latin-1"), Format(), "1: bytes that are not utf-8"),
    ],
)
def test_files_that_cannot_be_read(
    tmp_path: Path, name: str, content: bytes, form: Format, message: str
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        rows(write(tmp_path / name, content), form)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_json_lines(tmp_path: Path) -> None:
    """Numbers, booleans and absent names become what the same value is in a table."""
    lines = [
        '{"user": 7, "item": "02", "price": 1.0, "new": true}',
        "",
        '{"user": 1234567890123456789, "price": 1.50, "new": false, "x.y": "ü\\t"}',
    ]
    path = write(tmp_path / "t.jsonl.gz", gzip.compress("\n".join(lines).encode()))
    result, bad = rows(path, columns=["user", "item", "price", "new", "x.y"], policy="skip")
    assert [tuple(row.values()) for row in result] == [
        ("7", "02", "1", "True", None),
        ("1234567890123456789", None, "1.5", "False", "ü\t"),
    ]
    assert bad.skipped == 0
    for line, message in (("{bad", "not JSON"), ("[1]", "no JSON object"), ('{"user": [1]}', "a list or an")):
        write(tmp_path / "bad.json", "\n".join([lines[0], "", line]))
        with pytest.raises(UserError, match=f"bad.json:3: {message}"):
            rows(tmp_path / "bad.json", columns=["user"])
        assert rows(tmp_path / "bad.json", columns=["user"], policy="skip")[1].skipped == 1
    with pytest.raises(UserError, match=r"no column 'usr' .did you mean 'user'"):
        rows(path, columns=["usr"])


SCALARS: list[tuple[Any, list[Any], str, list[Any]]] = [
    # type, values, kind of the field, keys
    (
        pa.decimal128(38, 0),
        [decimal.Decimal(1234567890123456701), None],
        "integer",
        [1234567890123456701, None],
    ),
    (pa.decimal128(38, 0), [decimal.Decimal(1234567890123456701)], "string", ["1234567890123456701"]),
    (pa.decimal128(10, 2), [decimal.Decimal("1.50"), decimal.Decimal("3.00")], "string", ["1.5", "3"]),
    (pa.uint64(), [2**64 - 1, 7], "string", ["18446744073709551615", "7"]),
    (pa.uint64(), [2**63 - 1, 7], "integer", [2**63 - 1, 7]),
    (pa.int8(), [-1, None], "integer", [-1, None]),
    (pa.float32(), [1.5, float("nan")], "string", ["1.5", None]),
    (pa.float64(), [3.0, None], "integer", [3, None]),
    (pa.bool_(), [True, False], "string", ["True", "False"]),
    (pa.dictionary(pa.int8(), pa.string()), ["b", "a", "b", None], "string", ["b", "a", "b", None]),
    (pa.binary(16), [bytes(16), bytes([255] * 16)], "string", ["00" * 16, "ff" * 16]),
    (pa.binary(), ["é".encode()], "string", ["é"]),
    (pa.large_string(), ["é", ""], "string", ["é", None]),
    (pa.date32(), [datetime.date(2024, 1, 2)], "string", ["2024-01-02"]),
    (pa.timestamp("ns"), [datetime.datetime(2024, 1, 2, 3)], "string", ["2024-01-02 03:00:00"]),
    (pa.time64("us"), [datetime.time(1, 2, 3)], "string", ["01:02:03"]),
    (pa.null(), [None, None], "string", [None, None]),
]


@pytest.mark.parametrize(("kind", "values", "field", "keys"), SCALARS, ids=lambda value: str(value)[:24])
def test_parquet_of_every_scalar_type(
    tmp_path: Path, kind: Any, values: list[Any], field: str, keys: list[Any]
) -> None:
    pq.write_table(pa.table({"v": pa.array(values, kind)}), tmp_path / "t.parquet")
    with read.Engine() as engine:
        (part,) = find_parts(tmp_path / "t.parquet")
        ((_, batch),) = engine.batches(part, ["v"], Format(), BadRows())
    result, wrong = canonical(Field("v", "context", field), batch.column("v"), frozenset(), "t")
    assert (result.to_pylist(), wrong) == (keys, {})


def test_parquet_that_no_field_can_hold(tmp_path: Path) -> None:
    table = pa.table({"list": [["a"]], "bytes": pa.array([b"\xc8\xff"])})
    for name, message in (("list", "of type list<.*one number or text"), ("bytes", "bytes that are no text")):
        column = table.column(name).combine_chunks()
        with pytest.raises(UserError, match=message):
            canonical(Field(name, "context", "string"), column, frozenset(), "t")
    write(tmp_path / "t.parquet", b"PAR1 not really")
    with pytest.raises(UserError, match="not a whole Parquet file"):
        rows(tmp_path / "t.parquet")


def test_folders_patterns_and_lists(tmp_path: Path) -> None:
    """An empty part, parts in folders that say a value, hidden files; in the order of their names."""
    table = pa.table({"user": [1, 2]})
    for day in ("2024-01-02", "2024-01-01"):
        folder = tmp_path / "lake" / f"day={day}" / "shop=a%2Fb"
        folder.mkdir(parents=True)
        pq.write_table(table, folder / "part-0.parquet")
        pq.write_table(table.slice(0, 0), folder / "part-1.parquet")
        write(folder / "_SUCCESS", "")
        write(folder / ".part-0.parquet.crc", "x")
    result, _ = rows(tmp_path / "lake", columns=["user", "day", "shop"])
    assert [(row["user"], row["day"], row["shop"]) for row in result] == [
        *[(user, "2024-01-01", "a/b") for user in (1, 2)],
        *[(user, "2024-01-02", "a/b") for user in (1, 2)],
    ]
    a, b = write(tmp_path / "a.csv", TEXT), write(tmp_path / "b.csv", "title,item,user\nx,1,2\n")
    extra = {"user": "2", "item": "1", "title": "x"}
    assert rows([b, str(a)])[0] == [extra, *ROWS]
    assert rows(tmp_path / "*.csv")[0] == [*ROWS, extra]
    assert rows([a, a])[0] == ROWS * 2
    for path, message in (
        (tmp_path / "*.tsv", "does not exist"),
        (tmp_path, "holds both text and parquet files; name one kind"),
        ([], "an empty list"),
        (7, "must be a path, a pattern or a list of them"),
    ):
        with pytest.raises(UserError, match=message):
            find_parts(path)


def test_batches_have_one_size_and_the_order_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read, "CHUNK_ROWS", 1000)
    path = write(tmp_path / "t.csv", "n\n" + "".join(f"{k}\n" for k in range(250_500)))
    with read.Engine(memory=200_000_000, threads=4) as engine:
        (part,) = find_parts(path)
        result = list(engine.batches(part, ["n"], Format(), BadRows()))
    assert [batch.num_rows for _, batch in result] == [1000] * 250 + [500]
    assert [n for _, batch in result for n in batch.column("n").to_pylist()] == [
        str(k) for k in range(250_500)
    ]
    assert list((tmp_path / "cache").iterdir()) == []  # nothing is left behind


@pytest.mark.parametrize("options", [{"kind": "number"}, {"kind": "integer", "transform": "log_bucket"}])
def test_decimals_are_numbers(options: dict[str, str]) -> None:
    """They were missing values, and nobody was told."""
    column = pa.array([decimal.Decimal("1.50"), None, decimal.Decimal(7)], pa.decimal128(10, 2))
    result, wrong = canonical(Field("v", "context", **options), column, frozenset(), "t")
    assert (result.to_pylist(), wrong) == ([1.5, None, 7.0], {})


def test_the_engine_prints_nothing() -> None:
    """DuckDB draws a bar on stdout when a query takes two seconds."""
    with read.Engine() as engine:
        for connection in (engine.database, engine.cursor()):
            assert connection.sql("SELECT current_setting('enable_progress_bar')").fetchall() == [(False,)]


def test_an_array_over_several_lines_is_no_json_lines(tmp_path: Path) -> None:
    path = write(tmp_path / "t.json", '[\n{"n": 1},\n{"n": 2}\n]\n')
    with (
        read.Engine() as engine,
        pytest.raises(UserError, match=r"t\.json:1: no JSON object; write one object"),
    ):
        engine.names(Part(path), Format())
