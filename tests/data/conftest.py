"""A MovieLens of a dozen ratings in each published layout, and a cache of each test's own."""

from __future__ import annotations

from pathlib import Path

import pytest

# (user, item, rating, time): one rating of 3 (dropped), a tie in time, values that only the last rows have.
RATINGS = [
    (1, 1, 5, 1000),
    (2, 4, 3, 900),
    (2, 1, 4, 1004),
    (2, 3, 1, 1005),
    (1, 3, 2, 1006),
    (3, 2, 2, 1010),
    (3, 3, 5, 1100),
    (3, 1, 1, 1100),
    (1, 2, 4, 1100),
    (2, 2, 5, 2000),
    (4, 4, 2, 3000),
]
# (user, gender, age, occupation, zip)
USERS = [
    (1, "F", 1, 10, "48067"),
    (2, "M", 56, 16, "02460"),
    (3, "M", 25, 15, "55117-1234"),
    (4, "F", 25, 10, "99999"),
]
# (item, title, year, genres); the genres of the second are not in alphabetical order
ITEMS = [
    (1, "Toy Story", 1995, ["Animation", "Children's", "Comedy"]),
    (2, "Jumanji", 1995, ["Fantasy", "Adventure"]),
    (3, "Misérables, Les", 1996, ["Action"]),
    (4, "Cérémonie, La", 1990, ["Drama"]),
    (5, "Nobody's Film", 1999, ["Drama"]),
]


def write_official(folder: Path) -> Path:
    """ratings.dat, users.dat, movies.dat, as in the official archive."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = {
        "ratings.dat": ["::".join(map(str, row)) for row in RATINGS],
        "users.dat": ["::".join(map(str, row)) for row in USERS],
        "movies.dat": [f"{i}::{title} ({year})::{'|'.join(genres)}" for i, title, year, genres in ITEMS],
    }
    for name, lines in rows.items():
        (folder / name).write_bytes("".join(line + "\n" for line in lines).encode("latin-1"))
    return folder


def write_atomic(folder: Path) -> Path:
    """ml-1m.inter, .user and .item, with movies named by title and columns in the package's order."""
    folder.mkdir(parents=True, exist_ok=True)
    title = {item: f"{name} ({year})" for item, name, year, _ in ITEMS}
    rows = {
        "ml-1m.inter": ["user_id:token\titem_id:token\trating:float\ttimestamp:float"]
        + [f"1m_{user}\t{title[item]}\t{rating}\t{time}" for user, item, rating, time in RATINGS],
        "ml-1m.user": ["user_id:token\tage:float\tgender:token\toccupation:float\tzip_code:token"]
        + [f"1m_{user}\t{age}\t{gender}\t{job}\t{zip_code}" for user, gender, age, job, zip_code in USERS],
        "ml-1m.item": ["item_id:token\tmovie_title:token\trelease_year:float\tgenre:token"]
        + [f"{title[item]}\t{name}\t{year}\t{' '.join(genres)}" for item, name, year, genres in ITEMS],
    }
    for name, lines in rows.items():
        (folder / name).write_bytes("".join(line + "\r\n" for line in lines).encode())
    return folder


@pytest.fixture
def real_cache(session_cache: Path) -> Path:
    """The session's, which has the public data sets of whoever runs the tests."""
    return session_cache


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache that nothing else uses."""
    cache = tmp_path / "cache"
    monkeypatch.setenv("ONDEVICE_CACHE", str(cache))
    return cache


@pytest.fixture
def official(tmp_path: Path) -> Path:
    return write_official(tmp_path / "official")


@pytest.fixture
def atomic(tmp_path: Path) -> Path:
    return write_atomic(tmp_path / "atomic")
