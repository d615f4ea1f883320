"""Readers of MovieLens files: the official ones and RecBole's atomic files, to the same raw values.

Values: user and item are the official whole numbers, age the first year of MovieLens-1M's age group,
gender F or M, zip a text, year the release year, genre the genres in alphabetical order joined by ``|``.
Occupation is the official code 0-20 in MovieLens-1M and a word in MovieLens-100k.

The MovieLens-1M files of the pinned package name movies by title in the place of numbers, in the official
order; the official numbers are recovered from that order and `ABSENT_MOVIES`. Where a file names movies so
but is not the whole list, movies are numbered the same way in the order of the file, which then is no
official number. With that both layouts give the same values, and so the same ids and splits, for every
rated movie; only the spelling of a few titles differs.
"""

from __future__ import annotations

import bisect
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ondevice.data.interactions import Column, Factorizer, Interactions
from ondevice.data.parts import BadRows
from ondevice.data.schema import Label
from ondevice.errors import DataError

WAY_OUT = "the file differs from the published one: get it again, or name another folder (data.folder=PATH)"

# Numbers below 3952 that no movie of MovieLens-1M has.
_ABSENT = (
    "91 221 323 622 646 677 686 689 740 817 883 995 1048 1072 1074 1182 1195 1229 1239 1338 1402 1403 "
    "1418 1435 1451 1452 1469 1478 1481 1491 1492 1505 1506 1512 1521 1530 1536 1540 1560 1576 1607 1618 "
    "1634 1637 1638 1691 1700 1712 1736 1737 1745 1751 1761 1763 1766 1775 1778 1786 1790 1800 1802 1803 "
    "1808 1813 1818 1823 1828 1838 3815 "
)
ABSENT_MOVIES = tuple(map(int, _ABSENT.split()))
AGES = (1, 18, 25, 35, 45, 50, 56)
_GENRES = (
    "unknown Action Adventure Animation Children's Comedy Crime Documentary Drama Fantasy Film-Noir "
    "Horror Musical Mystery Romance Sci-Fi Thriller War Western "
)
GENRES_100K = tuple(_GENRES.split())

CHUNK_ROWS = 1 << 16

_YEAR = re.compile(r"\(([0-9]{4})\)\s*$")
_ATOMIC_YEAR = re.compile(r"([0-9]{4})(?:\.0*)?")  # a movie without a year has a word there
_USER = re.compile(r"(?:[A-Za-z0-9]+_)?([0-9]+)")


@dataclass(frozen=True)
class Tables:
    """Users and items by the key that the ratings file uses for them."""

    users: dict[str, dict[str, Any]]
    items: dict[str, dict[str, Any]]
    titles: dict[int, str]


@dataclass(frozen=True)
class Ratings:
    """Where the ratings are in a file: its cells by position."""

    path: Path
    separator: str
    num_columns: int
    encoding: str
    skip_lines: int
    user: int
    item: int
    rating: int
    time: int


def read_movielens(folder: Path, files: tuple[str, ...], label: Label) -> Interactions:
    """The rated rows that the label rule keeps, with every field MovieLens has.

    Args:
        folder: where the files are.
        files: ratings, users and items, in this order, in one of the three layouts.

    Raises: DataError: for a row that cannot be used, with its file and line.
    """
    ratings_path, users_path, items_path = (folder / name for name in files)
    ratings, tables = _LAYOUTS[ratings_path.suffix](ratings_path, users_path, items_path)
    users, items, times = Factorizer(), Factorizer(), Factorizer()
    label_of = _LabelCodes(label)
    labels, kept = [], []
    rated: dict[str, None] = {}
    bad = BadRows(way_out=WAY_OUT)
    for chunk in _chunks(ratings):
        user, item = chunk.columns[ratings.user], chunk.columns[ratings.item]
        codes = np.fromiter(map(label_of.__getitem__, chunk.columns[ratings.rating]), np.uint8, len(chunk))
        if label_of.wrong:
            _report(chunk, ratings.path, chunk.columns[ratings.rating], label_of.wrong, bad)
        for name, column, table in (("user", user, tables.users), ("item", item, tables.items)):
            absent = set(column).difference(table)
            if absent:
                _report(
                    chunk,
                    ratings.path,
                    column,
                    {key: f"{name} '{key}' is not in the {name} file" for key in absent},
                    bad,
                )
        users.add(user)
        items.add(item)
        times.add(chunk.columns[ratings.time])
        rated.update(dict.fromkeys(item))
        labels.append(codes)
        kept.append(codes != _LabelCodes.DROP)
    label_codes, keep = np.concatenate(labels), np.concatenate(kept)
    rows = np.flatnonzero(keep)
    user_column, item_column = users.column().take(rows), items.column().take(rows)
    columns = {"user": user_column.mapped(lambda key: tables.users[key]["user"])}
    for name in ("gender", "age", "occupation", "zip"):
        columns[name] = user_column.mapped(lambda key, name=name: tables.users[key][name])  # type: ignore[misc]
    columns["time"] = times.column().take(rows).mapped(lambda text: _whole(text, ratings.path, "timestamp"))
    for name in ("item", "year", "genre"):
        columns[name] = item_column.mapped(lambda key, name=name: tables.items[key][name])  # type: ignore[misc]
    columns["genres"] = columns["genre"]
    return Interactions(
        columns,
        label_codes[rows],
        order=tuple(_numbers(columns[name]) for name in ("time", "user", "item")),
        items=sorted(
            ({**tables.items[key], "genres": tables.items[key]["genre"]} for key in rated),
            key=lambda row: row["item"],
        ),
        titles=tables.titles,
    )


