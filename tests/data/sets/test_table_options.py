"""What a table's YAML file can say: further tables, splits, times, labels by text, weights, missing markers."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from ondevice.data import load_dataset, read
from ondevice.data.dataset import Dataset
from ondevice.data.splits import SPLITS
from ondevice.data.times import doubts, parse_time, time_parser
from ondevice.errors import UserError

pa = pytest.importorskip("pyarrow", reason="tables are read with pyarrow")
pq = pytest.importorskip("pyarrow.parquet", reason="tables are read with pyarrow")
pytest.importorskip("duckdb", reason="tables are read with duckdb")

USER = {"name": "user", "side": "context", "kind": "integer"}
ITEM = {"name": "item", "side": "item", "kind": "string"}


def load(tmp_path: Path, text: str, options: dict[str, Any] | None = None, **spec: Any) -> Dataset:
    """A table of this text under these keys of the YAML file."""
    path = tmp_path / "t.csv"
    path.write_text(text)
    return load_dataset("table", schema=schema(tmp_path, **spec), **{"path": path, **(options or {})})


def schema(tmp_path: Path, **spec: Any) -> Path:
    values = {"name": "t", "fields": [USER, ITEM], "label": {"column": "y"}, "item_key": "item", **spec}
    path = tmp_path / "t.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def rows(number: int, *more: str) -> str:
    """Rows of users 0 to 9 and items a to e, with further cells."""
    head = ",".join(["user", "item", "y", *(f"x{i}" for i in range(len(more)))])
    lines = [",".join([str(k % 10), "abcde"[k % 5], str(k * 7 // 3 % 2), *more]) for k in range(number)]
    return "\n".join([head, *lines]) + "\n"


def pairs(data: Dataset, split: str) -> set[tuple[int, ...]]:
    return set(map(tuple, np.asarray(data.split(split).ids).tolist()))


# further tables


def films(path: Path) -> Path:
    table = {
        "film": ["a", "b", "c", "z", None],
        "year": pa.array([1990, 1991, None, 2000, 1], pa.int16()),
        "name": ["Film A", "Film B", None, "Film Z", "nothing"],
    }
    pq.write_table(pa.table(table), path)
    return path


TABLES = {
    "films": {"path": "films.parquet", "key": "item", "column": "film"},
    "people": {"path": "people.csv", "key": "user"},
}
JOINED = [
    USER,
    {"name": "country", "side": "context", "kind": "string"},
    ITEM,
    {"name": "year", "side": "item", "kind": "integer"},
]


@pytest.mark.parametrize("options", [{}, {"streamed": True, "workers": 1}], ids=["memory", "streamed"])
def test_tables_of_users_and_items(
    tmp_path: Path,
    options: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Keys meet whatever type each file has; rows without a partner stay, and are counted."""
    monkeypatch.setattr(read, "CHUNK_ROWS", 16)
    films(tmp_path / "films.parquet")
    (tmp_path / "people.csv").write_text("country,user\n" + "".join(f"c{k % 3},{k}.0\n" for k in range(9)))
    data = load(tmp_path, rows(200), options, fields=JOINED, tables=TABLES)
    assert list(data.vocabulary.keys[1]) == ["c0", "c1", "c2"]
    assert list(data.vocabulary.keys[3]) == [1990, 1991]
    raw = [row for split in SPLITS for row in data.raw_rows(split, range(len(data.split(split))))]
    assert {(row["user"], row["country"]) for row in raw} == {
        (k, f"c{k % 3}" if k < 9 else None) for k in range(10)
    }
    assert {(row["item"], row["year"]) for row in raw} == {
        ("a", 1990), ("b", 1991), ("c", None), ("d", None), ("e", None)
    }  # fmt: skip
    said = capsys.readouterr().err
    assert "80 of 200 rows (40.0%) have a 'item' that" in said
    assert "20 of 200 rows (10.0%) have a 'user' that" in said


def test_the_catalog_comes_from_the_table_of_items(tmp_path: Path) -> None:
    """Items that nobody rated are in it, and rated ones that it lacks."""
    films(tmp_path / "films.parquet")
    fields = [USER, ITEM, JOINED[3]]
    data = load(tmp_path, rows(200), fields=fields, tables={"films": TABLES["films"]}, title="name")
    assert data.catalog is not None
    assert dict(zip(data.catalog.keys, data.catalog.titles, strict=True)) == {
        "a": "Film A", "b": "Film B", "c": "", "d": "", "e": "", "z": "Film Z"
    }  # fmt: skip
    assert data.catalog.raw[data.catalog.keys.index("z")] == {"item": "z", "year": 2000}
    unknown = data.vocabulary.field_offsets[1:3].tolist()
    assert data.catalog.ids[data.catalog.keys.index("z")].tolist() == unknown


