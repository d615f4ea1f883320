"""How a staircase is cut: which heights its columns of cells get, so that the bundle is smallest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Measured on finished programs of three methods (docstring of `pack.StaircaseEmbedding`): constants, index
# arithmetic and their values, for the first column of cells beyond one, and for each further column.
STAIRCASE_BYTES = 560
COLUMN_BYTES = 16
# A slice of the looked-up values, needed when the cells do not divide the dimension.
SLICE_BYTES = 300
# What a further size class adds to the vocabulary: the head of a group and the start of its keys.
GROUP_BYTES = 6
# Columns of cells looked up per row. Each costs about 100 us at 1000 rows of 9 fields, a dense int8 program of
# dimension 32 about 1200 us in all, and the rest of a compact one about 350 us.
MAX_COLUMNS = 6


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


def choose_blocks(
    sizes: np.ndarray, num_fields: int, *, max_columns: int = MAX_COLUMNS, value_bytes: int = 1
) -> Blocks:
    """The cut with the fewest bytes: stored cells, index arithmetic, and the vocabulary's groups.

    Args:
        sizes: kept dimensions of each row.
        num_fields: number of fields; each may begin a new group of keys in each class.
        max_columns: columns of cells that may be looked up, for latency.
        value_bytes: bytes per stored value.
    """
    dim = max(1, int(sizes.max(initial=0)))
    best: tuple[int, Blocks] | None = None
    for width in range(dim, 0, -1):
        columns = -(-dim // width)
        if columns > max_columns and width < dim:
            break
        limits, cost = _best_limits(sizes, dim, width, num_fields, value_bytes)
        if columns > 1:
            cost += STAIRCASE_BYTES + COLUMN_BYTES * columns
        if dim % width:
            cost += SLICE_BYTES
        if best is None or cost < best[0]:
            best = cost, Blocks(width, limits, dim)
    assert best is not None
    return best[1]


def _best_limits(
    sizes: np.ndarray, dim: int, width: int, num_fields: int, value_bytes: int
) -> tuple[tuple[int, ...], int]:
    """Limits at multiples of ``width`` with the fewest bytes, by dynamic programming over the last limit."""
    columns = -(-dim // width)
    rows_up_to = np.cumsum(np.bincount(sizes, minlength=dim + 1))  # rows of size <= s
    cost = [0] + [2**62] * columns
    before = [0] * (columns + 1)
    for end in range(1, columns + 1):
        for start in range(end):
            rows = int(rows_up_to[min(end * width, dim)] - rows_up_to[start * width])
            # no group where no row falls between the limits
            added = rows * end * width * value_bytes + (
                2 * num_fields * GROUP_BYTES + rows // 8 if rows else 0
            )
            if cost[start] + added < cost[end]:
                cost[end], before[end] = cost[start] + added, start
    limits: list[int] = []
    end = columns
    while end:
        limits.append(min(end * width, dim))
        end = before[end]
    return tuple(reversed(limits)), cost[columns]
