"""Fields of several values and numbers: what becomes of raw values, in memory and streamed."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ondevice.data import Dataset, Field, Schema, load_dataset
from ondevice.data.preparation.columns import number_keys, numbers_of
from ondevice.data.spec import TableSpec
from ondevice.data.vocabulary import quantile_boundaries
from ondevice.errors import DataError
from tests.vocabularies import fitted

TAGS = Field("tags", "item", "string", slots=3, separator="|")
CODES = Field("codes", "item", "integer", slots=2, separator=",")
WORDS = st.text("abc .é", min_size=1, max_size=3).filter(lambda word: word == word.strip(" "))


@given(st.lists(WORDS, max_size=6))
def test_a_list_and_a_text_with_separators_are_the_same_values(values: list[str]) -> None:
    distinct = tuple(dict.fromkeys(values))
    for raw in (values, tuple(values), np.array(values, dtype=object), "|".join(values), " | ".join(values)):
        assert TAGS.bag(raw) == distinct
        assert TAGS.kept(raw) == distinct[:3]
    assert TAGS.bag([*values, None, "", math.nan]) == distinct


def test_values_by_hand() -> None:
    vocabulary = fitted([TAGS, CODES], [["a|b", "c", None], ["1,2", [3], ""]])
    assert vocabulary.keys[0] == ["a", "b", "c"]
    rows = {
        "known, and one that is not": ({"tags": "b|x|a", "codes": [2.0]}, [2, 0, 1, 6, 4]),
        "more than slots": ({"tags": ["x", "y", "z", "a"], "codes": "1, 2,3"}, [0, 0, 0, 5, 6]),
        "nothing": ({"tags": "", "codes": []}, [0, 0, 0, 4, 4]),
        "one alone": ({"tags": ["c"], "codes": 3}, [3, 0, 0, 7, 4]),
    }
    for raw, ids in rows.values():
        assert vocabulary.encode_row(raw).tolist() == ids
    assert CODES.trouble("1,x,2") is not None
    assert "'x' is not a whole number" in str(CODES.trouble("1,x"))
    with pytest.raises(DataError, match="needs one number or text"):
        TAGS.bag([["a"]])
    with pytest.raises(DataError, match="needs one number or text"):
        Field("f", "item", "string").key(["a"])


def test_boundaries_by_hand() -> None:
    values, counts = np.array([1.0, 2.0, 3.0, 10.0, 11.0]), np.array([6, 1, 1, 1, 3])
    assert quantile_boundaries(values, counts, 2) == (2.0,)  # place 6 of 12 rows
    assert quantile_boundaries(values, counts, 4) == (2.0, 11.0)  # places 3, 6 and 9: the first is all ones
    assert quantile_boundaries(values, counts, 5) == (2.0, 3.0, 10.0, 11.0)  # a bucket for each number
    field = Field("n", "item", "number", boundaries=(2.0, 2.5))
    raws: list[Any] = [-1e9, 1.99, 2, "2.49", 2.5, math.inf, None, "", "x"]
    assert field.keys(raws) == [0, 0, 1, 1, 2, None, None, None, None]
    assert [field.key(field.raw(key)) for key in (0, 1, 2, None)] == [0, 1, 2, None]
    assert field.trouble("x") == "column 'n': 'x' is no number"


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=50), st.integers(2, 9))
def test_buckets_hold_every_training_number_and_are_not_empty(numbers: list[float], buckets: int) -> None:
    vocabulary = fitted([Field("n", "item", "number", buckets=buckets)], [numbers])
    ids = vocabulary.encode_column(0, numbers)
    assert set(ids.tolist()) == set(range(1, vocabulary.num_embeddings))
    assert vocabulary.num_embeddings - 1 <= buckets
    order = np.argsort(numbers, kind="stable")
    assert (np.diff(ids[order]) >= 0).all()
    keys = number_keys(np.array(numbers))
    ascending = keys[order]
    assert (ascending[1:] >= ascending[:-1]).all()
    assert np.array_equal(numbers_of(keys), np.array(numbers))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"slots": 0}, "slots must be a whole number of 1 to"),
        ({"slots": 2, "pooling": "max"}, "pooling 'max' is unknown"),
        ({"slots": 2, "separator": " "}, "separator must be"),
        ({"separator": "|"}, "add slots"),
        ({"slots": 2, "kind": "number"}, "remove slots"),
        ({"slots": 2, "kind": "integer", "missing": 0}, "remove slots"),
        ({"kind": "number", "buckets": 1}, "buckets must be"),
        ({"kind": "number", "min_count": 2}, "min_count has no meaning"),
        ({"kind": "number", "boundaries": [1, 1]}, "boundaries must be"),
        ({"boundaries": [1]}, "write kind: number"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        Field(**{"name": "f", "side": "item", "kind": "string", **options})


SCHEMA: dict[str, Any] = {
    "name": "bags",
    "fields": [
        {"name": "user", "side": "context", "kind": "integer"},
        {"name": "mood", "side": "context", "kind": "integer", "slots": 2},
        {"name": "item", "side": "item", "kind": "integer"},
        {"name": "tags", "side": "item", "kind": "string", "slots": 2, "separator": "|", "min_count": 3},
        {"name": "price", "side": "item", "kind": "number", "buckets": 4},
    ],
    "label": {"column": "liked"},
    "item_key": "item",
    "split": {"kind": "temporal", "time": "t"},
}


def _rows(count: int = 300) -> list[dict[str, Any]]:
    random = np.random.default_rng(0)
    rows = []
    for t in range(count):
        item = int(random.integers(0, 12))
        tags = ["a", "b", "c", f"rare{t}"][item % 4 :]
        rows.append(
            {
                "user": int(random.integers(0, 9)),
                "mood": [int(m) for m in random.integers(0, 3, item % 3)] or None,
                "item": item,
                "tags": "|".join(tags) if item else None,
                "price": None if item == 5 else float(random.integers(0, 40)) / 2,
                "liked": int(random.integers(0, 2)),
                "t": t,
            }
        )
    return rows


def _write(folder: Path, rows: list[dict[str, Any]]) -> tuple[Path, Path, Path]:
    schema, table, lines = folder / "s.yaml", folder / "t.parquet", folder / "t.jsonl"
    schema.write_text(yaml.safe_dump(SCHEMA, sort_keys=False))
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    pq.write_table(pa.table({**columns, "mood": pa.array(columns["mood"], pa.list_(pa.int32()))}), table)
    lists = [{**row, "tags": None if row["tags"] is None else row["tags"].split("|")} for row in rows]
    lines.write_text("".join(json.dumps(row) + "\n" for row in lists))
    return schema, table, lines


def _same(one: Dataset, other: Dataset) -> None:
    assert one.schema == other.schema
    assert one.vocabulary == other.vocabulary
    assert np.array_equal(one.counts, other.counts)
    for name in ("train", "valid", "test"):
        assert np.array_equal(one.split(name).ids, other.split(name).ids)


def test_a_table_in_memory_streamed_and_as_json_is_one_store(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = _rows()
    schema, table, lines = _write(tmp_path, rows)
    data = load_dataset("table", schema=str(schema), path=str(table))
    assert "rows have more values than slots" in capsys.readouterr().err
    _same(data, load_dataset("table", schema=str(schema), path=str(lines)))
    _same(data, load_dataset("table", schema=str(schema), path=str(table), streamed=True, workers=2))
    slots = data.schema.slots
    assert (slots.widths, slots.poolings) == ((1, 2, 1, 2, 1), (None, "mean", None, "mean", None))
    train = np.asarray(data.train.ids)
    for f, field in enumerate(data.schema.fields):  # counts are rows, of unknown ids those with nothing known
        columns = train[:, slots.starts[f] : slots.starts[f + 1]]
        first, end = data.vocabulary.field_offsets[f : f + 2]
        assert data.counts[first] == (columns == first).all(1).sum()
        assert all(data.counts[i] == (columns == i).any(1).sum() for i in range(first + 1, end)), field.name
    price = data.schema.fields[4]
    numbers = [row["price"] for row in rows[:240] if row["price"] is not None]
    assert price.boundaries == quantile_boundaries(*np.unique(numbers, return_counts=True), 4)
    again = [data.vocabulary.encode_row(row).tolist() for row in data.raw_rows("test", range(30))]
    known = [
        [sorted(row[a:b]) for a, b in zip(slots.starts, slots.starts[1:], strict=False)] for row in again
    ]
    stored = data.test.ids[:30].tolist()
    assert known == [
        [sorted(row[a:b]) for a, b in zip(slots.starts, slots.starts[1:], strict=False)] for row in stored
    ]
    assert data.catalog is not None
    assert data.catalog.ids.shape[1] == 4
    assert data.catalog.raw[data.catalog.keys.index(0)]["tags"] is None
    assert data.catalog.raw[data.catalog.keys.index(1)]["tags"][:1] == ["b"]


def test_a_plain_schema_is_described_as_before() -> None:
    plain = Field("user", "context", "integer")
    assert "slots" not in plain.to_dict()
    assert "boundaries" not in plain.to_dict()
    schema = Schema.from_dict({k: v for k, v in SCHEMA.items() if k != "split"})
    assert Schema.from_dict(json.loads(json.dumps(schema.to_dict()))) == schema


def test_what_names_items_or_keeps_rows_together_has_one_value() -> None:
    several = {**SCHEMA, "item_key": "tags"}
    with pytest.raises(DataError, match="item_key 'tags' must have one value"):
        TableSpec.from_dict(several)
    with pytest.raises(DataError, match="split: 'price' must have one value"):
        TableSpec.from_dict({**SCHEMA, "split": {"group": ["price"]}})


def test_a_wrong_value_in_a_list_names_its_line(tmp_path: Path) -> None:
    schema = tmp_path / "s.yaml"
    fields = [{**field, "separator": ","} if field["name"] == "mood" else field for field in SCHEMA["fields"]]
    schema.write_text(yaml.safe_dump({**SCHEMA, "fields": fields}))
    (tmp_path / "t.csv").write_text(
        'user,mood,item,tags,price,liked,t\n1,"1,2",1,a,2.5,1,1\n2,"1,x",1,a,2,0,2\n1,,1,,much,1,1\n'
    )
    with pytest.raises(DataError, match=r"t\.csv:3: column 'mood': 'x' is not a whole number"):
        load_dataset("table", schema=str(schema), path=str(tmp_path / "t.csv"))


def test_a_joined_table_has_lists_of_its_own(tmp_path: Path) -> None:
    fields = [
        {"name": "user", "side": "context", "kind": "integer"},
        {"name": "item", "side": "item", "kind": "integer"},
        {"name": "tags", "side": "item", "kind": "string", "slots": 2, "separator": "|"},
    ]
    tables = {"films": {"path": "films.csv", "key": "item"}}
    values = {
        "name": "shop",
        "fields": fields,
        "label": {"column": "y"},
        "item_key": "item",
        "tables": tables,
    }
    (tmp_path / "films.csv").write_text("item,tags\n1,a|b|c\n2,\n3,b\n4,never\n")
    (tmp_path / "t.csv").write_text(
        "user,item,y\n" + "".join(f"{k % 5},{1 + k % 3},{k % 2}\n" for k in range(60))
    )
    schema, path = tmp_path / "s.yaml", str(tmp_path / "t.csv")
    schema.write_text(yaml.safe_dump(values))
    data = load_dataset("table", schema=str(schema), path=path)
    assert data.vocabulary.keys[2] == ["a", "b"]
    assert data.catalog is not None
    assert [row["tags"] for row in data.catalog.raw] == [["a", "b"], None, ["b"], ["never"]]
    again = {"name": "tag", "side": "item", "kind": "string", "column": "tags"}
    schema.write_text(yaml.safe_dump({**values, "fields": [*fields, again]}))
    with pytest.raises(
        DataError, match="is read by 'tags' and 'tag', one with several values; copy the column"
    ):
        load_dataset("table", schema=str(schema), path=path)
