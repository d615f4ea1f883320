"""Factorization machine (Rendle 2010)."""

from __future__ import annotations

from torch import Tensor

from ondevice.models.base import MODELS, BaseModel
from ondevice.models.layers import second_order


@MODELS.register("fm")
class FM(BaseModel):
    """Factorization machine: first-order weights and all pairwise inner products."""

    can_rotate = True  # inner products are the same in any orthogonal basis

    def forward(self, embeddings: Tensor) -> Tensor:
        return second_order(embeddings)
