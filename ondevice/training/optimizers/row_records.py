"""Everything that training knows of a row in one place, so that reading it costs one trip to memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ondevice.forms.rows import copy_rows_

Column = tuple[nn.Parameter, str]

_ALIGNED = 4  # floats: rows are copied 16 bytes at a time
_WRITTEN_AT_ONCE = 8192
"""Rows put together before they are written: few enough to stay in a processor's cache meanwhile."""


class RowRecords:
    """Parameters of equally many rows, and what goes with each, side by side in one tensor.

    The parameters become views of it. A row of a large table lies somewhere in main memory: fetching it from
    one place instead of from one per parameter and moment is what makes a step on millions of rows cheap.
    Beside the columns there is one integer per row.

    Args:
        columns: for each parameter the names of its columns, the first of which is its own values.

    Shape: each parameter (N, D) -> each of its columns (N, D), of a tensor (N, K).
    """

    def __init__(self, columns: Mapping[nn.Parameter, Sequence[str]]) -> None:
        named = [(p, name) for p, names in columns.items() for name in names]
        self._begin: dict[Column, int] = {}
        width = 0
        for p, name in named:
            self._begin[p, name] = width
            width += p.shape[1]
        self._last = width
        self.width = width + 1 + -(width + 1) % _ALIGNED
        first = next(iter(columns))
        self.values = _zeros(first.shape[0], self.width, first.device)
        for p, names in columns.items():
            column = self.column(p, names[0])
            column.copy_(p.detach())
            p.data = column

    def column(self, p: nn.Parameter, name: str) -> Tensor:
        """One of a parameter's columns, (N, D); a view."""
        return self.values[:, self._begin[p, name] : self._begin[p, name] + p.shape[1]]

    def empty(self, num_rows: int) -> dict[Column, Tensor]:
        """Room for all columns of so many rows, each (U, D)."""
        return {column: self.values.new_empty(num_rows, column[0].shape[1]) for column in self._begin}

    def read(self, rows: Tensor | slice, into: Mapping[Column, Tensor]) -> Tensor:
        """Copy the columns of ``rows`` (U,) into those given, each (U, D); returns the integers, (U,) int32."""
        records = self.values[rows] if isinstance(rows, slice) else self.values.index_select(0, rows)
        for (p, name), begin in self._begin.items():
            into[p, name].copy_(records[:, begin : begin + p.shape[1]])
        return records[:, self._last].contiguous().view(torch.int32)

    def write_(self, rows: Tensor | slice, columns: Mapping[Column, Tensor], integer: int) -> None:
        """Write all columns of ``rows``, all different, and the integer that each gets."""
        given = [columns[column] for column in self._begin]
        tail = self.values.new_zeros(len(given[0]), self.width - self._last)
        tail[:, 0].view(torch.int32).fill_(integer)
        if isinstance(rows, slice):
            self.values[rows] = torch.cat([*given, tail], 1)
            return
        for parts in zip(*(t.split(_WRITTEN_AT_ONCE) for t in (rows, *given, tail)), strict=True):
            copy_rows_(self.values, parts[0], torch.cat(parts[1:], 1))


def _zeros(num_rows: int, width: int, device: torch.device) -> Tensor:
    """A tensor (N, K) of zeros; on a CPU in huge pages where the system has them.

    Rows far apart then need no look into page tables of their own, which costs as much as the row itself.
    numpy asks the system for them; PyTorch would only by an environment variable set before it is loaded.
    """
    if device.type != "cpu":
        return torch.zeros(num_rows, width, device=device)
    return torch.from_numpy(np.empty((num_rows, width), np.float32)).zero_()
