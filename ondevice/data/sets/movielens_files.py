"""MovieLens files in the official layouts and in RecBole's atomic one, as a table of the same raw values.

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
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ondevice.data.parts import Format, Part
from ondevice.data.rows import header_of, read_rows
from ondevice.data.schema import Schema
from ondevice.data.spec import Computed, Split, TableSpec

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

_YEAR = re.compile(r"\(([0-9]{4})\)\s*$")
_ATOMIC_YEAR = re.compile(r"([0-9]{4})(?:\.0*)?")  # a movie without a year has a word there
_USER = re.compile(r"(?:[A-Za-z0-9]+_)?([0-9]+)")

Rows = dict[str, dict[str, Any]]


def movielens_table(
    folder: Path, files: tuple[str, ...], schema: Schema, split: str
) -> tuple[TableSpec, list[Part]]:
    """The table of ratings, to which each row's user and movie are added, and its file.

    Args:
        folder: where the files are.
        files: ratings, users and items, in this order, in one of the three layouts.
        schema: the fields wanted.
        split: ratings of one second are in the order of users and movies where it is ``temporal``.

    Raises: DataError: for a row of users or movies that cannot be used, with its file and line.
    """
    ratings, users, items = (folder / name for name in files)
    form, names, people, movies = _LAYOUTS[ratings.suffix](ratings, users, items)
    user, item, rating, time = names
    rated: dict[str, None] = {}

    def value(table: Rows, what: str, name: str) -> Callable[[Any], Any]:
        def of(key: str) -> Any:
            if key not in table:
                raise ValueError(f"{what} '{key}' is not in the {what} file")
            if what == "item":
                rated[key] = None
            return table[key][name]

        return of

    def catalog() -> tuple[list[dict[str, Any]], dict[Any, str]]:
        """The movies that are rated, also those whose ratings the label rule drops."""
        rows = [movies[key] for key in rated]
        return rows, {row["item"]: row["title"] for row in rows}

    columns = {name: (user, value(people, "user", name)) for name in _PERSON}
    columns |= {name: (item, value(movies, "item", name)) for name in ("item", "year", "genre", "genres")}
    columns |= {"rating": (rating, lambda text: text), "timestamp": (time, _whole("timestamp"))}
    ties = ("user", "item") if split == "temporal" and not schema.histories else ()
    computed = Computed(columns, ties, catalog if schema.item_key is not None else None)
    user_field = "user" if "user" in schema.names else None  # whose rows leave-last-out divides
    return TableSpec(schema, Split(time="timestamp", user=user_field), form, computed=computed), [
        Part(ratings)
    ]


def _official(ratings: Path, users: Path, items: Path) -> tuple[Format, list[str], Rows, Rows]:
    """MovieLens-1M as published: cells between ``::``, latin-1."""

    def form(*columns: str) -> Format:
        return Format("::", "", encoding="latin-1", columns=columns)

    people = dict(read_rows(users, form(*_PERSON), _PERSON, _person(_whole("age")), WAY_OUT))
    names = ("item", "title", "genres")
    movies = dict(read_rows(items, form(*names), names, _movie, WAY_OUT))
    names_of_ratings = ["user", "item", "rating", "timestamp"]
    return form(*names_of_ratings), names_of_ratings, people, movies


def _official_100k(ratings: Path, users: Path, items: Path) -> tuple[Format, list[str], Rows, Rows]:
    """MovieLens-100k as published: u.data, u.user, u.item, latin-1."""

    def form(delimiter: str, *columns: str) -> Format:
        return Format(delimiter, "", encoding="latin-1", columns=columns)

    at = ("user", "age", "gender", "occupation", "zip")
    people = dict(read_rows(users, form("|", *at), _PERSON, _person(_group), WAY_OUT))
    shape = form("|", "item", "title", "released", "on video", "address", *GENRES_100K)

    def movie(key: str, title: str, *flags: str) -> tuple[str, dict[str, Any]]:
        genres = (genre for genre, flag in zip(GENRES_100K, flags, strict=True) if flag == "1")
        return _movie(key, title, "|".join(genres))

    movies = dict(read_rows(items, shape, ("item", "title", *GENRES_100K), movie, WAY_OUT))
    names = ["user", "item", "rating", "timestamp"]
    return form("\t", *names), names, people, movies


def _atomic(ratings: Path, users: Path, items: Path) -> tuple[Format, list[str], Rows, Rows]:
    """RecBole's atomic files: tab-separated UTF-8 with a header of ``name:type`` cells."""
    form = Format("\t", "")
    at = header_of(users, form, ("user_id", "gender", "age", "occupation", "zip_code"), WAY_OUT)
    people = dict(read_rows(users, form, at, _person(_group), WAY_OUT))
    at = header_of(items, form, ("item_id", "release_year", "genre|class", "movie_title|item_id"), WAY_OUT)
    rows = read_rows(items, form, at, lambda *cells: cells, WAY_OUT)
    numbered = all(key.isdecimal() for key, *_ in rows)
    movies: Rows = {}
    for position, (key, year_text, genres, title) in enumerate(rows, start=1):
        match = _ATOMIC_YEAR.fullmatch(year_text)
        year = int(match[1]) if match else None
        title = title if numbered else _YEAR.sub("", key).strip()
        movies[key] = {
            "item": int(key) if numbered else official_number(position),
            "title": f"{title} ({year})" if year is not None else title,
            "year": year,
            **_genres(genres.split(" ")),
        }
    return (
        form,
        header_of(ratings, form, ("user_id", "item_id", "rating", "timestamp"), WAY_OUT),
        people,
        movies,
    )


_PERSON = ("user", "gender", "age", "occupation", "zip")
_LAYOUTS = {".dat": _official, ".data": _official_100k, ".inter": _atomic}


def _person(age_of: Callable[[str], int]) -> Callable[..., tuple[str, dict[str, Any]]]:
    def person(key: str, gender: str, age: str, occupation: str, zip_code: str) -> tuple[str, dict[str, Any]]:
        match = _USER.fullmatch(key)
        if match is None:
            raise ValueError(f"user '{key}' is not a whole number")
        job = int(occupation) if occupation.isdecimal() else occupation
        row = {"user": int(match[1]), "gender": gender, "age": age_of(age), "occupation": job}
        return key, {**row, "zip": zip_code}

    return person


def _movie(key: str, title: str, genres: str) -> tuple[str, dict[str, Any]]:
    match = _YEAR.search(title)
    row = {"item": _whole("movie")(key), "title": title.strip(), "year": int(match[1]) if match else None}
    return key, {**row, **_genres(genres.split("|"))}


def _genres(genres: Iterable[str]) -> dict[str, str | None]:
    joined = "|".join(sorted({genre for genre in genres if genre})) or None
    return {"genre": joined, "genres": joined}


def age_group(age: int) -> int:
    """The first year of the age group of MovieLens-1M, 1 for anybody under 18."""
    return AGES[max(0, bisect.bisect_right(AGES, age) - 1)]


def _group(age: str) -> int:
    return age_group(_whole("age")(age))


def official_number(position: int) -> int:
    """Number of the movie at a position (from 1) of the official list."""
    number = position
    for absent in ABSENT_MOVIES:
        if absent > number:
            break
        number += 1
    return number


def _whole(what: str) -> Callable[[str], int]:
    def whole(text: str) -> int:
        try:
            number = float(text)
            if not number.is_integer():
                raise ValueError
            return int(number)
        except (ValueError, OverflowError):
            raise ValueError(f"{what} '{text}' is not a whole number") from None

    return whole