def test_tables_that_do_not_fit(tmp_path: Path) -> None:
    for content, message in (
        ("item,year\na,1\nb,2\na,3\n", "films.csv: item 'a' is there more than once"),
        ("itm,year\na,1\n", "films.csv: no column 'item' .did you mean 'itm'"),
        ("item,yr\na,1\n", "no column 'year' .did you mean 'yr'"),
        ("item,year\na,1\nb,x\n", "films.csv:3: column 'year': 'x' is not a whole number"),
        ("item,year\n", "films.csv: holds no rows"),
    ):
        (tmp_path / "films.csv").write_text(content)
        with pytest.raises(UserError, match=message):
            load(
                tmp_path, rows(50), fields=[USER, ITEM, JOINED[3]],
                tables={"films": {"path": "films.csv", "key": "item"}},
            )  # fmt: skip
    with pytest.raises(UserError, match=r"tables.films.key: 'film' is not a field"):
        load(tmp_path, rows(50), tables={"films": {"path": "films.csv", "key": "film"}})
    with pytest.raises(UserError, match=r"data.tables: .* has no table 'film' .did you mean 'films'"):
        load(
            tmp_path, rows(50), {"tables": {"film": "x.csv"}},
            tables={"films": {"path": "films.csv", "key": "item"}},
        )  # fmt: skip


# splits


def test_the_users_own_files(tmp_path: Path) -> None:
    paths = {}
    for name, number in (("train", 40), ("valid", 7), ("test", 9)):
        paths[name] = tmp_path / f"{name}.csv"
        paths[name].write_text(rows(number))
    for options in ({}, {"streamed": True, "workers": 1}):
        data = load_dataset("table", schema=schema(tmp_path), path=paths, **options)
        assert [len(data.split(name)) for name in SPLITS] == [40, 7, 9]
        raw = data.raw_rows("valid", range(7))
        assert [row["user"] for row in raw] == list(range(7))
    for path, options, message in (
        ({"train": paths["train"]}, {}, "train, valid or test is missing"),
        ({**paths, "tset": "x"}, {}, "unknown key 'tset' .did you mean 'test'"),
        (paths, {"split": "random"}, "keep one of them"),
    ):
        with pytest.raises(UserError, match=message):
            load_dataset("table", schema=schema(tmp_path), path=path, **options)


def test_each_users_last_row_tests(tmp_path: Path) -> None:
    """Users 1 and 2 have rows enough; ties keep the order of the file; user 3 only trains."""
    text = "user,item,y,at\n1,c,1,3\n1,a,1,1\n2,a,0,9\n1,b,0,2\n2,b,1,9\n2,c,0,9\n3,d,1,100\n3,e,1,101\n"
    split = {"kind": "leave_last_out", "time": "at", "user": "user"}
    data = load(tmp_path, text, split=split)
    result = {
        name: [(r["user"], r["item"]) for r in data.raw_rows(name, range(len(data.split(name))))]
        for name in SPLITS
    }
    assert result["test"] == [(1, None), (2, None)]  # c is in no training row
    assert result["valid"] == [(1, None), (2, None)]
    assert sorted(result["train"]) == [(1, "a"), (2, "a"), (3, "d"), (3, "e")]
    with pytest.raises(UserError, match=r"needs the field of the user; add split: \{user: FIELD\}"):
        load(tmp_path, text, split={"kind": "leave_last_out", "time": "at"})
    streamed = load(tmp_path, text, {"streamed": True, "workers": 1}, split=split)
    for name in SPLITS:
        assert np.array_equal(streamed.split(name).ids, data.split(name).ids)


