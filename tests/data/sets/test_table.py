"""A user's own table: CSV and Parquet, every label rule, every kind of bad row."""

from __future__ import annotations

import builtins
import csv
import datetime
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ondevice.data import load_dataset
from ondevice.data.dataset import Dataset
from ondevice.data.times import parse_time
from ondevice.errors import UserError

EXAMPLE = Path(__file__).parents[3] / "train/configs/table_example.schema.yaml"

CLICKS = """
name: clicks
fields:
  - {name: user, side: context, kind: integer, column: uid}
  - {name: ad, side: item, kind: string}
  - {name: price, side: item, kind: integer, transform: log_bucket}
label: {column: clicked}
item_key: ad
split: {kind: temporal, time: at, fractions: [0.6, 0.2, 0.2]}
"""
HEADER = ["at", "uid", "ad", "price", "clicked", "note"]
# By time: users 7, 7, 5, 5 train; 9 validates; 7 tests. price 100 -> 21, 10 -> 5, 1 -> 1.
ROWS: list[list[Any]] = [
    [40, 5, "b", 100, 0, "x"],
    [10, 7, "a", 10, 1, "x"],
    [20, 7, "b", 100, 0, 'say "hi", twice'],
    [30, 5, "a", 10, 1, "x"],
    [60, 7, "c", 1, 1, "x"],
    [50, 9, "a", 10, 0, "x"],
]


def write_schema(folder: Path, text: str = CLICKS) -> Path:
    path = folder / "clicks.yaml"
    path.write_text(text)
    return path


def write_csv(
    path: Path, rows: list[list[Any]] = ROWS, header: list[str] | None = HEADER, delimiter: str = ","
) -> Path:
    with open(path, "w", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter, lineterminator="\n")
        writer.writerows([header] if header else [])
        writer.writerows(rows)
    return path


def load(tmp_path: Path, path: Path, text: str = CLICKS, **options: Any) -> Dataset:
    return load_dataset("table", schema=str(write_schema(tmp_path, text)), path=str(path), **options)


def check_by_hand(data: Dataset) -> None:
    """Ids: user 0-2 (5, 7), ad 3-5 (a, b), price 6-8 (buckets 5, 21)."""
    assert data.vocabulary.field_offsets.tolist() == [0, 3, 6, 9]
    assert data.train.ids.tolist() == [[2, 4, 7], [2, 5, 8], [1, 4, 7], [1, 5, 8]]
    assert data.train.labels.tolist() == [1, 0, 1, 0]
    assert data.valid.ids.tolist() == [[0, 4, 7]]
    assert data.test.ids.tolist() == [[2, 3, 6]]
    assert data.test.labels.tolist() == [1]
    assert data.counts.tolist() == [0, 2, 2, 0, 2, 2, 0, 2, 2]
    assert data.catalog is not None
    assert {"ad": "b", "price": 100} in data.catalog.raw
    rows = dict(zip(data.catalog.keys, data.catalog.ids.tolist(), strict=True))
    assert rows == {"a": [4, 7], "b": [5, 8], "c": [3, 6]}
    assert data.skipped_rows == 0


def test_csv_by_hand(tmp_path: Path) -> None:
    data = load(tmp_path, write_csv(tmp_path / "t.csv"))
    check_by_hand(data)
    assert data.schema.names == ("user", "ad", "price")
    assert data.raw_rows("test", [0]) == [{"user": 7, "ad": None, "price": None}]


def test_a_folder_of_semicolons_in_latin_1(tmp_path: Path) -> None:
    folder = tmp_path / "parts"
    folder.mkdir()
    write_csv(folder / "1.csv", ROWS[:2], delimiter=";")
    reordered = [HEADER[::-1], *[row[::-1] for row in ROWS[2:]]]
    path = write_csv(folder / "2.csv", reordered, header=None, delimiter=";")
    path.write_bytes(path.read_bytes().replace(b"twice", b"\xe9"))
    (folder / ".hidden.csv").write_text("nonsense")
    check_by_hand(load(tmp_path, folder, CLICKS + "format: {delimiter: ';', encoding: latin-1}\n"))


