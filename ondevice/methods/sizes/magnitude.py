"""Magnitude pruning: the plain baseline that stays close to every learnt method."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ondevice.forms.mask import Mask
from ondevice.methods.base import METHODS, Method
from ondevice.methods.context import SearchContext


@METHODS.register("magnitude")
class Magnitude(Method):
    """The values of largest magnitude in a table trained as usual."""

    finds_positions = True
    reads_dense = True

    def prepare(self, context: SearchContext[Any]) -> list[dict[str, float]]:
        """Take over the tables of the trained dense model."""
        for table, trained in zip(context.recommender.tables(), context.dense().tables(), strict=True):
            table.weight.data.copy_(trained.table())
        return []

    def scores(self) -> Tensor:
        """|V|, 0 for rows that training never saw."""
        return self.weight.detach().abs() * (self.info.counts > 0).to(self.weight.device)[:, None]

    def compact(self, target: int | None = None) -> Mask:
        """Every value of the rows seen in training."""
        return Mask((self.scores() > 0).cpu())
