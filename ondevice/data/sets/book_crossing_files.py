"""Reader of the Book-Crossing files: semicolon-separated latin-1, every cell quoted, ``\\`` before a quote in it.

Values: user is a whole number, age the first year of its group of five, country the last part of the location,
book the ISBN as it stands, year the year of publication, author and publisher texts. An age, country or year that
cannot be right is missing (None), and so is all that is to be known of a book that the books file lacks.
"""

from __future__ import annotations

import contextlib
import csv
import html
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

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
    raters, rated, labels = [], [], []
    parsed: dict[str, int | None] = {}
    for line, (user, book, rating) in _rows(ratings, RATING_COLUMNS):
        if rating not in parsed:
            try:
                parsed[rating] = label.parse(rating)
            except ValueError as error:
                raise DataError(f"{ratings}:{line}: {error}; {WAY_OUT}") from None
        if parsed[rating] is not None:
            raters.append(user)
            rated.append(book)
            labels.append(parsed[rating])
    user_codes.add(raters)
    book_codes.add(rated)
    user_column, book_column = user_codes.column(), book_codes.column()
    columns = {"user": user_column.mapped(lambda key: _whole(key, ratings, "user"))}
    for name in ("age", "country"):
        columns[name] = user_column.mapped(lambda key, name=name: people.get(key, _UNKNOWN_PERSON)[name])  # type: ignore[misc]
    columns["book"] = book_column
    for name in ("author", "year", "publisher"):
        columns[name] = book_column.mapped(lambda key, name=name: shelf.get(key, _UNKNOWN_BOOK)[name])  # type: ignore[misc]
    return Interactions(
        columns,
        np.array(labels, dtype=np.uint8),
        items=[{"book": key, **shelf.get(key, _UNKNOWN_BOOK)} for key in sorted(book_column.values)],
        titles={key: titles[key] for key in book_column.values if key in titles},
    )


def _read_users(path: Path) -> dict[str, dict[str, Any]]:
    people: dict[str, dict[str, Any]] = {}
    for _, (user, location, age) in _rows(path, USER_COLUMNS):
        people[user] = {"age": age_group(age), "country": country_of(location)}
    return people


def _read_books(path: Path) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Books and titles by ISBN."""
    shelf: dict[str, dict[str, Any]] = {}
    titles: dict[str, str] = {}
    for _, (book, title, author, year, publisher) in _rows(path, BOOK_COLUMNS):
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


def read_cells(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The cells of each row and the line that it ends on. Raises UserError for what is not CSV."""
    with open(path, encoding="latin-1", newline="") as file:
        # Under strict, a quote that is still open at the end of the file is an error.
        reader = csv.reader(file, delimiter=";", escapechar="\\", doublequote=False, strict=True)
        try:
            for row in reader:
                if row:
                    yield reader.line_num, row
        except csv.Error as error:
            raise DataError(f"{path}:{reader.line_num}: not CSV: {error}; {WAY_OUT}") from error


def _rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    """The line and the named columns of each row after the header."""
    rows = read_cells(path)
    _, header = next(rows, (0, []))
    for name in columns:
        if name not in header:
            raise DataError(
                f"{path}:1: no column '{name}' in the header (found: {', '.join(header)}); {WAY_OUT}"
            )
    places = [header.index(name) for name in columns]
    empty = True
    for line, row in rows:
        if len(row) != len(header):
            raise DataError(f"{path}:{line}: {len(row)} columns where {len(header)} are expected; {WAY_OUT}")
        empty = False
        yield line, [row[place] for place in places]
    if empty:
        raise DataError(f"{path}: holds no rows; the file is empty or cut short")


def _whole(text: str, path: Path, what: str) -> int:
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise DataError(f"{path}: {what} '{text}' is not a whole number; {WAY_OUT}")
    return int(text)
