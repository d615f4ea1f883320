"""DIN (arXiv 1706.06978): of a history counts what has to do with the item that is asked about."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from ondevice.data.slots import Slots
from ondevice.models.base import MODELS, BaseModel, History, InputLayer
from ondevice.models.layers import DNN, FlatInputs
from ondevice.models.places import AskedItem


class TargetAttention(nn.Module):
    """Σ_l a(h_l, t)·h_l over the places of a history, with a a small network on [h, t, h − t, h ⊙ t].

    Args:
        embedding_dim: dimension D.
        unit: width of each hidden layer of the network.

    Shape: history of (B, L, D), item t (B, 1, D) -> (B, 1, D).
    """

    graph_bytes = 2_000
    """Of a program, what a history's graph takes beside its linears (see `BaseModel.graph_bytes`)."""

    def __init__(self, embedding_dim: int, unit: tuple[int, ...]) -> None:
        super().__init__()
        self.network = DNN(4 * embedding_dim, unit, 0.0, batch_norm=False)

    def forward(self, history: History, item: Tensor) -> Tensor:
        values, present = history.values, history.present
        asked = item * present.unsqueeze(2)  # (B, L, D)
        weights = self.network(torch.cat([values, asked, values - asked, values * asked], 2))
        return torch.bmm(weights.unsqueeze(1), values)


@MODELS.register("din")
class DIN(BaseModel):
    """Target attention over each history, then a DNN on it and on the other fields.

    A history becomes Σ_l a(h_l, t)·h_l (equation 3), where t is the embedding of the field whose values it holds, and a
    is a small network of one output on [h, t, h − t, h ⊙ t]. The weights a are not normalized, as in the paper, so that
    their sum says how much of a taste there is. Departures: ReLU in place of Dice; the unit reads the difference and
    the product in place of the outer product, as the authors' code does; each history has a unit of its own.

    Args:
        unit: width of each hidden layer of the activation unit.
        hidden: width of each hidden layer of the DNN.
        dropout: probability of zeroing a hidden unit of the DNN.
        batch_norm: normalize before each ReLU of the DNN.
    """

    uses_first_order = False
    reads_histories = True

    def __init__(
        self,
        num_fields: int,
        embedding_dim: int,
        slots: Slots | None = None,
        *,
        unit: Sequence[int] = (36,),
        hidden: Sequence[int] = (100, 100),
        dropout: float = 0.2,
        batch_norm: bool = True,
    ) -> None:
        super().__init__(num_fields, embedding_dim)
        slots = Slots.single(num_fields) if slots is None else slots
        histories = slots.histories
        self.item = AskedItem(slots, num_fields)
        self.order = [*self.item.others, *histories]  # of the fields in what the DNN reads
        self.attention = nn.ModuleList(TargetAttention(embedding_dim, tuple(unit)) for _ in histories)
        self.inputs = FlatInputs(num_fields, embedding_dim)
        self.dnn = DNN(num_fields * embedding_dim, tuple(hidden), dropout, batch_norm)

    def forward(  # type: ignore[override]
        self, embeddings: Tensor, histories: Sequence[History] = ()
    ) -> Tensor:
        if not histories:
            return self.dnn(self.inputs(embeddings))  # type: ignore[no-any-return]
        item = self.item(embeddings)
        attended = [
            attention(history, item) for attention, history in zip(self.attention, histories, strict=True)
        ]
        result: Tensor = self.dnn(self.inputs(torch.cat([embeddings, *attended], 1)))
        return result

    def input_layers(self) -> list[InputLayer]:
        units = [InputLayer(cast(TargetAttention, each).network.first, None) for each in self.attention]
        return [*units, InputLayer(self.dnn.first, tuple(self.order))]

    def compacted(self, field_dims: list[int]) -> DIN:
        other = copy.copy(self)
        inputs = FlatInputs(self.num_fields, self.embedding_dim, [field_dims[field] for field in self.order])
        dnn = self.dnn.folded().without_inputs(inputs.columns)
        kept = {name: copy.deepcopy(self._modules[name]) for name in ("item", "attention")}
        other._modules = {**kept, "inputs": inputs, "dnn": dnn}
        return other.eval()
