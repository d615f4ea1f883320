"""Everything that training knows of a row in one place, so that reading it costs one trip to memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ondevice.embeddings.rows import copy_rows_

Column = tuple[nn.Parameter, str]

_ALIGNED = 4  # floats: rows are copied 16 bytes at a time


class PackedRows:
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
        self._wide = [(p, name) for p, name in named if p.shape[1] > 1]
        self._narrow = [(p, name) for p, name in named if p.shape[1] == 1]
        self._begin: dict[Column, int] = {}
        width = 0
        for p, name in (*self._wide, *self._narrow):
            self._begin[p, name] = width
            width += p.shape[1]
        self._last = width
        self.width = width + 1 + -(width + 1) % _ALIGNED
        first = next(iter(columns))
        self.values = torch.zeros(first.shape[0], self.width, device=first.device)
        for p, names in columns.items():
            own = self.column(p, names[0])
            own.copy_(p.detach())
            p.data = own

    def column(self, p: nn.Parameter, name: str) -> Tensor:
        """One of a parameter's columns, (N, D); a view."""
        return self.values[:, self._begin[p, name] : self._begin[p, name] + p.shape[1]]

    def read(self, rows: Tensor | slice) -> tuple[dict[Column, Tensor], Tensor]:
        """Copies of the columns of ``rows`` (U,), each (U, D), and of the integers, (U,) int32."""
        packed = self.values[rows] if isinstance(rows, slice) else self.values.index_select(0, rows)
        widths = [p.shape[1] for p, _ in self._wide]
        wide = packed[:, : sum(widths)].split(widths, 1)
        found = {column: values.contiguous() for column, values in zip(self._wide, wide, strict=True)}
        narrow = (
            packed[:, sum(widths) : self._last + 1].t().contiguous()
        )  # in one pass: they are near each other
        found.update(zip(self._narrow, narrow[:, :, None].unbind(0), strict=False))
        return found, narrow[-1].view(torch.int32)

    def write_(self, rows: Tensor | slice, columns: Mapping[Column, Tensor], integer: int) -> None:
        """Write all columns of ``rows``, all different, and the integer that each gets."""
        given = [columns[column] for column in self._begin]
        tail = self.values.new_zeros(len(given[0]), self.width - self._last)
        tail[:, 0].view(torch.int32).fill_(integer)
        packed = torch.cat([*given, tail], 1)
        if isinstance(rows, slice):
            self.values[rows] = packed
        else:
            copy_rows_(self.values, rows, packed)
