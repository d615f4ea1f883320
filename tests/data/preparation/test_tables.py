"""Parquet folders through a table's YAML file: what `table` makes in memory, streamed."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from ondevice.data import Dataset, load_dataset, read
from ondevice.errors import UserError

pa = pytest.importorskip("pyarrow", reason="Parquet is read with pyarrow")
pq = pytest.importorskip("pyarrow.parquet", reason="Parquet is read with pyarrow")

SCHEMA: dict[str, Any] = {
    "name": "shop",
    "fields": [
        {"name": "user", "side": "context", "kind": "integer", "min_count": 2},
        {"name": "city", "side": "context", "kind": "string", "min_count": 3},
        {"name": "age", "side": "context", "kind": "integer", "transform": "log_bucket"},
        {"name": "item", "side": "item", "kind": "string", "column": "sku"},
        {"name": "code", "side": "item", "kind": "integer", "transform": "hex", "column": "code"},
    ],
    "label": {"column": "stars", "positive_above": 3, "drop": [3], "minimum": 1, "maximum": 5},
    "item_key": "item",
    "split": {"kind": "temporal", "time": "at", "fractions": [0.6, 0.2, 0.2]},
}


def rows(number: int, seed: int = 0) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    cities = np.array(["Köln", "Oslo", "", "Rome", "Bern"])[random.integers(0, 5, number)]
    start = datetime.datetime(2024, 1, 1)
    return {
        "user": pa.array(random.integers(0, 30, number), mask=random.random(number) < 0.1),
        "city": pa.array(cities).dictionary_encode(),
        "age": pa.array(random.random(number) * 90),
        "sku": pa.array([None if i == 7 else f"sku-{i}" for i in random.integers(0, 40, number).tolist()]),
        "code": pa.array([f"{i:08x}" for i in random.integers(0, 9, number).tolist()]),
        "stars": pa.array(random.integers(1, 6, number)),
        "at": pa.array([start + datetime.timedelta(hours=int(h)) for h in random.integers(0, 50, number)]),
        "unused": pa.array([[1, 2]] * number),
    }


@pytest.fixture
def schema(tmp_path: Path) -> Path:
    path = tmp_path / "shop.schema.yaml"
    path.write_text(yaml.safe_dump(SCHEMA, sort_keys=False))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two files of 700 and 300 rows in row groups of 250."""
    folder = tmp_path / "shop"
    folder.mkdir()
    for number, (name, size) in enumerate((("a.parquet", 700), ("b.parquet", 300))):
        pq.write_table(pa.table(rows(size, number)), folder / name, row_group_size=250)
    return folder


def same(a: Dataset, b: Dataset) -> bool:
    parts = ("train", "valid", "test")
    return (
        a.vocabulary == b.vocabulary
        and np.array_equal(a.counts, b.counts)
        and all(np.array_equal(np.sort(a.split(s).ids, 0), np.sort(b.split(s).ids, 0)) for s in parts)
        and all(a.split(s).labels.sum() == b.split(s).labels.sum() for s in parts)
    )


@pytest.mark.parametrize("chunk_rows", [1 << 16, 64])
@pytest.mark.usefixtures("inline")
def test_by_time_it_is_the_table_in_memory(
    schema: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, chunk_rows: int
) -> None:
    """The same rows in every split; they are in the order of the files, not of time."""
    monkeypatch.setattr(read, "CHUNK_ROWS", chunk_rows)
    expected = load_dataset("table", schema=schema, path=folder)
    result = load_dataset("table", schema=schema, path=folder, streamed=True)
    assert result.fingerprint != expected.fingerprint
    assert same(result, expected)
    assert len(result.train) == len(expected.train)
    assert result.catalog is not None
    assert expected.catalog is not None
    assert result.catalog.raw == expected.catalog.raw
    assert result.catalog.ids.tolist() == expected.catalog.ids.tolist()
    raw = result.raw_rows("train", [0])[0]
    assert result.vocabulary.encode_row(raw).tolist() == result.train.ids[0].tolist()


@pytest.mark.usefixtures("inline")
def test_at_random_all_rows_are_there(schema: Path, folder: Path) -> None:
    expected = load_dataset("table", schema=schema, path=folder, fractions=(0.8, 0.1, 0.1))
    result = load_dataset(
        "table", schema=schema, path=folder, streamed=True, split="random", fractions=(0.8, 0.1, 0.1)
    )
    sizes = [len(result.split(s)) for s in ("train", "valid", "test")]
    assert sum(sizes) == sum(len(expected.split(s)) for s in ("train", "valid", "test"))
    assert np.abs(np.array(sizes) / sum(sizes) - [0.8, 0.1, 0.1]).max() < 0.06


@pytest.mark.usefixtures("inline")
def test_only_the_first_rows(schema: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read, "CHUNK_ROWS", 64)
    result = load_dataset("table", schema=schema, path=folder, streamed=True, max_rows=710)
    stars = np.concatenate([rows(700, 0)["stars"].to_numpy(), rows(300, 1)["stars"].to_numpy()[:10]])
    assert sum(len(result.split(s)) for s in ("train", "valid", "test")) == (stars != 3).sum()


