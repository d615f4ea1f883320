"""Every example of docs/data.md reads the table that the page speaks of."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest

from ondevice.data import load_dataset
from ondevice.data.dataset import Dataset
from ondevice.data.parts import Format
from ondevice.data.schema import Label

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "data.md").read_text(encoding="utf-8")
EXAMPLES = dict(re.findall(r"^```yaml\n# (\w+)\.yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))
pytest.importorskip("duckdb", reason="tables are read with duckdb")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONDEVICE_CACHE", str(tmp_path / "cache"))


def load(folder: Path, name: str, path: Any, **options: Any) -> Dataset:
    schema = folder / f"{name}.yaml"
    schema.write_text(EXAMPLES[name])
    return load_dataset("table", schema=schema, path=path, **options)


def test_two_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "clicks.csv"
    path.write_text("user,item\n" + "".join(f"{k % 50},item {k * 7 % 31 % 30}\n" for k in range(1000)))
    data = load(tmp_path, "clicks", path)
    assert len(data.train) == 5 * 800
    said = capsys.readouterr().err
    assert re.search(
        r"clicks: rows train 4,000, valid 500, test 500\n +field +values +missing +unknown +larg", said
    )


def test_histories(tmp_path: Path) -> None:
    rows = ["user,country,film,genre,stars,at"]
    rows += [
        f"u{k % 9},NL,{k * 5 % 23},{'Drama' if k % 2 else 'War'},{k * 7 % 5 + 1},{k // 2}" for k in range(300)
    ]
    path = tmp_path / "visits.csv"
    path.write_text("\n".join(rows) + "\n")
    data = load(tmp_path, "visits", path)
    assert data.schema.names == ("seen", "country", "film", "genre")
    assert data.schema.slots.sources == (2, 1, 2, 3)
    assert len(data.test) == len(data.valid) == 9
    liked = [row.split(",") for row in rows[1:] if row.startswith("u3,") and int(row.split(",")[4]) > 3]
    (last,) = (row for row in data.raw_rows("test", range(9)) if row["film"] == (3 + 9 * 32) * 5 % 23)
    assert last["seen"] == [int(row[2]) for row in liked if row[5] != str((3 + 9 * 32) // 2)][-20:]
    assert data.sequences is not None
    assert len(data.sequences) == 9


def test_several_values_and_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    genres = ["Drama", "War", "Comedy", "Short", "Noir"]
    rows = [
        {
            "user": k % 20,
            "moods": ("calm, dark" if k % 3 else None),
            "item": k % 30,
            "genres": genres[k % 5 :],
            "price": k % 13 / 2,
            "liked": k % 2,
        }
        for k in range(400)
    ]
    path = tmp_path / "shelf.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = load(tmp_path, "shelf", path)
    assert data.train.ids.shape[1] == 1 + 3 + 1 + 4 + 1
    assert data.vocabulary.keys[1] == ["calm", "dark"]
    assert len(data.schema.fields[4].boundaries or ()) == 7
    assert "80 rows have more values than slots" in capsys.readouterr().err
    row = re.search(r"^bundle\.score\((\{.*\})\)$", PAGE, re.MULTILINE)
    assert row is not None
    ids = data.vocabulary.encode_row(json.loads(row[1]))
    assert (ids != data.vocabulary.field_offsets[data.schema.slots.fields]).sum() == 1 + 2 + 1 + 2 + 1


def test_odd_text(tmp_path: Path) -> None:
    lines = ["made by hand\n", "user\ttitle\toutcome\tamount\n"]
    lines += [
        f'{"NA" if k % 9 == 0 else k % 7}\t"Café {k % 5}\t{"bought" if k % 3 else "seen"}\t{k % 4}\n'
        for k in range(200)
    ]
    path = tmp_path / "odd.tsv"
    path.write_bytes("".join(lines).encode("latin-1"))
    data = load(tmp_path, "odd", path)
    assert list(data.vocabulary.keys[1]) == [f'"Café {k}' for k in range(5)]
    assert data.train.weights is not None
    assert len(data.train) + len(data.valid) + len(data.test) == 200
    for key in re.findall(
        r"^\| `(\w+)` \|", PAGE.split("## How text is written")[1].split("## ")[0], re.MULTILINE
    ):
        assert key == "format" or key in Format.__dataclass_fields__


def test_a_lake(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    for day in range(1, 6):
        folder = tmp_path / "lake" / f"day=2024-01-0{day}" / "shop=Oslo"
        folder.mkdir(parents=True)
        table = {
            "user": pa.array([bytes([k % 9] * 8) for k in range(40)], pa.binary(8)),
            "item": pa.array([k % 7 for k in range(40)], pa.uint64()),
            "price": pa.array([k % 7 + 1 for k in range(40)]).cast(pa.decimal128(21, 2)),
            "bought": [k % 2 == 0 for k in range(40)],
        }
        pq.write_table(pa.table(table), folder / "part-0.parquet")
        pq.write_table(pa.table(table).slice(0, 0), folder / "part-1.parquet")
        (folder / "_SUCCESS").write_text("")
    for options in ({}, {"streamed": True, "workers": 1}):
        data = load(tmp_path, "lake", tmp_path / "lake", **options)
        assert [len(data.split(name)) for name in ("train", "valid", "test")] == [120, 40, 40]
        assert data.vocabulary.keys[0][0] == "00" * 8
        assert list(data.vocabulary.keys[1]) == ["Oslo"]


def test_three_tables(tmp_path: Path) -> None:
    (tmp_path / "films.csv").write_text(
        "film,year,name\n" + "".join(f"{k},{1990 + k},Film {k}\n" for k in range(9))
    )
    people = "\n".join(json.dumps({"user": str(k), "country": "no"}) for k in range(8))
    (tmp_path / "people.jsonl").write_text(people)
    ratings = "user,item,stars\n" + "".join(f"{k % 9},{k % 7},{k % 5 + 1}\n" for k in range(300))
    path = tmp_path / "ratings.csv.gz"
    path.write_bytes(gzip.compress(ratings.encode()))
    data = load(tmp_path, "joined", path)
    assert data.catalog is not None
    assert dict(zip(data.catalog.keys, data.catalog.titles, strict=True)) == {
        k: f"Film {k}" for k in range(9)
    }
    assert list(data.vocabulary.keys[1]) == ["no"]


def test_the_rules_for_labels_are_rules() -> None:
    import yaml

    table = PAGE.split("## Labels")[1].split("## ")[0]
    rules = re.findall(r"^\| [^|`]+ \| `(\{.*?\})`", table, re.MULTILINE)
    assert len(rules) == 4
    for rule in rules:
        Label(**yaml.safe_load(rule))


def test_the_splits_are_splits() -> None:
    import yaml

    from ondevice.data.spec import Split

    table = PAGE.split("## Which rows train")[1].split("## ")[0]
    rules = re.findall(r"^\| `(\{kind.*?\})`", table, re.MULTILINE)
    assert len(rules) == 4
    for rule in rules:
        Split(**yaml.safe_load(rule))