@pytest.mark.parametrize("options", [{}, {"streamed": True, "workers": 1}], ids=["memory", "streamed"])
def test_repeated_pairs_stay_together(
    tmp_path: Path, options: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    text = "user,item,y\n" + 5 * "".join(f"{k % 40},i{k * 7 % 30},{k * 7 // 3 % 2}\n" for k in range(300))
    data = load(tmp_path, text, options, split={"group": ["user", "item"]})
    assert not pairs(data, "train") & pairs(data, "test")
    assert not pairs(data, "train") & pairs(data, "valid")
    sizes = np.array([len(data.split(name)) for name in SPLITS])
    assert sizes.sum() == 1500
    assert np.abs(sizes / 1500 - [0.8, 0.1, 0.1]).max() < 0.06
    assert "repeat a training row" not in capsys.readouterr().err


def test_repeated_pairs_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    load(tmp_path, rows(300))
    assert (
        "30 of 30 test rows repeat a training row (all fields); to keep such rows" in capsys.readouterr().err
    )
    with pytest.raises(UserError, match=r"split: 'usr' is not a field .did you mean 'user'"):
        load(tmp_path, rows(300), split={"group": ["usr"]})
    with pytest.raises(UserError, match="keeps rows together in a random split"):
        load(tmp_path, rows(300, "1"), split={"kind": "temporal", "time": "x0", "group": "user"})


# times


@pytest.mark.parametrize(
    ("raw", "form", "seconds"),
    [
        ("1970-01-01 0:01", None, 60.0),
        ("1970-01-01T00:00:01.5", None, 1.5),
        ("1970-01-01 00:00:01.123456789", None, 1.123456789),
        ("1970-01-01 01:00:00 UTC", None, 3600.0),
        ("1970-1-2", None, 86400.0),
        ("1970-01-01T02:00+0200", None, 0.0),
        ("1970-01-01T02:00:00+02", None, 0.0),
        (1700000000000, None, 1.7e12),
        (np.int64(7), None, 7.0),
        (datetime.datetime(1970, 1, 1, 1, tzinfo=datetime.timezone.utc), None, 3600.0),
        ("02.01.1970 00:30", "%d.%m.%Y %H:%M", 88200.0),
        ("19700102", "%Y%m%d", 86400.0),
    ],
)
def test_times_as_people_write_them(raw: Any, form: str | None, seconds: float) -> None:
    assert time_parser(form)(raw) == pytest.approx(seconds, abs=1e-6)


def test_what_is_no_time_says_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r'neither a number nor an ISO 8601 date; .*time_format: "%d.%m.%Y'):
        parse_time("07.11.2017 9:30")
    with pytest.raises(ValueError, match=r"is not of the form '%d.%m.%Y' \(split.time_format\)"):
        time_parser("%d.%m.%Y")("2017-11-07")
    split = {"kind": "temporal", "time": "x0", "time_format": "%d.%m.%Y"}
    data = load(tmp_path, rows(40, "07.11.2017"), split=split)
    assert len(data.train) == 32


def test_odd_times_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert doubts("at", 5.0, 1.7e12) is None  # a counter
    assert doubts("at", 1.6e9, 1.7e9) is None
    told = doubts("at", 1.6e9, 1.7e12)
    assert told == "time 'at' looks like seconds in some rows and like milliseconds in others"
    load(tmp_path, rows(40, "5"), split={"kind": "temporal", "time": "x0"})
    assert "time 'x0' has one value only" in capsys.readouterr().err


# labels, weights, missing values


def test_labels_by_text(tmp_path: Path) -> None:
    text = rows(60).replace(",1\n", ",bought\n").replace(",0\n", ",seen\n") + "1,a,returned\n"
    rule: dict[str, Any] = {"column": "y", "positive": ["bought"], "drop": ["returned"]}
    data = load(tmp_path, text, label=rule)
    same = load(tmp_path, text, label={**rule, "negative": ["seen"]})
    plain = load(tmp_path, rows(60))
    for name in SPLITS:
        assert data.split(name).labels.tolist() == plain.split(name).labels.tolist()
        assert same.split(name).labels.tolist() == plain.split(name).labels.tolist()
    with pytest.raises(UserError, match=r"t.csv:62: label 'y' is 'returned', in neither list"):
        load(tmp_path, text, label={"column": "y", "positive": ["bought"], "negative": ["seen"]})
    assert load(
        tmp_path,
        text.replace("seen", "no").replace("bought", "yes"),
        label={"column": "y", "positive": ["yes"]},
    )
    for wrong, message in (
        ({"column": "y", "positive": ["a"], "negative": ["a"]}, "none in both"),
        ({"column": "y", "negative": ["a"]}, "positive at least one"),
        ({"column": "y", "positive": ["a"], "positive_above": 3}, "is for numbers; remove it, or positive"),
    ):
        with pytest.raises(UserError, match=message):
            load(tmp_path, text, label=wrong)
    with pytest.raises(UserError, match=r"'seen' \(for texts, set label.positive\)"):
        load(tmp_path, text)


