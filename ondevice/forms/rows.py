"""The distinct rows of a batch, read and written at the cost of the batch and not of the table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True, eq=False)
class FetchedRows:
    """The rows of a table's parameters that one step reads: leaves of its graph, whose gradients are as small.

    Args:
        ids: the batch they were fetched for.
        rows: the distinct ids.
        inverse: where each lookup falls among them.
        values: for each parameter its rows.

    Shape: ids and inverse (B, F) int64, rows (U,) int64, values (U, …).
    """

    ids: Tensor
    rows: Tensor
    inverse: Tensor
    values: dict[nn.Parameter, Tensor]


class RowFinder:
    """Finds the distinct ids of a batch and where each lookup falls among them.

    The batch is sorted, then a scratch array holds the place of each distinct id: no pass over all N ids.
    The last answer is kept, since several tables look up the same batch.

    Args:
        num_embeddings: number of ids N.
    """

    def __init__(self, num_embeddings: int) -> None:
        self.num_embeddings = num_embeddings
        self._place = self._numbers = torch.empty(0, dtype=torch.int32)
        self._last: tuple[Tensor, int, tuple[Tensor, Tensor]] | None = None

    def __call__(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Distinct ids (U,) ascending, and positions among them of every lookup (same shape as ``ids``)."""
        if self._last is not None and self._last[0] is ids and self._last[1] == ids._version:
            return self._last[2]
        flat = ids.reshape(-1)
        self._prepare(flat)
        ascending = self._sorted(flat)
        first = torch.ones(len(flat), dtype=torch.bool, device=flat.device)
        torch.ne(ascending[1:], ascending[:-1], out=first[1:])
        rows = ascending.masked_select(first).long()
        self._place.scatter_(0, rows, self._numbers[: rows.numel()])
        places = rows, self._place.gather(0, flat).view(ids.shape).long()
        self._last = (ids, ids._version, places)
        return places

    def _prepare(self, flat: Tensor) -> None:
        if self._place.numel() == 0 or self._place.device != flat.device:
            self._place = torch.zeros(self.num_embeddings, dtype=torch.int32, device=flat.device)
        if self._numbers.numel() < flat.numel() or self._numbers.device != flat.device:
            self._numbers = torch.arange(flat.numel(), dtype=torch.int32, device=flat.device)

    def _sorted(self, flat: Tensor) -> Tensor:
        narrow = flat.int() if self.num_embeddings <= 1 << 31 else flat
        if flat.device.type == "cpu":  # numpy's sort uses the processor's widest registers: ten times as fast
            return torch.from_numpy(np.sort(narrow.numpy()))
        return narrow.sort().values


def _wide(tensor: Tensor) -> Tensor:
    """The same memory as fewer, wider elements where rows allow it: copying rows costs by the element."""
    if tensor.dim() == 2 and tensor.is_contiguous() and tensor.dtype == torch.float32:
        for factor, dtype in ((4, torch.complex128), (2, torch.float64)):
            if tensor.shape[1] % factor == 0 and tensor.storage_offset() % factor == 0:
                return tensor.view(dtype)
    return tensor


def copy_rows_(table: Tensor, rows: Tensor, values: Tensor) -> Tensor:
    """``table[rows] = values`` in place, for rows that are all different; returns ``table``.

    Shape: table (N, …), rows (U,) int64, values (U, …).
    """
    into, given = _wide(table), _wide(values)
    if into.dtype != given.dtype:
        into, given = table, values
    into.index_copy_(0, rows, given)
    return table


def zero_rows_(table: Tensor, rows: Tensor) -> None:
    """``table[rows] = 0`` in place."""
    _wide(table).index_fill_(0, rows, 0)


def read_rows(table: Tensor, ids: Tensor) -> Tensor:
    """``table[ids]``, without a gradient of its own."""
    return F.embedding(ids, table)


def sum_rows(values: Tensor, ids: Tensor, shape: torch.Size) -> Tensor:
    """A table of ``shape`` whose rows are the sums of the values that were read from them: the gradient of a lookup.

    Shape: values (B, F, D), ids (B, F) int64 -> ``shape`` (N, D).
    """
    summed, flat = values.new_zeros(shape), ids.reshape(-1)
    if shape[1] == 1:
        return summed.view(-1).scatter_add_(0, flat, values.reshape(-1)).view(shape)
    return summed.index_add_(0, flat, values.reshape(-1, shape[1]))


class _Lookup(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table: Tensor, ids: Tensor) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(ids)
        ctx.shape = table.shape
        return read_rows(table, ids)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        (ids,) = ctx.saved_tensors
        return sum_rows(gradient, ids, ctx.shape), None


def lookup(table: Tensor, ids: Tensor) -> Tensor:
    """``table[ids]``; the same as `torch.nn.functional.embedding`, with a faster gradient on a CPU.

    Shape: table (N, D), ids (B, F) int64 -> (B, F, D).
    """
    if ids.device.type == "cpu" and table.requires_grad and torch.is_grad_enabled():
        result: Tensor = _Lookup.apply(table, ids)
        return result
    return F.embedding(ids, table)


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table: Tensor, rows: Tensor) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(rows)
        ctx.shape = table.shape
        return table.index_select(0, rows)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        (rows,) = ctx.saved_tensors
        return copy_rows_(gradient.new_zeros(ctx.shape), rows, gradient), None


def gather_rows(table: Tensor, rows: Tensor) -> Tensor:
    """``table[rows]`` for distinct rows: the gradient is copied, not accumulated, to its place.

    Shape: table (N, D), rows (U,) int64, all different -> (U, D).
    """
    result: Tensor = _GatherRows.apply(table, rows)
    return result
