"""Reader of the Book-Crossing files: semicolon-separated latin-1, every cell quoted, ``\\`` before a quote in it.

Values: user is a whole number, age the first year of its group of five, country the last part of the location,
book the ISBN as it stands, year the year of publication, author and publisher texts. An age, country or year that
cannot be right is missing (None), and so is all that is to be known of a book that the books file lacks.
"""

from __future__ import annotations

import contextlib
import html
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ondevice.data.delimited import BadRows, Chunk, read_csv, read_header
from ondevice.data.interactions import Factorizer, Interactions
from ondevice.data.schema import Label
from ondevice.errors import DataError

WAY_OUT = "the file differs from the published one: get it again, or name another folder (data.folder=PATH)"

RATING_COLUMNS = ("User-ID", "ISBN", "Book-Rating")
USER_COLUMNS = ("User-ID", "Location", "Age")
BOOK_COLUMNS = ("ISBN", "Book-Title", "Book-Author", "Year-Of-Publication", "Publisher")

YOUNGEST, OLDEST, AGE_GROUP = 5, 99, 5
FIRST_YEAR, LAST_YEAR = 1800, 2005  # collected in 2004; books are announced up to a year ahead

NO_COUNTRY = {"", "n/a", "na", "x", "unknown", "universe", "far away", "everywhere and anywhere"}
COUNTRY_NAMES = {
    **dict.fromkeys(("us", "u.s", "u.s.a", "america", "united state", "united states"), "usa"),
    "united states of america": "usa",
    **dict.fromkeys(("uk", "u.k", "england", "scotland", "wales", "great britain"), "united kingdom"),
    "deutschland": "germany",
    "españa": "spain",
    "italia": "italy",
    "nz": "new zealand",
    "p.r.china": "china",
    "phillipines": "philippines",
    "the netherlands": "netherlands",
}
_UNKNOWN_PERSON: dict[str, Any] = {"age": None, "country": None}
_UNKNOWN_BOOK: dict[str, Any] = {"author": None, "year": None, "publisher": None}


def read_book_crossing(ratings: Path, users: Path, books: Path, label: Label) -> Interactions:
    """The rated rows that the label rule keeps, with every field.

    Raises: DataError: for a row that cannot be used, with its file and line.
    """
    people = _read_users(users)
    shelf, titles = _read_books(books)
    user_codes, book_codes = Factorizer(), Factorizer()
    labels: list[np.ndarray] = []
    parsed: dict[str, int | None] = {}
    bad = BadRows(way_out=WAY_OUT)
    for chunk in _chunks(ratings, RATING_COLUMNS):
        user, book, rating = chunk.columns
        for text in set(rating).difference(parsed):
            try:
                parsed[text] = label.parse(text)
            except ValueError as error:
                bad.report(ratings, chunk.lines[rating.index(text)], str(error))
        kept = [i for i, text in enumerate(rating) if parsed[text] is not None]
        user_codes.add([user[i] for i in kept])
        book_codes.add([book[i] for i in kept])
        labels.append(np.array([parsed[rating[i]] for i in kept], dtype=np.uint8))
    user_column, book_column = user_codes.column(), book_codes.column()
    columns = {"user": user_column.mapped(lambda key: _whole(key, ratings, "user"))}
    for name in ("age", "country"):
        columns[name] = user_column.mapped(lambda key, name=name: people.get(key, _UNKNOWN_PERSON)[name])  # type: ignore[misc]
    columns["book"] = book_column
    for name in ("author", "year", "publisher"):
        columns[name] = book_column.mapped(lambda key, name=name: shelf.get(key, _UNKNOWN_BOOK)[name])  # type: ignore[misc]
    return Interactions(
        columns,
        np.concatenate(labels),
        items=[{"book": key, **shelf.get(key, _UNKNOWN_BOOK)} for key in sorted(book_column.values)],
        titles={key: titles[key] for key in book_column.values if key in titles},
    )


def _read_users(path: Path) -> dict[str, dict[str, Any]]:
    people: dict[str, dict[str, Any]] = {}
    for user, location, age in _rows(path, USER_COLUMNS):
        people[user] = {"age": age_group(age), "country": country_of(location)}
    return people


def _read_books(path: Path) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Books and titles by ISBN."""
    shelf: dict[str, dict[str, Any]] = {}
    titles: dict[str, str] = {}
    for book, title, author, year, publisher in _rows(path, BOOK_COLUMNS):
        shelf[book] = {
            "author": readable(author) or None,
            "year": year_of(year),
            "publisher": readable(publisher) or None,
        }
        titles[book] = readable(title)
    return shelf, titles


def age_group(text: str) -> int | None:
    """The first year of the group of five years, or None for an age that is missing or cannot be right."""
    age = int(text) if text.isdecimal() else 0
    return age // AGE_GROUP * AGE_GROUP if YOUNGEST <= age <= OLDEST else None


def year_of(text: str) -> int | None:
    """The year of publication, or None for one that is missing or cannot be right."""
    year = int(text) if text.isdecimal() else 0
    return year if FIRST_YEAR <= year <= LAST_YEAR else None


def country_of(location: str) -> str | None:
    """The last part of "city, state, country" in lower case, one name a country; None where it names none."""
    name = " ".join(readable(location).rsplit(",", 1)[-1].lower().strip(" \"'\\.;:>()").split())
    return None if name in NO_COUNTRY else COUNTRY_NAMES.get(name, name)


def readable(text: str) -> str:
    """A text without HTML's entities and doubled blanks; UTF-8 that was read as latin-1 is put right."""
    if not text.isascii():
        with contextlib.suppress(UnicodeError):
            text = text.encode("latin-1").decode("utf-8")
    return re.sub(r"\s+", " ", html.unescape(text)).strip()


def _rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, ...]]:
    for chunk in _chunks(path, columns):
        yield from zip(*chunk.columns, strict=True)


def _chunks(path: Path, columns: Sequence[str]) -> Iterator[Chunk]:
    """The named columns of a file."""
    header = read_header(path, delimiter=";", encoding="latin-1")
    for name in columns:
        if name not in header:
            raise DataError(
                f"{path}:1: no column '{name}' in the header (found: {', '.join(header)}); {WAY_OUT}"
            )
    places = [header.index(name) for name in columns]
    for chunk in read_csv(
        path,
        delimiter=";",
        encoding="latin-1",
        num_columns=len(header),
        skip_rows=1,
        escape="\\",
        bad=BadRows(way_out=WAY_OUT),
    ):
        yield Chunk([chunk.columns[place] for place in places], chunk.lines)


def _whole(text: str, path: Path, what: str) -> int:
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise DataError(f"{path}: {what} '{text}' is not a whole number; {WAY_OUT}")
    return int(text)
