"""A log of people and things as a table whose rows hold the last three things of each row's person."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from ondevice.data import Dataset, load_dataset

SCHEMA: dict[str, Any] = {
    "name": "log",
    "fields": [
        {"name": "place", "side": "context", "kind": "string"},
        {"name": "seen", "side": "context", "kind": "history", "of": "thing", "last": 3, "pooling": "sqrt"},
        {"name": "thing", "side": "item", "kind": "string"},
    ],
    "label": {"column": "liked"},
    "item_key": "thing",
    "user_key": "who",
    "split": {"kind": "temporal", "time": "when"},
}


def log(num_rows: int = 240, seed: int = 0) -> list[list[Any]]:
    """Rows of who, place, thing, liked and when, in no order, with equal times and rows of nobody."""
    random = np.random.default_rng(seed)
    who, thing = random.integers(0, 7, num_rows), random.integers(0, 9, num_rows)
    liked, when = random.integers(0, 2, num_rows), random.integers(0, 100, num_rows)
    return [
        [f"u{u}" if u else "", f"p{u % 3}", f"t{t}", liked, int(time)]
        for u, t, liked, time in zip(who, thing, liked.tolist(), when, strict=True)
    ]


def read(folder: Path, rows: list[list[Any]], schema: dict[str, Any] = SCHEMA, **options: Any) -> Dataset:
    folder.mkdir(exist_ok=True)
    (folder / "schema.yaml").write_text(yaml.safe_dump(schema))
    with (folder / "log.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["who", "place", "thing", "liked", "when"], *rows])
    return load_dataset("table", schema=folder / "schema.yaml", path=folder / "log.csv", **options)