class _LabelCodes(dict):  # type: ignore[type-arg]
    """Rating text -> label, `DROP`, or 0 with the reason noted in ``wrong``."""

    DROP = 2

    def __init__(self, label: Label) -> None:
        super().__init__()
        self.label = label
        self.wrong: dict[str, str] = {}

    def __missing__(self, text: str) -> int:
        try:
            parsed = self.label.parse(text)
        except ValueError as error:
            self.wrong[text] = str(error)
            return 0
        self[text] = code = self.DROP if parsed is None else parsed
        return code


def _report(chunk: Chunk, path: Path, column: tuple[str, ...], wrong: dict[str, str], bad: BadRows) -> None:
    for line, value in zip(chunk.lines, column, strict=True):
        if value in wrong:
            bad.report(path, line, wrong[value])


@dataclass(frozen=True)
class Chunk:
    """Some rows of a file, column by column, with the line of each row."""

    columns: list[tuple[str, ...]]
    lines: list[int]

    def __len__(self) -> int:
        return len(self.lines)


def read_plain(
    path: Path, *, separator: str, num_columns: int, encoding: str, skip_lines: int = 0
) -> Iterator[Chunk]:
    """Chunks of a file whose cells are never quoted, without a library for it; empty lines are passed over.

    Raises: UserError: on a wrong number of columns or undecodable bytes, or no row at all.
    """
    seen = False
    with open(path, "rb") as file:
        numbered = itertools.islice(enumerate(file, start=1), skip_lines, None)
        while block := list(itertools.islice(numbered, CHUNK_ROWS)):
            lines, rows = [], []
            for number, line in block:
                if not (content := line.rstrip(b"\r\n")):
                    continue
                try:
                    cells = content.decode(encoding).split(separator)
                except UnicodeDecodeError:
                    raise DataError(f"{path}:{number}: bytes that cannot be decoded; {WAY_OUT}") from None
                if len(cells) != num_columns:
                    trouble = f"{len(cells)} columns where {num_columns} are expected"
                    raise DataError(f"{path}:{number}: {trouble}; {WAY_OUT}")
                rows.append(cells)
                lines.append(number)
            if rows:
                seen = True
                yield Chunk(list(zip(*rows, strict=True)), lines)
    if not seen:
        raise DataError(f"{path}: holds no rows; the file is empty or cut short")


def _chunks(ratings: Ratings) -> Iterator[Chunk]:
    return read_plain(
        ratings.path,
        separator=ratings.separator,
        num_columns=ratings.num_columns,
        encoding=ratings.encoding,
        skip_lines=ratings.skip_lines,
    )


def _read_dat(ratings: Path, users: Path, items: Path) -> tuple[Ratings, Tables]:
    """MovieLens-1M as published: cells between ``::``, latin-1."""
    people, movies, titles = {}, {}, {}
    for line, (user, gender, age, occupation, zip_code) in _rows(users, "::", 5, "latin-1"):
        people[user] = _person(
            users, line, user, gender, _whole(age, users, "age", line), occupation, zip_code
        )
    for line, (item, title, genres) in _rows(items, "::", 3, "latin-1"):
        number = _whole(item, items, "movie", line)
        movies[item] = {"item": number, "year": _year(title), "genre": _genre(genres.split("|"))}
        titles[number] = title.strip()
    return Ratings(ratings, "::", 4, "latin-1", 0, 0, 1, 2, 3), Tables(people, movies, titles)


def _read_100k(ratings: Path, users: Path, items: Path) -> tuple[Ratings, Tables]:
    """MovieLens-100k as published: u.data, u.user, u.item, latin-1."""
    people, movies, titles = {}, {}, {}
    for line, (user, age, gender, occupation, zip_code) in _rows(users, "|", 5, "latin-1"):
        group = age_group(_whole(age, users, "age", line))
        people[user] = _person(users, line, user, gender, group, occupation, zip_code)
    for line, cells in _rows(items, "|", 5 + len(GENRES_100K), "latin-1"):
        number = _whole(cells[0], items, "movie", line)
        genres = [genre for genre, flag in zip(GENRES_100K, cells[5:], strict=True) if flag == "1"]
        movies[cells[0]] = {"item": number, "year": _year(cells[1]), "genre": _genre(genres)}
        titles[number] = cells[1].strip()
    return Ratings(ratings, "\t", 4, "latin-1", 0, 0, 1, 2, 3), Tables(people, movies, titles)