def test_weights_are_kept_beside_the_rows(tmp_path: Path) -> None:
    text = "user,item,y,w\n" + "".join(f"{k % 10},a{k},{k % 2},{k}\n" for k in range(100))
    for options in ({}, {"streamed": True, "workers": 1}):
        data = load(tmp_path, text, options, weight="w")
        for name in SPLITS:
            weights = data.split(name).weights
            assert weights is not None
            if name == "train":
                items = [int(row["item"][1:]) for row in data.raw_rows(name, range(len(weights)))]
                assert weights.tolist() == items
    with pytest.raises(UserError, match=r"t.csv:2: weight 'w' is '-1', not a number of at least 0"):
        load(tmp_path, text.replace(",0,0\n", ",0,-1\n", 1), weight="w")


def test_missing_markers(tmp_path: Path) -> None:
    text = "user,item,y\n" + "".join(
        f"{'NA' if k % 4 == 0 else k % 7},{'-' if k % 3 else 'x'},{k % 2}\n" for k in range(100)
    )
    data = load(tmp_path, text, format={"missing": ["NA", "-"]})
    assert list(data.vocabulary.keys[0]) == list(range(7))
    assert list(data.vocabulary.keys[1]) == ["x"]
    with pytest.raises(UserError, match=r"t.csv:2: column 'user': 'NA' is not a whole number"):
        load(tmp_path, text)


# identifiers


@pytest.mark.parametrize("options", [{}, {"streamed": True, "workers": 1}], ids=["memory", "streamed"])
@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("18446744073709551615", "'18446744073709551615' does not fit into 64 bits; .*write kind: string"),
        ("A7", "'A7' is not a whole number; where values are names or codes, write kind: string"),
        ("12.5", "'12.5' is not a whole number"),
        ("1.013", "'1.013' is not a whole number"),
    ],
)
def test_an_integer_that_cannot_be_read_is_a_bad_row(
    tmp_path: Path, value: str, message: str, options: dict[str, Any]
) -> None:
    text = rows(80).replace("\n3,", f"\n{value},", 1)
    with pytest.raises(UserError, match=f"t.csv:5: column 'user': {message}.*data.bad_rows=skip"):
        load(tmp_path, text, options)
    data = load(tmp_path, text, {**options, "bad_rows": "skip"})
    assert data.skipped_rows == 1
    assert sum(len(data.split(name)) for name in SPLITS) == 79


def test_the_preparation_says_what_each_field_holds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fields = [
        USER,
        ITEM,
        {"name": "x0", "side": "context", "kind": "string"},
        {"name": "y2", "side": "context", "kind": "integer", "column": "n"},
    ]
    lines = rows(200, "same").splitlines()
    text = (
        "\n".join([lines[0] + ",n", *(f"{line},{'' if k % 4 else k}" for k, line in enumerate(lines[1:]))])
        + "\n"
    )
    load(tmp_path, text, fields=fields)
    said = capsys.readouterr().err
    assert "t: rows train 160, valid 20, test 20" in said
    (same,) = [line for line in said.splitlines() if line.strip().startswith("x0")]
    assert same.split()[:5] == ["x0", "1", "0.0%", "0.0%", "100.0%"]
    assert "one value only: it tells no rows apart" in same
    (number,) = [line for line in said.splitlines() if line.strip().startswith("y2")]
    assert 70 < float(number.split()[2].rstrip("%")) < 80


def test_positives_without_an_item_are_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Else the unknown item would be positive always, and new items rank near the top."""
    text = "user,item\n" + "".join(
        f"{k % 40},{'' if k % 10 == 0 else f'i{k * 7 % 60}'}\n" for k in range(1000)
    )
    label = {"positive_only": True, "negatives": 2, "context_key": "user"}
    data = load(tmp_path, text, label=label)
    unknown = np.asarray(data.train.ids)[:, 1] == data.vocabulary.field_offsets[1]
    assert not unknown.any()
    assert "100 rows without 'item' left out; label.positive_only needs it" in capsys.readouterr().err
