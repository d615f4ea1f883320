"""The distinct rows of a batch: what lets a step cost the batch and not the table."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class RowFinder:
    """Finds the distinct ids of a batch and where each lookup falls among them.

    Small tables use a scratch array over the ids (three times faster than sorting), large ones a sort. The
    last answer is kept, since several tables look up the same batch.

    Args:
        num_embeddings: number of ids N.
        scratch_limit: above this N the sort is used.
    """

    def __init__(self, num_embeddings: int, scratch_limit: int = 200_000) -> None:
        self.num_embeddings = num_embeddings
        self.sorts = num_embeddings > scratch_limit
        self._position: Tensor | None = None
        self._last: tuple[Tensor, int, tuple[Tensor, Tensor]] | None = None

    def __call__(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Distinct ids (U,) ascending, and positions among them of every lookup (same shape as ``ids``)."""
        if self._last is not None and self._last[0] is ids and self._last[1] == ids._version:
            return self._last[2]
        found = torch.unique(ids, return_inverse=True) if self.sorts else self._by_scratch(ids)
        self._last = (ids, ids._version, found)
        return found

    def _by_scratch(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        if self._position is None or self._position.device != ids.device:
            self._position = torch.zeros(self.num_embeddings, dtype=torch.int64, device=ids.device)
        present = torch.zeros(self.num_embeddings, dtype=torch.bool, device=ids.device)
        present[ids.reshape(-1)] = True
        rows = present.nonzero().squeeze(1)
        self._position[rows] = torch.arange(rows.numel(), device=ids.device)
        return rows, self._position[ids]


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table: Tensor, rows: Tensor) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(rows)
        ctx.shape = table.shape
        return table.index_select(0, rows)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        (rows,) = ctx.saved_tensors
        return gradient.new_zeros(ctx.shape).index_copy_(0, rows, gradient), None


def gather_rows(table: Tensor, rows: Tensor) -> Tensor:
    """``table[rows]`` for distinct rows: the gradient is copied, not accumulated, to its place.

    Shape: table (N, D), rows (U,) int64, all different -> (U, D).
    """
    result: Tensor = _GatherRows.apply(table, rows)
    return result
