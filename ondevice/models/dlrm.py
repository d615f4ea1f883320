"""DLRM (arXiv 1906.00091): a DNN of the inner products of embeddings."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from ondevice.models.base import MODELS, BaseModel
from ondevice.models.layers import DNN


@MODELS.register("dlrm")
class DLRM(BaseModel):
    """All pairwise inner products of embeddings, through a DNN (the top MLP).

    Without the bottom MLP, whose input are numbers: here every field is one of ids. The embeddings themselves do not
    enter the DNN, as in the paper.

    Args:
        hidden: width of each hidden layer.
        dropout: probability of zeroing a hidden unit.
        batch_norm: normalize before each ReLU.
    """

    uses_first_order = False
    can_rotate = True  # inner products are the same in any orthogonal basis
    graph_bytes = 130

    def __init__(
        self,
        num_fields: int,
        embedding_dim: int,
        *,
        hidden: tuple[int, ...] = (100, 100),
        dropout: float = 0.2,
        batch_norm: bool = True,
    ) -> None:
        super().__init__(num_fields, embedding_dim)
        one, other = torch.triu_indices(num_fields, num_fields, 1)
        self.register_buffer("pairs", one * num_fields + other, persistent=False)
        self.dnn = DNN(one.numel(), tuple(hidden), dropout, batch_norm)

    pairs: Tensor

    def forward(self, embeddings: Tensor) -> Tensor:
        products = torch.bmm(embeddings, embeddings.transpose(1, 2)).flatten(1)
        logits: Tensor = self.dnn(products.index_select(1, self.pairs))
        return logits

    def compacted(self, field_dims: list[int]) -> DLRM:
        other = copy.copy(self)
        other._modules = {"dnn": self.dnn.folded()}
        return other.eval()
