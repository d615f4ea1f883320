"""Everything that training knows of a row in one place, so that reading it costs one trip to memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ondevice.embeddings.rows import copy_rows_

_ALIGNED = 4  # floats: rows are copied 16 bytes at a time


class PackedRows:
    """Parameters of equally many rows, and what goes with each, side by side in one tensor.

    The parameters become views of it. A row of a large table lies somewhere in main memory: fetching it from
    one place instead of from one per parameter and moment is what makes a step on millions of rows cheap.

    Args:
        columns: for each parameter the names of its columns, the first of which is its own values.

    Shape: each parameter (N, D) -> each of its columns (N, D), of a tensor (N, K).
    """

    def __init__(self, columns: Mapping[nn.Parameter, Sequence[str]]) -> None:
        self._places: dict[tuple[nn.Parameter, str], tuple[int, int]] = {}
        width = 0
        for p, names in columns.items():
            for name in names:
                self._places[p, name] = width, width + p.shape[1]
                width += p.shape[1]
        self._last = width
        first = next(iter(columns))
        width += 1 + -(width + 1) % _ALIGNED
        self.values = torch.zeros(first.shape[0], width, device=first.device)
        for p, names in columns.items():
            own = self.column(p, names[0])
            own.copy_(p.detach())
            p.data = own

    def column(self, p: nn.Parameter, name: str, rows: Tensor | None = None) -> Tensor:
        """One of a parameter's columns, of the whole tensor or of rows that `read` gave; a view."""
        begin, end = self._places[p, name]
        return (self.values if rows is None else rows)[:, begin:end]

    def last(self, rows: Tensor | None = None) -> Tensor:
        """An integer of each row, (N,) or (U,) int32; a view."""
        return (self.values if rows is None else rows)[:, self._last].view(torch.int32)

    def read(self, rows: Tensor) -> Tensor:
        """Copies of ``rows`` (U,), (U, K)."""
        return self.values.index_select(0, rows)

    def write_(self, rows: Tensor, columns: Mapping[tuple[nn.Parameter, str], Tensor], last: int) -> None:
        """Write all columns of ``rows`` (U,), all different, and the integer that each gets."""
        tail = self.values.new_zeros(len(rows), self.values.shape[1] - self._last)
        tail[:, 0].view(torch.int32).fill_(last)
        copy_rows_(self.values, rows, torch.cat([*(columns[key] for key in self._places), tail], 1))