def test_no_header_line(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "t.tsv", header=None, delimiter="\t")
    check_by_hand(load(tmp_path, path, CLICKS + f'format: {{delimiter: "\\t", columns: {HEADER}}}\n'))


def parquet(path: Path, columns: dict[str, Any]) -> Path:
    pa = pytest.importorskip("pyarrow", reason="Parquet needs pyarrow (pip install pyarrow)")
    import pyarrow.parquet as pq

    pq.write_table(pa.table(columns), path)
    return path


def test_parquet_by_hand(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow", reason="Parquet needs pyarrow (pip install pyarrow)")
    columns = dict(zip(HEADER, map(list, zip(*ROWS, strict=True)), strict=True))
    moments = [datetime.datetime(2020, 1, 1) + datetime.timedelta(seconds=second) for second in columns["at"]]
    columns["at"] = pa.array(moments, pa.timestamp("ns"))
    columns["ad"] = pa.array(columns["ad"]).dictionary_encode()
    columns["price"] = pa.array([float(price) for price in columns["price"]])
    columns["clicked"] = [bool(label) for label in columns["clicked"]]
    check_by_hand(load(tmp_path, parquet(tmp_path / "t.parquet", columns)))


def test_bad_parquet(tmp_path: Path) -> None:
    columns = dict(zip(HEADER, map(list, zip(*ROWS, strict=True)), strict=True))
    with pytest.raises(UserError, match=r"t.parquet:2: label 'clicked' is 3, not 0 or 1"):
        load(tmp_path, parquet(tmp_path / "t.parquet", {**columns, "clicked": [0, 3, 0, 0, 0, 0]}))
    with pytest.raises(UserError, match=r"no column 'uid' .did you mean 'id'"):
        load(tmp_path, parquet(tmp_path / "t.parquet", {"id": [1], "ad": ["a"]}))
    with pytest.raises(UserError, match="column 'ad' is of type list"):
        load(tmp_path, parquet(tmp_path / "t.parquet", {**columns, "ad": [["a"]] * 6}))
    with pytest.raises(UserError, match="holds no rows"):
        load(tmp_path, parquet(tmp_path / "t.parquet", {name: [] for name in HEADER}))
    (tmp_path / "t.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(UserError, match="not a whole Parquet file"):
        load(tmp_path, tmp_path / "t.parquet")


def test_parquet_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *arguments: Any, **options: Any) -> Any:
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return real(name, *arguments, **options)

    (tmp_path / "t.parquet").write_bytes(b"PAR1")
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match="needs duckdb and pyarrow; pip install"):
        load(tmp_path, tmp_path / "t.parquet")


def ratings(rule: str) -> str:
    return CLICKS.replace("{column: clicked}", rule)


def test_ratings_with_dropped_values(tmp_path: Path) -> None:
    rows = [
        [*row[:4], stars, ""]
        for row, stars in zip(ROWS * 2, [5, 3, 1, 4, 2, 3, 5, 1, 3, 2, 4, 1], strict=True)
    ]
    text = ratings("{column: clicked, positive_above: 3, drop: [3], minimum: 1, maximum: 5}")
    data = load(tmp_path, write_csv(tmp_path / "t.csv", rows), text, split="random")
    labels = np.concatenate([data.train.labels, data.valid.labels, data.test.labels])
    assert sorted(labels.tolist()) == [0] * 5 + [1] * 4
    with pytest.raises(UserError, match=r"t.csv:2: label 'clicked' is '0', outside 1 to 5"):
        load(tmp_path, write_csv(tmp_path / "t.csv"), text)


