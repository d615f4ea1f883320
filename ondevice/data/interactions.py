"""Raw interactions of a source, column by column, each distinct value kept once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np


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
        columns: one per schema field, by field name.
        labels: (n,) uint8.
        order: arrays (n,) that sort the rows in time, the most significant first; empty: no time is known.
        items: one raw row per item (item-side fields by name); None: the first row of each item is taken.
        titles: title by raw item key.
        skipped: rows left out because they could not be read.
    """

    columns: dict[str, Column]
    labels: np.ndarray
    order: tuple[np.ndarray, ...] = ()
    items: list[dict[str, Any]] | None = None
    titles: dict[Any, str] = field(default_factory=dict)
    skipped: int = 0

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: np.ndarray) -> Interactions:
        """Some of the rows, with the same items."""
        return Interactions(
            {name: column.take(rows) for name, column in self.columns.items()},
            self.labels[rows],
            tuple(part[rows] for part in self.order),
            self.items,
            self.titles,
            self.skipped,
        )


def first_rows(codes: np.ndarray) -> list[int]:
    """The first row of each code that occurs, in the order of the codes."""
    rows: list[int] = np.unique(codes, return_index=True)[1].tolist()
    return rows
