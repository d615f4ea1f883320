"""A batch of a table's cells as rows of keys, labels, times and weights, and why some rows cannot be used."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from ondevice.data.arrow import canonical, parsed, plain_values
from ondevice.data.field import number_of
from ondevice.data.spec import TableSpec
from ondevice.data.times import time_parser


@dataclass(frozen=True)
class Rows:
    """Rows that the label rule keeps.

    Args:
        numbers: (n,) of each row in its file, from 0.
        columns: Arrow array (n,) for each of `Schema.columns`, by name: canonical keys, or raw values where there is
            a transform.
        labels: (n,) uint8.
        times: (n,) float64, where the split needs them.
        weights: (n,) float32, where the table has them.
        titles: the title of each row's item, where the table has them.
    """

    numbers: np.ndarray
    columns: dict[str, Any]
    labels: np.ndarray
    times: np.ndarray | None = None
    weights: np.ndarray | None = None
    titles: list[Any] | None = None


def rows_of(
    spec: TableSpec, numbers: np.ndarray, batch: Any, *, where: str, timed: bool, titles: bool
) -> tuple[Rows, dict[int, str]]:
    """The rows of a batch, and the trouble of each row that cannot be used, by its number.

    Args:
        spec: what the columns mean.
        numbers: (n,) of the rows.
        batch: Arrow columns, named as in the source.
        where: the file, for messages.
        timed: whether the split needs times.
        titles: whether titles are wanted.

    Raises: UserError: for a column of a type that no field can have.
    """
    import pyarrow as pa

    missing = frozenset(spec.format.missing)
    wrong: dict[int, str] = {}
    labels = np.ones(len(numbers))
    times = weights = None
    if spec.schema.label.column is not None:
        name = spec.schema.label.column
        labels, wrong = parsed(
            batch.column(name), spec.schema.label.parse, missing, f"{where}: column '{name}'"
        )
    dropped = set(np.flatnonzero(np.isnan(labels)).tolist()).difference(wrong)
    if timed and spec.split.time is not None:
        name, parse = spec.split.time, time_parser(spec.split.time_format)
        times, more = parsed(batch.column(name), parse, missing, f"{where}: column '{name}'")
        wrong = {**more, **wrong}
    if spec.weight is not None:
        name, weigh = spec.weight, functools.partial(_weight, spec.weight)
        weights, more = parsed(batch.column(name), weigh, missing, f"{where}: column '{name}'")
        wrong = {**more, **wrong}
    columns = {}
    for field in spec.schema.columns:
        name = field.source_column
        columns[field.name], more = canonical(field, batch.column(name), missing, f"{where}: column '{name}'")
        wrong = {**more, **wrong}
    keep = ~np.isnan(labels)
    keep[list(wrong)] = False
    wrong = {row: reason for row, reason in wrong.items() if row not in dropped}
    kept = np.flatnonzero(keep)
    texts = (
        plain_values(batch.column(spec.title), f"{where}: column '{spec.title}'")
        if titles and spec.title
        else None
    )
    if len(kept) < len(keep):
        taken = pa.array(kept)
        columns = {name: column.take(taken) for name, column in columns.items()}
        texts = None if texts is None else [texts[row] for row in kept]
    rows = Rows(
        numbers[kept],
        columns,
        labels[kept].astype(np.uint8),
        None if times is None else times[kept],
        None if weights is None else weights[kept].astype(np.float32),
        texts,
    )
    return rows, {int(numbers[row]): reason for row, reason in wrong.items()}


def _weight(column: str, raw: Any) -> float:
    number = number_of(raw)
    if number is None or number < 0:
        raise ValueError(f"weight '{column}' is {raw!r}, not a number of at least 0")
    return number