@pytest.mark.usefixtures("inline")
def test_a_bad_row_is_named_or_left_out(schema: Path, folder: Path) -> None:
    table = rows(300, 5)
    for name, values in (("stars", table["stars"].to_pylist()), ("at", table["at"].to_pylist())):
        values[260] = None if name == "at" else 9
        pq.write_table(pa.table({**table, name: pa.array(values)}), folder / "b.parquet", row_group_size=250)
        with pytest.raises(UserError) as caught:
            load_dataset("table", schema=schema, path=folder, streamed=True)
        trouble = {"stars": "label 'stars' is 9, outside 1 to 5", "at": "time None is neither a number nor"}[
            name
        ]
        assert f"{folder / 'b.parquet'}:261: {trouble}" in str(caught.value)
        data = load_dataset("table", schema=schema, path=folder, streamed=True, bad_rows="skip")
        assert data.skipped_rows == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s["fields"][0].update(column="usr"), "no column 'usr' (did you mean 'user'?"),
        (lambda s: s["fields"][0].update(column="unused"), "column 'unused' is of type list<"),
        (lambda s: s["split"].update(time="then"), "no column 'then'"),
    ],
    ids=["column", "nested", "time"],
)
@pytest.mark.usefixtures("inline")
def test_what_cannot_be_streamed(schema: Path, folder: Path, change: Any, message: str) -> None:
    values = yaml.safe_load(yaml.safe_dump(SCHEMA))
    change(values)
    schema.write_text(yaml.safe_dump(values))
    with pytest.raises(UserError) as caught:
        load_dataset("table", schema=schema, path=folder, streamed=True)
    assert message in str(caught.value)


@pytest.mark.usefixtures("inline")
def test_other_files(schema: Path, folder: Path) -> None:
    whole = (folder / "a.parquet").read_bytes()
    (folder / "a.parquet").write_bytes(whole[:-10])
    with pytest.raises(UserError, match=r"a\.parquet: not a whole Parquet file"):
        load_dataset("table", schema=schema, path=folder, streamed=True)
    (folder / "a.parquet").write_bytes(whole[:4] + bytes(200) + whole[204:])
    with pytest.raises(UserError, match=r"a\.parquet: not a whole Parquet file"):
        load_dataset("table", schema=schema, path=folder, streamed=True)
    for name in ("a.parquet", "b.parquet"):
        pq.write_table(pa.table(rows(0)), folder / name)
    with pytest.raises(UserError, match=r"a\.parquet: holds no rows"):
        load_dataset("table", schema=schema, path=folder, streamed=True)


def positives(values: dict[str, Any]) -> None:
    values["label"] = {"positive_only": True, "negatives": 2, "context_key": "user"}
    values["split"] = {"kind": "temporal", "time": "at"}


CHANGES = {
    "negatives": positives,
    "origin": lambda values: values["fields"][2].update(origin=None, min_count=2, missing=-1),
    "last out": lambda values: values["split"].update(kind="leave_last_out", user="user"),
    "history": lambda values: (
        values.update(user_key="user"),
        values["fields"].append(
            {"name": "seen", "side": "context", "kind": "history", "of": "item", "last": 3}
        ),
    ),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.usefixtures("inline")
def test_what_needs_all_rows_at_once_is_streamed_too(
    schema: Path, folder: Path, change: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same whatever the size of the chunks, and of the same values as in memory."""
    values = yaml.safe_load(yaml.safe_dump(SCHEMA))
    change(values)
    schema.write_text(yaml.safe_dump(values))
    expected = load_dataset("table", schema=schema, path=folder)
    results = []
    for chunk_rows, workers in ((64, 1), (1 << 16, 2)):
        monkeypatch.setattr(read, "CHUNK_ROWS", chunk_rows)
        results.append(
            load_dataset(
                "table", schema=schema, path=folder, streamed=True, workers=workers, seed=workers - 1
            )
        )
    for name in ("train", "valid", "test"):
        positive = [data.split(name).labels == 1 for data in (results[0], expected)]
        ids = [
            data.split(name).ids[keep] for data, keep in zip((results[0], expected), positive, strict=True)
        ]
        assert sorted(ids[0].tolist()) == sorted(ids[1].tolist())
    assert results[0].schema == expected.schema
    assert results[0].vocabulary == expected.vocabulary == results[1].vocabulary
    if change is not positives:  # which negatives are drawn depends on the order of the rows
        assert np.array_equal(results[0].counts, expected.counts)
        for name in ("train", "valid", "test"):
            assert np.array_equal(results[0].split(name).ids, results[1].split(name).ids)
    for data in results:
        assert data.catalog is not None
        assert expected.catalog is not None
        assert data.catalog.raw == expected.catalog.raw


def test_in_processes_of_its_own(schema: Path, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    expected = load_dataset("table", schema=schema, path=folder)
    assert same(load_dataset("table", schema=schema, path=folder, streamed=True, workers=2), expected)
    assert "Warning" not in capfd.readouterr().err
