"""Wide & Deep (arXiv 1606.07792): first-order weights beside a DNN."""

from __future__ import annotations

import copy

from torch import Tensor

from ondevice.models.base import MODELS, BaseModel, InputLayer
from ondevice.models.layers import DNN, FlatInputs


@MODELS.register("widedeep")
class WideDeep(BaseModel):
    """A linear model of the ids (the wide part, the recommender's first-order weights) plus a DNN of their embeddings.

    Without the cross-product features of the paper, which are chosen by hand for each data set.

    Args:
        hidden: width of each hidden layer.
        dropout: probability of zeroing a hidden unit.
        batch_norm: normalize before each ReLU.
    """

    can_rotate = True
    graph_bytes = -870  # no interaction of second order

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
        self.inputs = FlatInputs(num_fields, embedding_dim)
        self.dnn = DNN(num_fields * embedding_dim, tuple(hidden), dropout, batch_norm)

    def forward(self, embeddings: Tensor) -> Tensor:
        logits: Tensor = self.dnn(self.inputs(embeddings))
        return logits

    def input_layers(self) -> list[InputLayer]:
        return [InputLayer(self.dnn.first, tuple(range(self.num_fields)))]

    def compacted(self, field_dims: list[int]) -> WideDeep:
        other = copy.copy(self)
        inputs = FlatInputs(self.num_fields, self.embedding_dim, field_dims)
        other._modules = {"inputs": inputs, "dnn": self.dnn.folded().without_inputs(inputs.columns)}
        return other.eval()
