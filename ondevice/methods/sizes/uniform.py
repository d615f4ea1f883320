"""Every row has the same dimension: the plain baseline."""

from __future__ import annotations

import torch

from ondevice.errors import BudgetTooSmall
from ondevice.forms.sizes import Sizes
from ondevice.methods.base import METHODS, Method


@METHODS.register("uniform")
class Uniform(Method):
    """Every row keeps the same number of dimensions."""

    def compact(self, target: int | None = None) -> Sizes:
        """All rows seen in training, at the largest dimension that keeps at most ``target`` values."""
        seen = self.info.counts > 0
        dim = self.embedding_dim
        if target is not None:
            dim = min(dim, target // max(1, int(seen.sum())))
        if dim < 1:
            raise BudgetTooSmall(
                f"method uniform: {target} values are fewer than the {int(seen.sum())} rows; allow at least as many"
            )
        return Sizes(torch.where(seen, dim, 0), self.embedding_dim)
