"""Dimensions by popularity alone: the rule that learnt sizes must beat to earn their place."""

from __future__ import annotations

import torch

from ondevice.forms.sizes import Sizes
from ondevice.forms.table import TableInfo
from ondevice.methods.base import METHODS, Method


@METHODS.register("frequency")
class Frequency(Method):
    """Mixed dimensions: a row's dimension grows with a power of how often it occurs.

    d_n = round(c · count_n^exponent), at most ``max_size``; c is solved so that the budget is met. After
    MDE (arXiv 1909.11810), with the popularity of each row in place of that of a block of rows.

    Args:
        exponent: how steeply dimensions follow counts, in [0, 1]; 0 is uniform.
        max_size: the largest dimension a row may get.
    """

    def __init__(
        self,
        info: TableInfo,
        embedding_dim: int,
        *,
        init_std: float | None = None,
        exponent: float = 0.4,
        max_size: int = 8,
    ) -> None:
        super().__init__(info, embedding_dim, init_std=init_std)
        self.exponent = exponent
        self.max_size = min(max_size, embedding_dim)

    def compact(self, target: int | None = None) -> Sizes:
        """Sizes whose sum is the largest that the rule reaches without passing ``target``."""
        weight = self.info.counts.double().pow(self.exponent) * (self.info.counts > 0)

        def sizes(scale: float) -> torch.Tensor:
            return (weight * scale).round().clamp(max=self.max_size).long()

        low, high = 0.0, float(self.max_size) / float(weight[weight > 0].min()) + 1.0
        if target is None or int(sizes(high).sum()) <= target:
            return Sizes(sizes(high), self.embedding_dim)
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if int(sizes(middle).sum()) <= target else (low, middle)
        return Sizes(sizes(low), self.embedding_dim)
