"""Histories and sequences: worked out by hand, against the plain loop, and blind to the future."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ondevice.data import Dataset, Field, Schema, load_dataset
from ondevice.data.kept import keep_ids, with_unknown
from ondevice.data.sequences import Sequences
from ondevice.errors import UserError
from tests.vocabularies import fitted

from .log import SCHEMA, log, read

# The ratings of conftest.py, each user's by time, those of one time in the order of the file: 1: 1 3 2; 2: 4 1 3 2;
# 3: 2 3 1; 4: 4. Each last one tests, the one before it validates, so training knows the items 1, 2 and 4, of ids
# 2, 3 and 4 (0: the history's own unknown id, which nothing reads; 1: that of items).
ITEMS = [2, 1, 3, 4, 2, 1, 3, 3, 1, 2, 4]
OFFSETS = [0, 3, 7, 10, 11]
DIVISION = [0, 1, 2, 0, 0, 1, 2, 0, 1, 2, 0]


def movielens(folder: Path, **options: Any) -> Dataset:
    return load_dataset(
        "movielens_1m", **{"folder": folder, "fields": "next_item", "split": "leave_last_out", **options}
    )


def known(dataset: Dataset, split: str) -> list[Any]:
    """The known values of the history and the item of each row."""
    rows = dataset.raw_rows(split, range(len(dataset.split(split))))
    return [(row["seen"], row["item"]) for row in rows]


def test_movielens_by_hand(official: Path, own_cache: Path) -> None:
    data = movielens(official)
    assert data.vocabulary.field_offsets.tolist() == [0, 1, 5]
    assert isinstance(data.sequences, Sequences)
    assert isinstance(data.sequences.items, np.memmap)
    assert data.sequences.items.tolist() == ITEMS
    assert data.sequences.offsets.tolist() == OFFSETS
    assert data.sequences.division.tolist() == DIVISION
    assert data.sequences.users is not None
    assert data.sequences.users.tolist() == ["1", "2", "3", "4"]
    dtypes = (data.sequences.items.dtype, data.sequences.offsets.dtype, data.sequences.division.dtype)
    assert dtypes == (np.int32, np.int64, np.uint8)
    train = [(None, 1), (None, 4), ([4], 1), (None, 2), (None, 4)]
    assert sorted(known(data, "train"), key=str) == sorted(train, key=str)
    assert sorted(map(str, known(data, "valid"))) == ["([1], None)", "([2], None)", "([4, 1], None)"]
    assert sorted(map(str, known(data, "test"))) == ["([1], 2)", "([2], 1)", "([4, 1], 2)"]
    assert data.train.ids.shape == (5, 51)
    assert set(data.train.labels.tolist()) == {1}
    # items count where they are rated, their unknown id where nothing was rated before
    assert data.counts.tolist() == [0, 4, 2, 1, 2]
    report = json.loads(next((own_cache / "stores").glob("*/store.json")).read_text())["fields"]
    assert [(each["values"], each["missing"], each["unknown"]) for each in report] == [
        (3, 0.8, 0.0),
        (3, 0.0, 0.0),
    ]
    assert report[0]["cut"] == 0
    row = data.test.ids[int(np.flatnonzero(data.test.ids[:, -2] == 2)[0])]
    assert data.schema.context_columns == tuple(range(50))
    assert row[:48].tolist() == [1] * 48
    assert data.catalog is not None
    assert data.catalog.keys == [1, 2, 3, 4]
    assert data.catalog.titles[0].startswith("Toy Story")


def test_times_are_kept_where_a_history_has_gaps(official: Path) -> None:
    """Those of each row, in the order of the sequences; the gaps of a history change nothing else."""
    plain, data = movielens(official), movielens(official, gaps="until")
    assert plain.sequences is not None
    assert data.sequences is not None
    assert plain.sequences.times is None
    times, rows = data.sequences.times, (official / "ratings.dat").read_text().splitlines()
    assert times is not None
    expected = [float(row.split("::")[3]) for row in rows]
    assert sorted(times.tolist()) == sorted(expected)
    for begin, end in itertools.pairwise(OFFSETS):
        assert times[begin:end].tolist() == sorted(times[begin:end].tolist())
    assert data.sequences.items.tolist() == ITEMS
    assert np.array_equal(data.train.ids, plain.train.ids)
    assert data.fingerprint != plain.fingerprint
    with pytest.raises(UserError, match=r"data.gaps: got until, which a model of the next item reads"):
        movielens(official, fields="history", gaps="until")


def test_a_split_in_time(official: Path) -> None:
    data = movielens(official, split="temporal")
    assert data.sequences is not None
    assert np.bincount(data.sequences.division).tolist() == [len(data.train), len(data.valid), len(data.test)]
    for division in np.split(data.sequences.division, data.sequences.offsets[1:-1]):
        assert (np.diff(division.astype(int)) >= 0).all()
    assert load_dataset("movielens_1m", folder=official, split="temporal").sequences is None


def test_ids_that_are_not_kept_are_unknown_in_sequences(official: Path) -> None:
    data = movielens(official)
    assert data.sequences is not None
    kept = keep_ids(data, with_unknown(data.vocabulary.field_offsets, np.array([2, 4])))
    assert kept.sequences is not None
    assert kept.sequences.items.tolist() == [{2: 2, 4: 3}.get(i, 1) for i in ITEMS]


def with_only(only: str | None) -> dict[str, Any]:
    place, seen, thing = SCHEMA["fields"]  # type: ignore[misc]
    return {**SCHEMA, "fields": [place, {**seen, "only": only} if only else seen, thing]}  # type: ignore[dict-item]


@pytest.mark.parametrize("only", [None, "positive", "negative"])
def test_histories_are_those_of_the_plain_loop(tmp_path: Path, only: str | None) -> None:
    rows = log()
    data = read(tmp_path, rows, with_only(only))
    order = sorted(range(len(rows)), key=lambda i: rows[i][4])
    parts = dict(zip(("train", "valid", "test"), np.split(order, [192, 216]), strict=True))
    trained = {rows[i][2] for i in parts["train"]}
    expected: dict[int, list[str]] = {}
    past: dict[str, list[str]] = {}
    for i in order:
        who, _, thing, liked, _ = rows[i]
        expected[i] = past.get(who, [])[-3:]
        if who and thing in trained and only in (None, "positive" if liked else "negative"):
            past.setdefault(who, []).append(thing)
    expected |= {i: [] for i in order if not rows[i][0]}
    for name, split_rows in parts.items():
        seen = [row["seen"] or [] for row in data.raw_rows(name, range(len(split_rows)))]
        assert seen == [expected[int(i)] for i in split_rows]
    assert data.sequences is not None
    pairs = zip(
        data.sequences.users, np.split(data.sequences.items, data.sequences.offsets[1:-1]), strict=True
    )  # type: ignore[arg-type]
    if only != "negative":  # then they are all rows
        assert {user: [data.vocabulary.raw_of(i) for i in items] for user, items in pairs} == past
    assert data.schema.slots.owners == [0, 2, 2, 2, 2]
    assert data.schema.slots.fields == [0, 1, 1, 1, 2]


def test_shuffling_the_future_changes_no_row(tmp_path: Path) -> None:
    rows = log()
    first = read(tmp_path / "first", rows)
    order = sorted(range(len(rows)), key=lambda i: rows[i][4])
    random = np.random.default_rng(1)
    for number, cut in enumerate((30, 120, 180)):
        changed = [list(row) for row in rows]
        for part in (order[cut:192], order[192:]):  # within a split, so that the vocabulary stays the same
            for i, j in zip(part, random.permutation(part), strict=True):
                changed[i][:4] = rows[j][:4]
        second = read(tmp_path / f"cut{number}", changed)
        assert second.vocabulary == first.vocabulary
        assert np.array_equal(first.train.ids[:cut], second.train.ids[:cut])
        assert not np.array_equal(first.train.ids, second.train.ids)


def test_a_history_of_negatives_is_that_of_their_positive(tmp_path: Path) -> None:
    label = {"positive_only": True, "negatives": 2, "context_key": "who"}
    data = read(tmp_path, log(40), {**SCHEMA, "label": label})
    labels = data.train.labels
    positive = np.maximum.accumulate(np.where(labels == 1, np.arange(len(labels)), 0))
    assert len(labels) > 2 * labels.sum()
    assert np.array_equal(data.train.ids[:, :4], data.train.ids[positive, :4])


def test_raw_histories_become_ids() -> None:
    seen, item = Field("seen", "context", "history", of="item", last=3), Field("item", "item", "integer")
    vocabulary = fitted([seen, item], [[], [5, 7, 9]])
    assert vocabulary.field_offsets.tolist() == [0, 1, 5]
    cases: list[tuple[Any, list[int]]] = [
        (None, [1, 1, 1]),
        ([], [1, 1, 1]),
        ([7], [1, 1, 3]),
        (["5", 6, None, 5.0], [1, 2, 2]),  # unknown ones dropped, repeated ones kept
        ([5, 5, 7, 6, 9], [2, 3, 4]),  # the last three that are known
        (np.array([9, 7]), [1, 4, 3]),
    ]
    for raw, ids in cases:
        assert vocabulary.encode_row({"seen": raw, "item": 5}).tolist() == [*ids, 2]


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no owner": ({"of": "genre"}, "of 'genre' is no field of side item"),
    "nothing it is of": ({"of": None}, "needs of"),
    "a side": ({"side": "item"}, "write side: context"),
    "a column": ({"column": "x"}, "remove column"),
    "a length": ({"last": 0}, "last must be a whole number"),
    "which rows": ({"only": "rated"}, "only must be positive, negative or absent"),
    "gaps": ({"gaps": "seconds"}, "gaps must be since, until or absent"),
    "a pooling": ({"pooling": "max"}, "pooling 'max' is unknown"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_history_that_makes_no_sense_is_refused(name: str) -> None:
    options, message = REFUSED[name]
    seen = {"name": "seen", "side": "context", "kind": "history", "of": "item", **options}
    item = {"name": "item", "side": "item", "kind": "integer"}
    with pytest.raises(UserError, match=message):
        Schema.from_dict({"name": "s", "fields": [seen, item], "label": {"column": "clicked"}})


def test_what_histories_are_made_of_must_be_known(tmp_path: Path) -> None:
    untimed = {key: value for key, value in SCHEMA.items() if key != "split"}
    with pytest.raises(UserError, match=r"history 'seen' needs the time column; add split: \{time: COLUMN\}"):
        read(tmp_path, log(), untimed)
    of_nobody = {key: value for key, value in SCHEMA.items() if key != "user_key"}
    with pytest.raises(UserError, match="nothing says whose rows they are; add user_key"):
        read(tmp_path, log(), of_nobody)
    with pytest.raises(UserError, match="of, last, only and gaps are for histories"):
        Field("item", "item", "integer", last=5)
    with pytest.raises(UserError, match="of, last, only and gaps are for histories"):
        Field("item", "item", "integer", gaps="since")


def test_a_schema_with_a_history_reads_back(tmp_path: Path) -> None:
    schema = Schema.from_dict({key: value for key, value in SCHEMA.items() if key != "split"})
    assert Schema.from_dict(schema.to_dict()) == schema
    assert schema.fields[1].slots == 3
    assert "slots" not in schema.to_dict()["fields"][1]
    assert schema.slots.sources == (0, 2, 2)
    assert [field.name for field in schema.columns] == ["place", "thing", "who"]
