"""Magnitude pruning: the plain baseline that stays close to every learnt method."""

from __future__ import annotations

from torch import Tensor

from ondevice.forms.base import Mask
from ondevice.forms.table import EmbeddingMethod
from ondevice.methods.base import METHODS


@METHODS.register("magnitude")
class Magnitude(EmbeddingMethod):
    """The values of largest magnitude in a table trained as usual."""

    needs = "training"

    def scores(self) -> Tensor:
        """|V|, 0 for rows that training never saw."""
        return self.weight.detach().abs() * (self.info.counts > 0).to(self.weight.device)[:, None]

    def compact(self, target: int | None = None) -> Mask:
        """Every value of the rows seen in training."""
        return Mask((self.scores() > 0).cpu())
