"""AutoInt (arXiv 1810.11921): self-attention over the fields."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from ondevice.models.base import MODELS, BaseModel, InputLayer
from ondevice.models.layers import DNN, FlatInputs


class InteractingLayer(nn.Module):
    """Multi-head self-attention over fields with a residual, AutoInt's equations 5 to 8.

    Unlike the encoder layer of a transformer it has no scaling, no feed-forward part and no normalization.

    Args:
        in_features: width of each field's vector.
        num_heads: number of heads H.
        head_dim: width A of each head.

    Shape: (B, F, in_features) -> (B, F, H·A).
    """

    graph_bytes = 520
    """Of a program, what a layer's graph takes beside its linears (see `BaseModel.graph_bytes`)."""

    def __init__(self, in_features: int, num_heads: int, head_dim: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.head_dim = head_dim
        width = num_heads * head_dim
        self.query = nn.Linear(in_features, width, bias=False)
        self.key = nn.Linear(in_features, width, bias=False)
        self.value = nn.Linear(in_features, width, bias=False)
        self.residual = nn.Linear(in_features, width, bias=False)

    def _heads(self, projected: Tensor) -> Tensor:
        return projected.unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2)  # (B, H, F, A)

    def forward(self, fields: Tensor) -> Tensor:
        query, key, value = (self._heads(p(fields)) for p in (self.query, self.key, self.value))
        attention = torch.softmax(query @ key.transpose(-1, -2), dim=-1)  # (B, H, F, F)
        mixed = (attention @ value).transpose(1, 2).flatten(2)
        return torch.relu(mixed + self.residual(fields))


@MODELS.register("autoint")
class AutoInt(BaseModel):
    """Self-attention over the fields, beside first-order weights and a DNN.

    Args:
        num_layers: interacting layers.
        num_heads: heads in each.
        head_dim: width of each head.
        hidden: widths of the DNN beside the attention; empty for none.
        dropout: probability of zeroing a hidden unit of the DNN.
        batch_norm: normalize before each ReLU of the DNN.
    """

    can_rotate = True

    def __init__(
        self,
        num_fields: int,
        embedding_dim: int,
        *,
        num_layers: int = 3,
        num_heads: int = 2,
        head_dim: int = 32,
        hidden: tuple[int, ...] = (100, 100),
        dropout: float = 0.2,
        batch_norm: bool = True,
    ) -> None:
        super().__init__(num_fields, embedding_dim)
        widths = [embedding_dim] + [num_heads * head_dim] * num_layers
        self.layers = nn.Sequential(*(InteractingLayer(w, num_heads, head_dim) for w in widths[:-1]))
        self.output = nn.Linear(num_fields * widths[-1], 1)
        self.inputs = FlatInputs(num_fields, embedding_dim)
        self.dnn = DNN(num_fields * embedding_dim, tuple(hidden), dropout, batch_norm) if hidden else None

    def forward(self, embeddings: Tensor) -> Tensor:
        logits: Tensor = self.output(self.layers(embeddings).flatten(1)).squeeze(-1)
        if self.dnn is not None:
            logits = logits + self.dnn(self.inputs(embeddings))
        return logits

    def input_layers(self) -> list[InputLayer]:
        attention = self.layers[0]
        assert isinstance(attention, InteractingLayer)
        linears = (attention.query, attention.key, attention.value, attention.residual)
        layers = [InputLayer(linear, None) for linear in linears]
        if self.dnn is not None:
            layers.append(InputLayer(self.dnn.first, tuple(range(self.num_fields))))
        return layers

    def compacted(self, field_dims: list[int]) -> AutoInt:
        if self.dnn is None:
            return self
        other = copy.copy(self)
        inputs = FlatInputs(self.num_fields, self.embedding_dim, field_dims)
        dnn = self.dnn.folded().without_inputs(inputs.columns)
        attention = {name: copy.deepcopy(self._modules[name]) for name in ("layers", "output")}
        other._modules = {**attention, "inputs": inputs, "dnn": dnn}
        return other.eval()