GOOD = "10,7,a,10,1,x"
BAD = [
    ("20,7,b,100,2,x", "t.csv:4: label 'clicked' is '2', not 0 or 1"),
    ("20,7,b,100,,x", "t.csv:4: label 'clicked' is missing"),
    ("soon,7,b,100,1,x", "t.csv:4: time 'soon' is neither a number nor"),
    ("20,7,b,100,1", "t.csv:4: 5 columns where 6 are expected"),
    ("20,7,b,100,1,x,y", "t.csv:4: 7 columns where 6 are expected"),
    ("20,7,\udcff,100,1,x", "t.csv:4: bytes that cannot be decoded"),
]


@pytest.mark.parametrize(("line", "message"), BAD)
def test_bad_rows_are_named_or_skipped(
    tmp_path: Path, line: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [",".join(HEADER), GOOD, GOOD, line, GOOD, GOOD, line, GOOD]
    path = tmp_path / "t.csv"
    path.write_bytes("\n".join(lines).encode(errors="surrogateescape"))
    with pytest.raises(UserError, match=message) as caught:
        load(tmp_path, path)
    assert "data.bad_rows=skip" in str(caught.value)
    capsys.readouterr()
    data = load(tmp_path, path, bad_rows="skip")
    assert len(data.train) + len(data.valid) + len(data.test) == 5
    assert data.skipped_rows == 2
    assert f"2 rows left out; the first: {path}:4:" in capsys.readouterr().err
    assert load(tmp_path, path, bad_rows="skip").skipped_rows == 2


@pytest.mark.parametrize(
    ("text", "content", "message"),
    [
        (CLICKS, "", "t.csv: is empty"),
        (CLICKS, "at,uid,ad,price,clicked\n", "t.csv: holds no rows"),
        (
            CLICKS,
            "at,user_id,ad,price,clicked\n1,1,a,1,1\n",
            "no column 'uid' .*choose from: ad, at, clicked",
        ),
        (CLICKS, "at;uid;ad;price;clicked\n", r"no column 'uid' .*is the delimiter ','\?"),
        (CLICKS, "at,uid,uid,ad,price,clicked\n1,1,1,a,1,1\n", "column 'uid' is there 2 times"),
        (CLICKS, "at,uid,ad,price,clicked\n1,1,a,1,1\n", "1 rows are too few"),
        (
            ratings("{column: clicked, positive_above: 3, drop: [1]}"),
            "at,uid,ad,price,clicked\n1,1,a,1,1\n",
            "keeps no row",
        ),
        (
            CLICKS,
            "at,uid,ad,price,clicked\n" + "1,x,a,1,1\n" * 9,
            "t.csv:2: column 'uid': 'x' is not a whole number.*kind: string",
        ),
        (
            CLICKS,
            "at,uid,ad,price,clicked\n" + "1,,a,1,1\n" * 9,
            "field 'user'.*every training value is missing",
        ),
    ],
)
def test_tables_that_cannot_be_used(tmp_path: Path, text: str, content: str, message: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(content)
    with pytest.raises(UserError, match=message):
        load(tmp_path, path, text)


def test_min_count_that_leaves_nothing(tmp_path: Path) -> None:
    text = CLICKS.replace("side: item, kind: string", "side: item, kind: string, min_count: 50")
    with pytest.raises(UserError, match="no training value occurs 50 times"):
        load(tmp_path, write_csv(tmp_path / "t.csv"), text)


def test_rare_items_share_the_unknown_id(tmp_path: Path) -> None:
    text = CLICKS.replace("side: item, kind: string", "side: item, kind: string, min_count: 3")
    data = load(tmp_path, write_csv(tmp_path / "t.csv", ROWS[:5] * 2 + [[5, 7, "a", 10, 1, ""]]), text)
    assert list(data.vocabulary.keys[1]) == ["a"]
    assert data.counts[data.vocabulary.field_offsets[1]] > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"path": None}, "data.path: data set 'table' needs it"),
        ({"schema": None}, "data.schema: data set 'table' needs it"),
        ({"path": "none.csv"}, "none.csv does not exist"),
        ({"bad_rows": "skp"}, "did you mean 'skip'"),
        ({"pth": "x"}, "did you mean 'path'"),
        ({"fractions": [1]}, "three numbers"),
    ],
)
def test_options(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    write_csv(tmp_path / "t.csv")
    given = {"schema": str(write_schema(tmp_path)), "path": str(tmp_path / "t.csv"), **options}
    with pytest.raises(UserError, match=message):
        load_dataset("table", **given)


def test_temporal_needs_a_time(tmp_path: Path) -> None:
    text = CLICKS.replace("time: at, ", "")
    with pytest.raises(UserError, match="needs the time column"):
        load(tmp_path, write_csv(tmp_path / "t.csv"), text)
    assert len(load(tmp_path, tmp_path / "t.csv", text, split="random").train) == 4


def test_folders_without_one_kind_of_table(tmp_path: Path) -> None:
    folder = tmp_path / "parts"
    folder.mkdir()
    with pytest.raises(UserError, match=r"holds no file ending in .csv"):
        load(tmp_path, folder)
    (folder / "a.csv").write_text("")
    (folder / "b.parquet").write_text("")
    with pytest.raises(UserError, match="both text and parquet"):
        load(tmp_path, folder)


def test_a_changed_table_is_prepared_again(tmp_path: Path, own_cache: Path) -> None:
    path = write_csv(tmp_path / "t.csv")
    first = load(tmp_path, path)
    assert load(tmp_path, path).fingerprint == first.fingerprint
    os.utime(path, ns=(1, 1))
    assert load(tmp_path, path).fingerprint == first.fingerprint  # touching changes nothing
    assert load(tmp_path, path.rename(tmp_path / "u.csv")).fingerprint == first.fingerprint
    path.write_text((tmp_path / "u.csv").read_text().replace(",x\n", ",y\n"))
    assert load(tmp_path, path).fingerprint != first.fingerprint
    changed = load(tmp_path, path, CLICKS.replace("column: clicked", "column: price, positive_above: 50"))
    assert changed.train.labels.tolist() == [0, 1, 0, 1]
    assert len(list((own_cache / "stores").iterdir())) == 3


@pytest.mark.parametrize(
    ("raw", "seconds"),
    [
        ("12.5", 12.5),
        (7, 7.0),
        ("1970-01-02", 86400.0),
        ("1970-01-01T00:01:00Z", 60.0),
        ("1970-01-01T01:00:00+01:00", 0.0),
        (datetime.date(1970, 1, 2), 86400.0),
        (datetime.datetime(1970, 1, 1, 0, 2), 120.0),
    ],
)
def test_times(raw: object, seconds: float) -> None:
    assert parse_time(raw) == seconds


@pytest.mark.parametrize("raw", ["", "soon", None, "2020-13-01", [1]])
def test_what_is_no_time(raw: object) -> None:
    with pytest.raises(ValueError, match="neither a number nor an ISO 8601 date"):
        parse_time(raw)


def test_the_shipped_example_reads_its_own_sample(tmp_path: Path) -> None:
    """The header and row in the example's comment, and rows made like it."""
    comment = [line[1:].strip() for line in EXAMPLE.read_text().splitlines() if line.startswith("#   ")]
    header, sample = comment[1:3]
    assert header.startswith("user_id,")
    assert len(sample.split(",")) == len(header.split(","))
    rows = []
    for n in range(40):
        cells = sample.split(",")
        cells[0], cells[3], cells[4], cells[-1] = (
            str(n % 7),
            f"2004-03-{n % 28 + 1:02}",
            f"book{n % 5}",
            str(n % 5 + 1),
        )
        rows.append(",".join(cells))
    path = tmp_path / "ratings.csv"
    path.write_text("\n".join([header, sample, *rows]) + "\n")
    data = load_dataset("table", schema=EXAMPLE, path=path)
    assert len(data.train) + len(data.valid) + len(data.test) == 41 - 8
    assert data.catalog is not None
    assert set(data.catalog.titles) == {"Airframe"}
