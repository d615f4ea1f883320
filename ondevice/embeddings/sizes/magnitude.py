"""Magnitude pruning: the plain baseline that stays close to every learnt method."""

from __future__ import annotations

from ondevice.embeddings.base import METHODS, EmbeddingMethod
from ondevice.embeddings.forms import Mask


@METHODS.register("magnitude")
class Magnitude(EmbeddingMethod):
    """The values of largest magnitude in a table trained as usual."""

    needs = "training"

    def compact(self, target: int | None = None) -> Mask:
        """The ``target`` largest values by magnitude, among rows seen in training."""
        score = self.weight.detach().abs() * (self.info.counts > 0)[:, None]
        kept = score > 0
        if target is not None and target < int(kept.sum()):
            threshold = score.flatten().kthvalue(score.numel() - target).values
            kept = score > threshold
        return Mask(kept.cpu())
