"""Criteo's click logs: the Kaggle challenge's train.txt, and the Terabyte set's files of a day each."""

from __future__ import annotations

import os
from collections.abc import Sequence

from ondevice.data.dataset import Dataset
from ondevice.data.preparation.files import find_files
from ondevice.data.preparation.prepare import prepare_large
from ondevice.data.preparation.text import TextFormat
from ondevice.data.registry import DATASETS
from ondevice.data.schema import Field, Label, Schema
from ondevice.errors import ConfigError

INTEGERS = tuple(f"I{i}" for i in range(1, 14))
CATEGORIES = tuple(f"C{i}" for i in range(1, 27))
FORMAT = TextFormat(
    "\t",
    {"label": "label", **dict.fromkeys(INTEGERS, "integer"), **dict.fromkeys(CATEGORIES, "hexadecimal")},
    gaps=True,
)
FILES = (r"train\.(txt|tsv)", r"day_[0-9]+", r"(?!test).*\.(txt|tsv)")
NO_INTEGER = -100  # key of an empty cell: below every number of the sets, and near them, which packs well
NO_CATEGORY = -1


@DATASETS.register("criteo")
def criteo(
    *,
    path: str | os.PathLike[str] | None = None,
    split: str = "random",
    seed: int = 0,
    fractions: Sequence[float] = (0.8, 0.1, 0.1),
    min_count: int = 10,
    max_rows: int | None = None,
    bad_rows: str = "error",
    memory: int | str = "2GB",
    workers: int | None = None,
) -> Dataset:
    """Criteo clicks, your own copy: train.txt of Kaggle or day_N of the Terabyte set, plain or gzipped.

    39 fields as in the AutoInt and PEP papers: of 13 integers floor(ln(v)^2) above 2, of 26 categories the
    values; an empty cell is a value of its own, and values rarer than ``min_count`` are one.

    Args:
        path: a file, or a folder that holds train.txt or files of days.
        split: ``random`` or ``temporal`` (the order of days and lines; the oldest train).
        seed: draws the random split.
        fractions: of train, valid and test.
        min_count: values rarer than this in the training rows share the unknown id of their field.
        max_rows: read only the first so many rows.
        bad_rows: ``error`` stops at a row that cannot be read, ``skip`` leaves it out and counts it.
        memory: bound of all processes of the preparation together.
        workers: processes; None: one per core that ``memory`` allows.
    """
    if path is None:
        raise ConfigError(
            "data.path: data set 'criteo' needs your own copy (data.path=train.txt, or a folder)"
        )
    integers = [
        Field(n, "context", "integer", transform="log_integer", min_count=min_count, missing=NO_INTEGER)
        for n in INTEGERS
    ]
    categories = [
        Field(n, "context", "integer", transform="hex", min_count=min_count, missing=NO_CATEGORY)
        for n in CATEGORIES
    ]
    return prepare_large(
        Schema("criteo", (*integers, *categories), Label(column="label")),
        FORMAT.to_dict(),
        find_files(path, FILES, "Criteo"),
        split=split,
        seed=seed,
        fractions=fractions,
        max_rows=max_rows,
        bad_rows=bad_rows,
        memory=memory,
        workers=workers,
    )
