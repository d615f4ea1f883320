"""DCN-v2 (arXiv 2008.13535): cross layers and a DNN side by side."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from ondevice.errors import ConfigError
from ondevice.models.base import MODELS, BaseModel, InputLayer
from ondevice.models.layers import DNN, FlatInputs


class CrossLayer(nn.Module):
    """x ↦ x₀ ⊙ (U·V·x + b) + x (equation 2, with the one expert of low rank of its section 3.2).

    Args:
        width: of x.
        rank: of U·V.

    Shape: x₀ and x (B, width) -> (B, width).
    """

    graph_bytes = -20
    """Of a program, what a layer's graph takes beside its linears (see `BaseModel.graph_bytes`)."""

    def __init__(self, width: int, rank: int) -> None:
        super().__init__()
        self.down = nn.Linear(width, rank, bias=False)
        self.up = nn.Linear(rank, width)

    def forward(self, first: Tensor, x: Tensor) -> Tensor:
        return first * self.up(self.down(x)) + x

    @torch.no_grad()
    def at(self, columns: Tensor) -> CrossLayer:
        """The same for inputs of which all but ``columns`` (K,) int64 are zero, and stay so."""
        other = CrossLayer(columns.numel(), self.down.out_features)
        other.down.weight.copy_(self.down.weight[:, columns])
        other.up.weight.copy_(self.up.weight[columns])
        other.up.bias.copy_(self.up.bias[columns])
        return other


@MODELS.register("dcn")
class DCN(BaseModel):
    """Deep & Cross Network V2, parallel: crosses of bounded degree beside a DNN, both into one output.

    An input that is zero stays zero through the cross layers, so that pruned dimensions leave rows and columns of
    them. Their products are taken value by value: another basis is another model.

    Args:
        num_layers: cross layers, each of which raises the degree by one.
        rank: of their weights.
        hidden: width of each hidden layer of the DNN.
        dropout: probability of zeroing a hidden unit.
        batch_norm: normalize before each ReLU.

    Raises: ConfigError: when there is no layer, or a rank below 1.
    """

    uses_first_order = False
    graph_bytes = -870  # no interaction of second order

    def __init__(
        self,
        num_fields: int,
        embedding_dim: int,
        *,
        num_layers: int = 2,
        rank: int = 16,
        hidden: tuple[int, ...] = (100, 100),
        dropout: float = 0.2,
        batch_norm: bool = True,
    ) -> None:
        super().__init__(num_fields, embedding_dim)
        if num_layers < 1 or rank < 1:
            raise ConfigError(
                f"model.num_layers, model.rank: got {num_layers}, {rank}; both must be at least 1"
            )
        width = num_fields * embedding_dim
        self.inputs = FlatInputs(num_fields, embedding_dim)
        self.layers = nn.ModuleList(CrossLayer(width, rank) for _ in range(num_layers))
        self.output = nn.Linear(width, 1)
        self.dnn = DNN(width, tuple(hidden), dropout, batch_norm)

    def forward(self, embeddings: Tensor) -> Tensor:
        first = x = self.inputs(embeddings)
        for layer in self.layers:
            x = layer(first, x)
        logits: Tensor = self.output(x).squeeze(-1) + self.dnn(first)
        return logits

    def input_layers(self) -> list[InputLayer]:
        fields = tuple(range(self.num_fields))
        layers = [InputLayer(self.output, fields), InputLayer(self.dnn.first, fields)]
        for layer in self.layers:
            assert isinstance(layer, CrossLayer)
            layers.append(InputLayer(layer.down, fields))
            layers.append(InputLayer(layer.up, fields, is_reading=False, is_writing=True))
        return layers

    @torch.no_grad()
    def compacted(self, field_dims: list[int]) -> DCN:
        other = copy.copy(self)
        inputs = FlatInputs(self.num_fields, self.embedding_dim, field_dims)
        output = nn.Linear(inputs.columns.numel(), 1)
        output.weight.copy_(self.output.weight[:, inputs.columns])
        output.bias.copy_(self.output.bias)
        other._modules = {
            "inputs": inputs,
            "layers": nn.ModuleList(layer.at(inputs.columns) for layer in self.layers),  # type: ignore[operator]
            "output": output,
            "dnn": self.dnn.folded().without_inputs(inputs.columns),
        }
        return other.eval()