def _read_atomic(ratings: Path, users: Path, items: Path) -> tuple[Ratings, Tables]:
    """RecBole's atomic files: tab-separated UTF-8 with a header of ``name:type`` cells."""
    people, movies, titles = {}, {}, {}
    at = _header(users, ("user_id", "age", "gender", "occupation", "zip_code"))
    for line, cells in _rows(users, "\t", at["*"], "utf-8", 1):
        user, age, gender, occupation, zip_code = (
            cells[at[name]] for name in ("user_id", "age", "gender", "occupation", "zip_code")
        )
        group = age_group(_whole(age, users, "age", line))
        people[user] = _person(users, line, user, gender, group, occupation, zip_code)
    at = _header(items, ("item_id", "release_year"), ("movie_title", "genre", "class"))
    genre_at = at.get("genre", at.get("class"))
    if genre_at is None:
        raise DataError(f"{items}:1: no column 'genre' or 'class' in the header; {WAY_OUT}")
    rows = list(_rows(items, "\t", at["*"], "utf-8", 1))
    numbered = all(cells[at["item_id"]].isdecimal() for _, cells in rows)
    for position, (_, cells) in enumerate(rows, start=1):
        key, year_text = cells[at["item_id"]], cells[at["release_year"]]
        number = int(key) if numbered else official_number(position)
        title = (
            _YEAR.sub("", key).strip()
            if not numbered
            else cells[at["movie_title"]]
            if "movie_title" in at
            else ""
        )
        match = _ATOMIC_YEAR.fullmatch(year_text)
        year = int(match[1]) if match else None
        movies[key] = {"item": number, "year": year, "genre": _genre(cells[genre_at].split(" "))}
        titles[number] = f"{title} ({year})" if year is not None else title
    at = _header(ratings, ("user_id", "item_id", "rating", "timestamp"))
    places = (at["user_id"], at["item_id"], at["rating"], at["timestamp"])
    return Ratings(ratings, "\t", at["*"], "utf-8", 1, *places), Tables(people, movies, titles)


_LAYOUTS = {".dat": _read_dat, ".data": _read_100k, ".inter": _read_atomic}


def _rows(path: Path, separator: str, num_columns: int, encoding: str, skip_lines: int = 0) -> Any:
    for chunk in read_plain(
        path, separator=separator, num_columns=num_columns, encoding=encoding, skip_lines=skip_lines
    ):
        yield from zip(chunk.lines, zip(*chunk.columns, strict=True), strict=False)


def _header(path: Path, needed: tuple[str, ...], optional: tuple[str, ...] = ()) -> dict[str, int]:
    """Position of each column of an atomic file, and their number under ``*``."""
    with open(path, encoding="utf-8", errors="replace") as file:
        cells = [cell.split(":")[0] for cell in file.readline().rstrip("\r\n").split("\t")]
    for name in needed:
        if name not in cells:
            raise DataError(
                f"{path}:1: no column '{name}' in the header (found: {', '.join(cells)}); {WAY_OUT}"
            )
    return {**{name: cells.index(name) for name in (*needed, *optional) if name in cells}, "*": len(cells)}


def _person(
    path: Path, line: int, user: str, gender: str, age: int, occupation: str, zip_code: str
) -> dict[str, Any]:
    match = _USER.fullmatch(user)
    if match is None:
        raise DataError(f"{path}:{line}: user '{user}' is not a whole number; {WAY_OUT}")
    job = int(occupation) if occupation.isdecimal() else occupation
    return {"user": int(match[1]), "gender": gender, "age": age, "occupation": job, "zip": zip_code}


def age_group(age: int) -> int:
    """The first year of the age group of MovieLens-1M, 1 for anybody under 18."""
    return AGES[max(0, bisect.bisect_right(AGES, age) - 1)]


def official_number(position: int) -> int:
    """Number of the movie at a position (from 1) of the official list."""
    number = position
    for absent in ABSENT_MOVIES:
        if absent > number:
            break
        number += 1
    return number


def _whole(text: str, path: Path, what: str, line: int | None = None) -> int:
    try:
        number = float(text)
        if not number.is_integer():
            raise ValueError
        return int(number)
    except (ValueError, OverflowError):
        where = f"{path}:{line}" if line is not None else path
        raise DataError(f"{where}: {what} '{text}' is not a whole number; {WAY_OUT}") from None


def _year(title: str) -> int | None:
    match = _YEAR.search(title)
    return int(match[1]) if match else None


def _genre(genres: list[str]) -> str | None:
    return "|".join(sorted({genre for genre in genres if genre})) or None


def _numbers(column: Column) -> np.ndarray:
    return np.asarray(column.values, dtype=np.int64)[column.codes]
