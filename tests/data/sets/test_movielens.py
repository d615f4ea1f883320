"""MovieLens in each layout against ids and labels worked out by hand, and the published sizes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ondevice.data import load_dataset
from ondevice.data.dataset import Dataset
from ondevice.data.sets import movielens
from ondevice.data.sets.movielens_files import age_group, official_number
from ondevice.data.sources import is_cached
from ondevice.errors import UserError

from ..conftest import ITEMS, RATINGS, USERS

# Of the kept ratings of conftest.py by time, then user, then item, 8 train, 1 validates, 1 tests.
# Ids per field (unknown first): user 0-3, gender 4-6 (F, M), age 7-10 (1, 25, 56), occupation 11-14 (10, 15,
# 16), zip 15-18 (02460, 48067, 55117-1234), time 19-24 (buckets 1, 2, 3, 5, 21), item 25-28 (1, 2, 3),
# year 29-31 (1995, 1996), genre 32-35 (Action, Adventure|Fantasy, Animation|Children's|Comedy).
# Seconds since the first training rating: 0 4 5 6 10 100 100 100 -> buckets 1 1 2 3 5 21 21 21; the later
# ones 1000 and 2000 -> 47 and 57 are unknown, as are user 4, zip 99999, item 4, 1990 and Drama.
TRAIN_IDS = [
    [1, 5, 8, 12, 17, 20, 26, 30, 35],
    [2, 6, 10, 14, 16, 20, 26, 30, 35],
    [2, 6, 10, 14, 16, 21, 28, 31, 33],
    [1, 5, 8, 12, 17, 22, 28, 31, 33],
    [3, 6, 9, 13, 18, 23, 27, 30, 34],
    [1, 5, 8, 12, 17, 24, 27, 30, 34],
    [3, 6, 9, 13, 18, 24, 26, 30, 35],
    [3, 6, 9, 13, 18, 24, 28, 31, 33],
]
TRAIN_LABELS = [1, 1, 0, 0, 0, 1, 0, 1]
VALID_IDS = [[2, 6, 10, 14, 16, 19, 27, 30, 34]]
TEST_IDS = [[0, 5, 9, 12, 15, 19, 25, 29, 32]]


@pytest.fixture(params=["official", "atomic"])
def folder(request: pytest.FixtureRequest) -> Path:
    path: Path = request.getfixturevalue(request.param)
    return path


def tiny(folder: Path, **options: object) -> Dataset:
    return load_dataset("movielens_1m", **{"folder": folder, "split": "temporal", **options})


def test_ids_and_labels_by_hand(folder: Path) -> None:
    data = tiny(folder)
    assert data.schema.names == (
        "user",
        "gender",
        "age",
        "occupation",
        "zip",
        "time",
        "item",
        "year",
        "genre",
    )
    assert data.vocabulary.field_offsets.tolist() == [0, 4, 7, 11, 15, 19, 25, 29, 32, 36]
    assert data.train.ids.tolist() == TRAIN_IDS
    assert data.train.labels.tolist() == TRAIN_LABELS
    assert data.valid.ids.tolist() == VALID_IDS
    assert data.test.ids.tolist() == TEST_IDS
    assert [data.valid.labels.tolist(), data.test.labels.tolist()] == [[1], [0]]
    assert data.train.ids.dtype == np.int32
    assert data.train.labels.dtype == np.uint8
    assert isinstance(data.train.ids, np.memmap)
    assert len(data.train) == 8
    assert data.counts.tolist() == np.bincount(np.ravel(TRAIN_IDS), minlength=36).tolist()


def test_origin_is_learnt_on_the_kept_training_rows(folder: Path) -> None:
    fields = {field.name: field for field in tiny(folder).schema.fields}
    assert fields["time"].origin == 1000  # not 900, the time of a dropped rating


def test_raw_rows(folder: Path) -> None:
    data = tiny(folder)
    rows = data.raw_rows("train", [2, 0])
    time = rows[0].pop("time")
    assert rows[0] == {
        **{"user": 2, "gender": "M", "age": 56, "occupation": 16, "zip": "02460", "item": 3, "year": 1996},
        "genre": "Action",
    }
    assert isinstance(time, int)
    for split in ("train", "valid", "test"):
        every = np.arange(len(data.split(split)))
        again = [data.vocabulary.encode_row(row).tolist() for row in data.raw_rows(split, every)]
        assert again == data.split(split).ids.tolist()
    assert data.raw_rows("test", [0])[0]["user"] is None


def test_catalog_holds_every_rated_item(folder: Path) -> None:
    catalog = tiny(folder).catalog
    assert catalog is not None
    assert catalog.keys == [1, 2, 3, 4]
    assert catalog.ids.tolist() == [[26, 30, 35], [27, 30, 34], [28, 31, 33], [25, 29, 32]]
    assert catalog.ids.dtype == np.int32
    assert catalog.titles == [
        "Toy Story (1995)",
        "Jumanji (1995)",
        "Misérables, Les (1996)",
        "Cérémonie, La (1990)",
    ]
    assert catalog.raw[1] == {"item": 2, "year": 1995, "genre": "Adventure|Fantasy"}


def test_field_sets(folder: Path) -> None:
    paper, serve = tiny(folder, fields="paper"), tiny(folder, fields="serve")
    assert paper.schema.names == ("time", "gender", "age", "occupation", "zip", "year", "genre")
    assert paper.catalog is None
    assert serve.schema.names == ("user", "gender", "age", "occupation", "zip", "item", "year", "genre")
    assert serve.schema.context_fields == (0, 1, 2, 3, 4)
    assert serve.train.ids[0].tolist() == [1, 5, 8, 12, 17, 20, 24, 29]
    assert paper.train.ids[0].tolist() == [1, 7, 10, 14, 19, 22, 27]


def test_subsample(folder: Path) -> None:
    data = tiny(folder, max_rows=5, fractions=(0.6, 0.2, 0.2))
    assert [len(data.train), len(data.valid), len(data.test)] == [3, 1, 1]
    assert data.catalog is not None
    assert len(data.catalog) == 4


def replace_in(path: Path, old: str, new: str, encoding: str = "latin-1") -> None:
    text = path.read_bytes().decode(encoding)
    assert text.count(old) == 1
    path.write_bytes(text.replace(old, new).encode(encoding))


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        (
            "ratings.dat",
            "2::3::1::1005",
            "2::3::6::1005",
            "ratings.dat:4: label 'rating' is '6', outside 1 to 5",
        ),
        (
            "ratings.dat",
            "2::3::1::1005",
            "2::3::x::1005",
            "ratings.dat:4: label 'rating' is not a number: 'x'",
        ),
        ("ratings.dat", "2::3::1::1005", "2::3::1", "ratings.dat:4: 3 columns where 4"),
        ("ratings.dat", "2::3::1::1005", "9::3::1::1005", "ratings.dat:4: user '9' is not in the user file"),
        ("ratings.dat", "2::3::1::1005", "2::9::1::1005", "ratings.dat:4: item '9' is not in the item file"),
        (
            "ratings.dat",
            "2::3::1::1005",
            "2::3::1::soon",
            "ratings.dat:4: timestamp 'soon' is not a whole number",
        ),
        ("users.dat", "2::M::56", "2::M::old", "users.dat:2: age 'old' is not a whole number"),
        ("users.dat", "2::M::56", "u::M::56", "users.dat:2: user 'u' is not a whole number"),
        ("movies.dat", "2::Jumanji", "x::Jumanji", "movies.dat:2: movie 'x' is not a whole number"),
    ],
)
def test_bad_rows_are_named(official: Path, file: str, old: str, new: str, message: str) -> None:
    replace_in(official / file, old, new)
    with pytest.raises(UserError, match=message) as caught:
        tiny(official)
    assert "data.folder=PATH" in str(caught.value)


def test_empty_files_and_bad_headers(official: Path, atomic: Path) -> None:
    (official / "ratings.dat").write_text("")
    with pytest.raises(UserError, match=r"ratings.dat: holds no rows"):
        tiny(official)
    replace_in(atomic / "ml-1m.user", "gender:token", "sex:token", "utf-8")
    with pytest.raises(UserError, match=r"ml-1m.user:1: no column 'gender'"):
        tiny(atomic)


def test_undecodable_bytes_are_named(atomic: Path) -> None:
    path = atomic / "ml-1m.item"
    path.write_bytes(path.read_bytes().replace("é".encode(), b"\xe9"))
    with pytest.raises(UserError, match=r"ml-1m.item:4: bytes that cannot be decoded"):
        tiny(atomic)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fields": "papr"}, "data.fields: 'papr' is unknown .did you mean 'paper'"),
        ({"splt": "random"}, "data.splt: data set 'movielens_1m' has no such option .did you mean 'split'"),
        ({"split": "time"}, "data.split: 'time' is unknown"),
    ],
)
def test_misspelt_options(official: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        tiny(official, **options)


def test_misspelt_data_set() -> None:
    with pytest.raises(UserError, match=r"unknown data set 'movielens_1M'.*did you mean 'movielens_1m'"):
        load_dataset("movielens_1M")


def test_100k_layouts_agree(tmp_path: Path) -> None:
    """The two layouts of MovieLens-100k: years of age to age groups, occupations in words."""
    published, package = tmp_path / "published", tmp_path / "package"
    for folder in (published, package):
        folder.mkdir()
    flags = [
        "unknown",
        "Action",
        "Adventure",
        "Animation",
        "Children's",
        "Comedy",
        "Crime",
        "Documentary",
        "Drama",
    ]
    flags += [
        "Fantasy",
        "Film-Noir",
        "Horror",
        "Musical",
        "Mystery",
        "Romance",
        "Sci-Fi",
        "Thriller",
        "War",
        "Western",
    ]
    ages, jobs = {1: 17, 2: 60, 3: 34, 4: 25}, {10: "writer", 15: "other", 16: "none"}
    lines: dict[Path, list[str]] = {
        published / "u.data": ["\t".join(map(str, row)) for row in RATINGS],
        published / "u.user": [
            f"{u}|{ages[u]}|{sex}|{jobs[job]}|{zip_code}" for u, sex, _, job, zip_code in USERS
        ],
        published / "u.item": [
            f"{i}|{title} ({year})|01-Jan-{year}||http://x|"
            + "|".join(str(int(flag in genres)) for flag in flags)
            for i, title, year, genres in ITEMS
        ],
        package / "ml-100k.inter": ["user_id:token\titem_id:token\trating:float\ttimestamp:float"]
        + ["\t".join(map(str, row)) for row in RATINGS],
        package / "ml-100k.user": ["user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token"]
        + [f"{u}\t{ages[u]}\t{sex}\t{jobs[job]}\t{zip_code}" for u, sex, _, job, zip_code in USERS],
        package / "ml-100k.item": [
            "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq"
        ]
        + [f"{i}\t{title}\t{year}\t{' '.join(genres)}" for i, title, year, genres in ITEMS],
    }
    for path, rows in lines.items():
        encoding = "latin-1" if path.parent == published else "utf-8"
        path.write_bytes("".join(row + "\n" for row in rows).encode(encoding))
    first, second = (
        load_dataset("movielens_100k", folder=folder, split="temporal") for folder in (published, package)
    )
    assert first.vocabulary == second.vocabulary
    assert first.raw_rows("train", [1])[0]["occupation"] == "none"
    assert [first.raw_rows("train", [row])[0]["age"] for row in (0, 1, 4)] == [1, 56, 25]
    # Age groups and occupations have the same order as in the table above, but occupations sort as words.
    swap = {12: 14, 13: 13, 14: 12, 11: 11}
    expected = [[*row[:3], swap[row[3]], *row[4:]] for row in TRAIN_IDS]
    assert first.train.ids.tolist() == expected
    assert second.train.ids.tolist() == expected
    assert first.catalog is not None
    assert second.catalog is not None
    assert first.catalog.titles == second.catalog.titles


@pytest.mark.parametrize(
    ("age", "group"), [(7, 1), (17, 1), (18, 18), (24, 18), (25, 25), (49, 45), (50, 50), (99, 56)]
)
def test_age_groups(age: int, group: int) -> None:
    assert age_group(age) == group


@pytest.mark.parametrize(
    # 91 and 221 are the first numbers that no movie has, 3815 the last; 3,883 movies end at 3952.
    ("position", "number"),
    [(1, 1), (90, 90), (91, 92), (219, 220), (220, 222), (3746, 3814), (3747, 3816), (3883, 3952)],
)
def test_official_numbers(position: int, number: int) -> None:
    assert official_number(position) == number


def real(name: str, real_cache: Path, monkeypatch: pytest.MonkeyPatch, **options: object) -> Dataset:
    """The published data set; the test is skipped where it is not cached and there is no network."""
    monkeypatch.setenv("ONDEVICE_CACHE", str(real_cache))
    source = movielens.SOURCE_1M if name == "movielens_1m" else movielens.SOURCE_100K
    cached = is_cached(source)
    try:
        return load_dataset(name, **options)
    except UserError as error:
        if cached or not str(error).startswith(f"cannot get {name}"):
            raise
        pytest.skip(f"{name} is not in the cache and cannot be downloaded: {error}")


def test_the_published_1m(real_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = real("movielens_1m", real_cache, monkeypatch)
    assert len(data.train) + len(data.valid) + len(data.test) == 739_012
    assert [len(data.train), len(data.valid), len(data.test)] == [591_210, 73_901, 73_901]
    assert (
        int(data.train.labels.sum()) + int(data.valid.labels.sum()) + int(data.test.labels.sum()) == 575_281
    )
    assert data.catalog is not None
    assert len(data.catalog) == 3706
    assert data.catalog.keys[-1] == 3952
    assert data.catalog.raw[0] == {"item": 1, "year": 1995, "genre": "Animation|Children's|Comedy"}
    assert data.catalog.titles[-1] == "Contender, The (2000)"
    assert len(data.vocabulary.keys[0]) == 6040
    assert data.raw_rows("train", range(3)) == data.raw_rows("train", [0, 1, 2])
    rows = data.raw_rows("test", range(50))
    assert [data.vocabulary.encode_row(row).tolist() for row in rows] == data.test.ids[:50].tolist()
    paper = real("movielens_1m", real_cache, monkeypatch, fields="paper")
    # The PEP paper's code has 4,129 features; each field has an unknown id besides.
    assert paper.vocabulary.num_embeddings - len(paper.schema.fields) == 4129


def test_the_published_1m_by_time(real_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = real("movielens_1m", real_cache, monkeypatch, split="temporal")
    newest = data.schema.names.index("time")
    assert data.train.ids[:, newest].max() == data.vocabulary.field_offsets[newest + 1] - 1
    users = [set(np.unique(split.ids[:, 0]).tolist()) - {0} for split in (data.train, data.test)]
    assert len(users[1]) < len(users[0]) < 6040  # many users never come back, and some come late


def test_the_published_100k(real_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = real("movielens_100k", real_cache, monkeypatch)
    assert len(data.train) + len(data.valid) + len(data.test) == 72_855
    assert data.catalog is not None
    assert len(data.catalog) == 1682
    assert len(data.vocabulary.keys[0]) == 943
