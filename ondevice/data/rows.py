"""A batch of a table's cells as rows of keys, labels, times and weights, and why some rows cannot be used."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ondevice.data.arrow import canonical, changed, parsed, plain_values
from ondevice.data.field import number_of
from ondevice.data.parts import BadRows, Format, Part, line_of
from ondevice.data.read import Engine
from ondevice.data.spec import TableSpec
from ondevice.data.times import time_parser
from ondevice.errors import DataError


@dataclass(frozen=True)
class Rows:
    """Rows that the label rule keeps.

    Args:
        numbers: (n,) of each row in its file, from 0.
        columns: Arrow array (n,) for each of `Schema.columns`, by name: canonical keys, or raw values where there is
            a transform.
        labels: (n,) uint8.
        order: arrays (n,) float64 that sort the rows in time, the most significant first, where the split needs them.
        weights: (n,) float32, where the table has them.
        titles: the title of each row's item, where the table has them.
    """

    numbers: np.ndarray
    columns: dict[str, Any]
    labels: np.ndarray
    order: tuple[np.ndarray, ...] = ()
    weights: np.ndarray | None = None
    titles: list[Any] | None = None


def rows_of(
    spec: TableSpec, numbers: np.ndarray, batch: Any, *, where: str, timed: bool
) -> tuple[Rows, dict[int, str]]:
    """The rows of a batch, and the trouble of each row that cannot be used, by its number.

    Args:
        spec: what the columns mean.
        numbers: (n,) of the rows.
        batch: Arrow columns, named as in the source.
        where: the file, for messages.
        timed: whether the split needs times.

    Raises: UserError: for a column of a type that no field can have.
    """
    import pyarrow as pa

    missing = frozenset(spec.format.missing)
    batch, wrong = _computed(spec, batch, where)
    labels = np.ones(len(numbers))
    order: list[np.ndarray] = []
    weights = None
    if spec.schema.label.column is not None:
        name = spec.schema.label.column
        labels, more = parsed(
            batch.column(name), spec.schema.label.parse, missing, f"{where}: column '{name}'"
        )
        wrong = {**more, **wrong}
    dropped = set(np.flatnonzero(np.isnan(labels)).tolist()).difference(wrong)
    if timed and spec.split.time is not None:
        parse = time_parser(spec.split.time_format)
        for name in (spec.split.time, *spec.computed.ties):
            each, more = parsed(batch.column(name), parse, missing, f"{where}: column '{name}'")
            order.append(each)
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
    texts = plain_values(batch.column(spec.title), f"{where}: column '{spec.title}'") if spec.title else None
    if len(kept) < len(keep):
        taken = pa.array(kept)
        columns = {name: column.take(taken) for name, column in columns.items()}
        texts = None if texts is None else [texts[row] for row in kept]
    rows = Rows(
        numbers[kept],
        columns,
        labels[kept].astype(np.uint8),
        tuple(each[kept] for each in order),
        None if weights is None else weights[kept].astype(np.float32),
        texts,
    )
    return rows, {int(numbers[row]): reason for row, reason in wrong.items()}


def _computed(spec: TableSpec, batch: Any, where: str) -> tuple[Any, dict[int, str]]:
    """The batch with the columns that are made of others, and why some rows have none."""
    import pyarrow as pa

    if not spec.computed.columns:
        return batch, {}
    columns, wrong = {name: batch.column(name) for name in batch.schema.names}, {}
    for name, (source, change) in spec.computed.columns.items():
        if source in batch.schema.names:
            columns[name], more = changed(batch.column(source), change, f"{where}: column '{source}'")
            wrong.update({row: reason for row, reason in more.items() if row not in wrong})
    return pa.record_batch(columns), wrong


def _weight(column: str, raw: Any) -> float:
    number = number_of(raw)
    if number is None or number < 0:
        raise ValueError(f"weight '{column}' is {raw!r}, not a number of at least 0")
    return number


def read_rows(
    path: Path, form: Format, columns: Sequence[str], make: Callable[..., Any], way_out: str
) -> list[Any]:
    """What ``make`` makes of the cells of each row of a small table; a ValueError of it names the row.

    Raises: DataError: for a row that cannot be used, and where there is none.
    """
    rows, bad, part = [], BadRows(way_out=way_out), Part(path)
    with Engine() as engine:
        for numbers, batch in engine.batches(part, columns, form, bad):
            cells = (["" if cell is None else cell for cell in each.to_pylist()] for each in batch.columns)
            for number, row in zip(numbers.tolist(), zip(*cells, strict=True), strict=True):
                try:
                    rows.append(make(*row))
                except ValueError as error:
                    bad.report(path, line_of(part, columns, form, number), str(error))
    if not rows:
        raise DataError(f"{path}: holds no rows; the file is empty or cut short")
    return rows


def header_of(path: Path, form: Format, wanted: Sequence[str], way_out: str) -> list[str]:
    """The columns of a file that are called so, up to a colon; of names between bars the first that is there.

    Raises: DataError: where one is not there.
    """
    with Engine() as engine:
        names = {name.split(":")[0]: name for name in engine.names(Part(path), form)}
    for each in wanted:
        if not names.keys() & each.split("|"):
            listed = " or ".join(f"'{name}'" for name in each.split("|"))
            raise DataError(
                f"{path}:1: no column {listed} in the header (found: {', '.join(names)}); {way_out}"
            )
    return [next(names[name] for name in each.split("|") if name in names) for each in wanted]
