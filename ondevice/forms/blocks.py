"""How a staircase is cut: which heights its columns of cells get, so that the bundle is smallest."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

# Bytes of a program, by endpoint, that find the cells of a row: constants and index arithmetic beside `COLUMN_BYTES`
# for each column, none where there is one column alone. Measured on finished programs of one table under every cut.
STAIRCASE_BYTES = {"forward": 530, "rank": 115, "recommend": 180}
COLUMN_BYTES = 16
# And a slice of the looked-up values, which cells that do not divide the dimension need.
SLICE_BYTES = {"forward": 595, "rank": 130, "recommend": 145}
# What a further size class adds to the vocabulary: the head of a group and the start of its keys.
GROUP_BYTES = 6
# Columns of cells looked up per row. Each costs about 100 us at 1000 rows of 9 fields, a dense int8 program of
# dimension 32 about 1200 us in all, and the rest of a compact one about 350 us.
MAX_COLUMNS = 6
# Values stored beyond the kept ones, as a share of these and in number, that no saving elsewhere excuses.
MAX_WASTE, SMALL_WASTE = 0.10, 1024


@dataclass(frozen=True)
class Blocks:
    """A cut of D dimensions into columns of cells.

    Args:
        width: dimensions per cell.
        limits: rising sizes, multiples of the width but for the last, that rows are rounded up to: the size
            classes. Column k holds the rows whose class is above k·width.
        dim: dimensions in use D.
    """

    width: int
    limits: tuple[int, ...]
    dim: int

    @property
    def num_columns(self) -> int:
        return -(-self.dim // self.width)

    def classes(self, sizes: np.ndarray) -> np.ndarray:
        """Size class of each row: 0 for size 0, else the place (from 1) of its limit."""
        rounded: np.ndarray = np.searchsorted(np.array((0, *self.limits)), sizes, side="left")
        return rounded

    def heights(self, sizes: np.ndarray) -> list[int]:
        """Rows in each column of cells."""
        rounded = np.array((0, *self.limits))[self.classes(sizes)]
        return [int((rounded > k * self.width).sum()) for k in range(self.num_columns)]

    def num_values(self, sizes: np.ndarray) -> int:
        """Stored values, the row of zeros included."""
        return sum((height + 1) * self.width for height in self.heights(sizes))

    def padding(self, sizes: np.ndarray) -> int:
        """Stored values that rows do not keep, since their class is larger; without the row of zeros."""
        return sum(height * self.width for height in self.heights(sizes)) - int(sizes.sum())


def choose_blocks(
    sizes: np.ndarray,
    num_fields: int,
    *,
    width: int | None = None,
    max_columns: int = MAX_COLUMNS,
    value_bytes: float = 1,
) -> Blocks:
    """The cut with the fewest bytes: stored cells, index arithmetic, and what its classes cost the vocabulary.

    Args:
        sizes: kept dimensions of each row.
        num_fields: number of fields; each may begin a new group of keys in each class.
        width: dimensions per cell; None to choose.
        max_columns: columns of cells that may be looked up, for latency, where the width is chosen.
        value_bytes: bytes per stored value.
    """
    dim = max(1, int(sizes.max(initial=0)))
    allowed = (1 + MAX_WASTE) * int(sizes.sum()) + SMALL_WASTE
    best: tuple[tuple[bool, int], Blocks] | None = None
    if width is not None:
        dim = -(-dim // width) * width
    for cell in range(dim, 0, -1) if width is None else (width,):
        columns = -(-dim // cell)
        if width is None and columns > max_columns and cell < dim:
            break
        every = tuple(min(k * cell, dim) for k in range(1, columns + 1))
        for limits in {_best_limits(sizes, dim, cell, num_fields, value_bytes), every}:
            blocks = Blocks(cell, limits, dim)
            cost = _cost(sizes, limits, cell, num_fields, value_bytes)
            cost += columns_bytes(blocks, ("forward",))
            rank = (blocks.num_values(sizes) > allowed, cost)
            if best is None or rank < best[0]:
                best = rank, blocks
    assert best is not None
    return best[1]


def columns_bytes(blocks: Blocks, endpoints: Iterable[str]) -> int:
    """Bytes of a program's graphs, one for each endpoint, that find the cells of a row."""
    if blocks.num_columns == 1:
        return 0
    sliced = blocks.dim % blocks.width > 0
    graphs = sum(STAIRCASE_BYTES[name] + sliced * SLICE_BYTES[name] for name in endpoints)
    return graphs + COLUMN_BYTES * blocks.num_columns


def _class_cost(rows: int, total: int, end: int, width: int, num_fields: int, value_bytes: float) -> int:
    """Bytes of one class: its cells, heads of groups, and log2(total / rows) bits of gap for each key."""
    if rows == 0:
        return 0
    stored = round(rows * -(-end // width) * width * value_bytes)
    return stored + 2 * num_fields * GROUP_BYTES + round(rows * math.log2(total / rows) / 8)


def _cost(sizes: np.ndarray, limits: tuple[int, ...], width: int, num_fields: int, value_bytes: float) -> int:
    total, cost, low = int((sizes > 0).sum()), 0, 0
    for high in limits:
        rows = int(((sizes > low) & (sizes <= high)).sum())
        cost += _class_cost(rows, total, high, width, num_fields, value_bytes)
        low = high
    return cost


def _best_limits(
    sizes: np.ndarray, dim: int, width: int, num_fields: int, value_bytes: float
) -> tuple[int, ...]:
    """Limits at multiples of ``width`` with the fewest bytes, by dynamic programming over the last limit."""
    columns = -(-dim // width)
    rows_up_to = np.cumsum(np.bincount(sizes, minlength=dim + 1))  # rows of size <= s
    total = int(rows_up_to[-1] - rows_up_to[0])
    cost = [0] + [2**62] * columns
    before = [0] * (columns + 1)
    for end in range(1, columns + 1):
        high = min(end * width, dim)
        for start in range(end):
            rows = int(rows_up_to[high] - rows_up_to[start * width])
            added = _class_cost(rows, total, high, width, num_fields, value_bytes)
            if cost[start] + added < cost[end]:
                cost[end], before[end] = cost[start] + added, start
    limits: list[int] = []
    end = columns
    while end:
        limits.append(min(end * width, dim))
        end = before[end]
    return tuple(reversed(limits))
