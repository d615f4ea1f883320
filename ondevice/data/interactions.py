"""Raw interactions of a source, column by column, each distinct value kept once."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ondevice.data.arrow import plain_values
from ondevice.data.schema import Schema


@dataclass(frozen=True)
class Column:
    """A column as codes (n,) int32 into its distinct raw values."""

    codes: np.ndarray
    values: list[Any]

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, row: int) -> Any:
        return self.values[self.codes[row]]

    def mapped(self, change: Callable[[Any], Any]) -> Column:
        """The column with ``change`` applied to every value; values that become equal become one."""
        factorizer = Factorizer()
        codes = factorizer.codes_of([change(value) for value in self.values])
        return Column(codes[self.codes], factorizer.values)

    def take(self, rows: np.ndarray) -> Column:
        """The column of some rows, with the same distinct values."""
        return Column(self.codes[rows], self.values)


class Factorizer:
    """Numbers the distinct values of a column as they come."""

    def __init__(self) -> None:
        self._codes = _Codes()
        self._parts: list[np.ndarray] = []

    @property
    def values(self) -> list[Any]:
        """Distinct values; the position of each is its code."""
        return list(self._codes)

    def codes_of(self, values: Sequence[Any]) -> np.ndarray:
        """Codes (int32) of some values, new ones numbered on."""
        return np.fromiter(map(self._codes.__getitem__, values), dtype=np.int32, count=len(values))

    def add(self, values: Sequence[Any]) -> None:
        """Append rows to the column."""
        self._parts.append(self.codes_of(values))

    def add_arrow(self, array: Any) -> None:
        """Append the rows of an Arrow array."""
        encoded = array if hasattr(array, "dictionary") else array.dictionary_encode()
        codes = self.codes_of(plain_values(encoded.dictionary, "a column"))
        places = encoded.indices
        if places.null_count:
            codes = np.append(codes, self.codes_of([None]))
            places = places.fill_null(len(codes) - 1)
        self._parts.append(codes[places.to_numpy(zero_copy_only=False)])

    def column(self) -> Column:
        """The rows appended so far."""
        codes = np.concatenate(self._parts) if self._parts else np.empty(0, dtype=np.int32)
        return Column(codes, self.values)


class _Codes(dict):  # type: ignore[type-arg]
    """value -> code; a new value gets the next code."""

    def __missing__(self, value: Any) -> int:
        code = self[value] = len(self)
        return code


@dataclass(frozen=True)
class Interactions:
    """The rows of a source that its label rule keeps.

    Args:
        columns: one for each of `Schema.columns`, by name.
        labels: (n,) uint8.
        order: arrays (n,) that sort the rows in time, the most significant first; empty: no time is known.
        items: one raw row per item (item-side fields by name); None: the first row of each item is taken.
        titles: title by raw item key.
        skipped: rows left out because they could not be read.
        weights: (n,) float32, what each row counts; None: all the same.
        division: (n,) uint8, 0 train, 1 valid, 2 test, where the source says it.
    """

    columns: dict[str, Column]
    labels: np.ndarray
    order: tuple[np.ndarray, ...] = ()
    items: list[dict[str, Any]] | None = None
    titles: dict[Any, str] = field(default_factory=dict)
    skipped: int = 0
    weights: np.ndarray | None = None
    division: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: np.ndarray) -> Interactions:
        """Some of the rows, with the same items."""
        return dataclasses.replace(
            self,
            columns={name: column.take(rows) for name, column in self.columns.items()},
            labels=self.labels[rows],
            order=tuple(part[rows] for part in self.order),
            weights=None if self.weights is None else self.weights[rows],
            division=None if self.division is None else self.division[rows],
        )


def item_rows(schema: Schema, columns: Mapping[str, Column]) -> list[dict[str, Any]]:
    """The item-side fields of the first row of each item, in the order of its codes."""
    assert schema.item_key is not None
    first = np.unique(columns[schema.item_key].codes, return_index=True)[1].tolist()
    sides = {field.name: columns[field.name] for field in schema.fields if field.side == "item"}
    return [{name: column[row] for name, column in sides.items()} for row in first]


def keyed_column(schema: Schema, interactions: Interactions, name: str) -> Column:
    """A field's column with its canonical keys as values."""
    return interactions.columns[name].mapped(schema.named(name).key)


def keyed(schema: Schema, interactions: Interactions, name: str) -> np.ndarray:
    """Per row, a number (int64) for the canonical key of a field; raw values of one key have one number."""
    return keyed_column(schema, interactions, name).codes.astype(np.int64)
