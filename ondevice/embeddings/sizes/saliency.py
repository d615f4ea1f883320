"""Sizes by what each dimension of a row is worth: second-order saliency in a trained model."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from ondevice.embeddings.base import METHODS, EmbeddingMethod, TableInfo
from ondevice.embeddings.forms import Ranking


@METHODS.register("saliency")
class Saliency(EmbeddingMethod):
    """Leading dimensions by the loss that leaving them out would cost a trained model.

    The saliency of a value v is ½·h·v², h the curvature of the loss (Optimal Brain Damage, LeCun et al. 1990,
    equation 5). With log loss the Gauss-Newton h of a direction b at one interaction is p·(1 − p)·(b·∂logit/∂e)²,
    summed over those that look the row up, so that a row counts as often as it occurs. First each field's
    dimensions are turned so that the leading ones hold as much of its curvature-weighted variance as they can: the
    order that a table of leading dimensions would learn. The measurement by rows (`training.saliency`) and its use
    for prefix sizes are this project's.

    Args:
        max_size: the largest dimension a row may get.
        pairs: made-up pairs per real row that the curvature is measured on as well.
        row_cost: what a stored row costs beside its dimensions, in values: its key, which rows of long keys that
            occur once may not be worth.
    """

    needs: ClassVar[str] = "gradients"

    def __init__(
        self,
        info: TableInfo,
        embedding_dim: int,
        *,
        init_std: float | None = None,
        max_size: int = 8,
        pairs: float = 1.0,
        row_cost: float = 0.0,
    ) -> None:
        super().__init__(info, embedding_dim, init_std=init_std)
        self.max_size = min(max_size, embedding_dim)
        self.pairs = pairs
        self.row_cost = row_cost
        self.gains: Tensor | None = None

    def compact(self, target: int | None = None) -> Ranking:
        """All leading dimensions by their gains, those of rows that training never saw without any.

        Raises: RuntimeError: before ``gains`` (N, max_size) are set.
        """
        if self.gains is None:
            raise RuntimeError("gains are measured in a trained model first: training.saliency.measure_gains")
        seen = (self.info.counts > 0).to(self.gains.device)
        return Ranking((self.gains * seen[:, None]).cpu(), self.embedding_dim, self.row_cost)
