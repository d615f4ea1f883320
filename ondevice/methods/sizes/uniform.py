"""Every row has the same dimension: the plain baseline."""

from __future__ import annotations

import torch

from ondevice.errors import BudgetTooSmall, ConfigError
from ondevice.forms.sizes import Sizes
from ondevice.forms.table import TableInfo
from ondevice.methods.base import METHODS, Method


@METHODS.register("uniform")
class Uniform(Method):
    """Every row keeps the same number of dimensions.

    Args:
        info: field offsets and training counts.
        embedding_dim: the table's dimension D.
        init_std: as in `EmbeddingTable`.
        min_count: occurrences in training below which a value is as good as unknown: its row stores nothing.

    Raises: ConfigError: when ``min_count`` is below 1.
    """

    def __init__(
        self, info: TableInfo, embedding_dim: int, *, init_std: float | None = None, min_count: int = 1
    ) -> None:
        super().__init__(info, embedding_dim, init_std=init_std)
        if min_count < 1:
            raise ConfigError(f"min_count: got {min_count}; it must be at least 1")
        self.min_count = min_count

    def compact(self, target: int | None = None) -> Sizes:
        """All rows seen often enough in training, at the largest dimension that keeps at most ``target`` values."""
        seen = self.info.counts >= self.min_count
        dim = self.embedding_dim
        if target is not None:
            dim = min(dim, target // max(1, int(seen.sum())))
        if dim < 1:
            raise BudgetTooSmall(
                f"method uniform: {target} values are fewer than the {int(seen.sum())} rows; allow at least as many"
            )
        return Sizes(torch.where(seen, dim, 0), self.embedding_dim)
