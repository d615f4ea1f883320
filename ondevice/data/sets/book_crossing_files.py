"""The Book-Crossing files as a table: semicolon-separated latin-1, every cell quoted, ``\\`` before a quote in it.

Values: user is a whole number, age the first year of its group of five, country the last part of the location,
book the ISBN as it stands, year the year of publication, author and publisher texts. An age, country or year that
cannot be right is missing (None), and so is all that is to be known of a book that the books file lacks.
"""

from __future__ import annotations

import contextlib
import html
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ondevice.data.parts import Format, Part
from ondevice.data.rows import header_of, read_rows
from ondevice.data.schema import Schema
from ondevice.data.spec import Computed, TableSpec

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
FORMAT = Format(";", '"', "\\", "latin-1")


def book_crossing_table(
    schema: Schema, ratings: Path, users: Path, books: Path
) -> tuple[TableSpec, list[Part]]:
    """The table of ratings, to which what is known of each user and book is added, and its file.

    Raises: DataError: for a row of users or books that cannot be used, with its file and line.
    """
    people = dict(read_rows(users, FORMAT, header_of(users, FORMAT, USER_COLUMNS, WAY_OUT), _person, WAY_OUT))
    shelf = dict(read_rows(books, FORMAT, header_of(books, FORMAT, BOOK_COLUMNS, WAY_OUT), _book, WAY_OUT))
    user, book, rating = header_of(ratings, FORMAT, RATING_COLUMNS, WAY_OUT)

    def value(table: dict[str, dict[str, Any]], name: str) -> Callable[[Any], Any]:
        return lambda key: table[key][name] if key in table else None

    columns = {name: (user, value(people, name)) for name in ("age", "country")}
    columns |= {name: (book, value(shelf, name)) for name in ("author", "year", "publisher", "title")}
    columns |= {"user": (user, _whole_user), "book": (book, str), "rating": (rating, str)}
    return TableSpec(schema, format=FORMAT, title="title", computed=Computed(columns)), [Part(ratings)]


def _person(user: str, location: str, age: str) -> tuple[str, dict[str, Any]]:
    return user, {"age": age_group(age), "country": country_of(location)}


def _book(book: str, title: str, author: str, year: str, publisher: str) -> tuple[str, dict[str, Any]]:
    row = {"title": readable(title), "author": readable(author) or None, "year": year_of(year)}
    return book, {**row, "publisher": readable(publisher) or None}


def _whole_user(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise ValueError(f"user '{text}' is not a whole number")
    return int(text)


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
