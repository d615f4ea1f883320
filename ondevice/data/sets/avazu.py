"""Avazu's click logs, the file of the Kaggle challenge."""

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

CATEGORIES = (
    *("site_id", "site_domain", "site_category", "app_id", "app_domain", "app_category"),
    *("device_id", "device_ip", "device_model"),
)
COLUMNS = (
    *("id", "click", "hour", "C1", "banner_pos", *CATEGORIES, "device_type", "device_conn_type"),
    *(f"C{i}" for i in range(14, 22)),
)
KINDS = {"id": "ignored", "click": "label", "hour": "hour", **dict.fromkeys(CATEGORIES, "hexadecimal")}
FORMAT = TextFormat(",", {name: KINDS.get(name, "integer") for name in COLUMNS}, header=True)
FILES = (r"train(\.csv)?", r"(?!test|sampleSubmission).*\.csv")


@DATASETS.register("avazu")
def avazu(
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
    """Avazu clicks, your own copy: train.csv of Kaggle, plain or gzipped.

    23 fields: the hour of the day, the day of the week (0 is Sunday) and the 21 columns after it; the id is
    left out, and values rarer than ``min_count`` are one.

    Args: as `ondevice.data.sets.criteo.criteo`; ``temporal`` is the order of the rows, which is that of the hours.
    """
    if path is None:
        raise ConfigError(
            "data.path: data set 'avazu' needs your own copy (data.path=train.csv, or a folder)"
        )
    fields = [Field(name, "context", "integer", min_count=min_count) for name in ("hour", "weekday")]
    for name in COLUMNS[3:]:
        transform = "hex" if name in CATEGORIES else None
        fields.append(Field(name, "context", "integer", transform=transform, min_count=min_count))
    return prepare_large(
        Schema("avazu", tuple(fields), Label(column="click")),
        FORMAT.to_dict(),
        find_files(path, FILES, "Avazu"),
        split=split,
        seed=seed,
        fractions=fractions,
        max_rows=max_rows,
        bad_rows=bad_rows,
        memory=memory,
        workers=workers,
    )
