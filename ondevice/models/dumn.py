"""DUMN (arXiv 2107.05474): what somebody liked and did not like, purified of each other and kept in memories."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ondevice.data.slots import Slots
from ondevice.models.base import MODELS, BaseModel, History, InputLayer
from ondevice.models.layers import DNN
from ondevice.models.places import AskedItem

MASKED = 1e9
"""What is taken from the score of a place that is not to be read."""
TINY = 1e-12


def purified(x: Tensor, y: Tensor) -> Tensor:
    """x − (⟨x, y⟩ / ⟨y, y⟩)·y: x without its part along y, and x itself where y is 0.

    Shape: x (B, L, D), y (B, 1, D) -> (B, L, D).
    """
    transposed = y.transpose(1, 2)
    return x - torch.bmm(torch.bmm(x, transposed) / (torch.bmm(y, transposed) + TINY), y)


class Attention(nn.Module):
    """softmax((Q·x)·(K·z) / √D) over the places z that are present; where none is, 0 is read.

    Args:
        dim: dimension D.

    Shape: queries x (B, M, D), places z (B, L, D), present (B, L) or None for all -> (B, M, D).
    """

    graph_bytes = 500
    """Of a program, what its graph takes beside its linears (see `BaseModel.graph_bytes`)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.scale = dim**-0.5
        self.query, self.key = nn.Linear(dim, dim, bias=False), nn.Linear(dim, dim, bias=False)

    def forward(self, queries: Tensor, places: Tensor, present: Tensor | None = None) -> Tensor:
        scores = torch.bmm(self.query(queries), self.key(places).transpose(1, 2)) * self.scale
        if present is None:
            return torch.bmm(scores.softmax(-1), places)
        mask = present.unsqueeze(1)
        return torch.bmm((scores + (mask - 1) * MASKED).softmax(-1) * mask, places)


class Memory(nn.Module):
    """Slots of a user, written by a history through a gate and read by attention with an item.

    C = attention of the slots over the history, g = σ(W·[M, C] + b), M ← M + g ⊙ (C − M). An empty history writes
    nothing.

    Args:
        dim: dimension D of a slot.
        num_slots: number of slots M.
    """

    graph_bytes = 4_200
    """Of a program, what the graph of a history takes beside its linears and attention."""

    def __init__(self, dim: int, num_slots: int) -> None:
        super().__init__()
        self.initial = nn.Parameter(torch.empty(num_slots, dim))
        nn.init.normal_(self.initial, std=0.1)
        self.content, self.reading = Attention(dim), Attention(dim)
        self.gate = nn.Linear(2 * dim, dim)

    def write(self, state: Tensor, history: History) -> Tensor:
        """The slots (B, M, D) after a history, from those before it."""
        content = self.content(state, history.values, history.present)
        gate = torch.sigmoid(self.gate(torch.cat([state, content], 2))) * _count(history).clamp(max=1)
        return state + gate * (content - state)

    def forward(self, history: History, item: Tensor) -> Tensor:
        """What an item (B, 1, D) reads, (B, 1, D), after a history of somebody of whom nothing else is known."""
        state = self.initial + 0 * item  # one for each row
        slots: Tensor = self.reading(item, self.write(state, history))
        return slots


def _count(history: History) -> Tensor:
    """How many places are present, (B, 1, 1): XNNPACK takes products."""
    return torch.bmm(history.present.unsqueeze(1), history.present.unsqueeze(2))


@MODELS.register("dumn")
class DUMN(BaseModel):
    """Histories of likes and dislikes, each purified of the other, in memories that the item reads.

    A layer brings all embeddings to ``width``. The places of a history attend to it (refinement); the mean y of the
    history that says the opposite is taken out of each, x − (⟨x, y⟩ / ⟨y, y⟩)·y (purification); slots take in the rest
    through a gate, and the item reads them (memory); a second gate weighs what each kind says of the item, and a DNN
    reads all that beside the other fields. The first history is what was liked, the second what was not; further ones
    are purified of the second.

    Departures: two kinds of feedback where the paper has four (clicks, and what was passed over); slots begin with
    learnt ones and are written by the row's histories alone, so that a score depends on the row and nothing is kept
    between calls; one head; fewer and smaller slots, and attention in place of the feed-forward part.

    Args:
        width: dimension of all parts.
        memory_slots: slots of each kind's memory.
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
        width: int = 16,
        memory_slots: int = 8,
        hidden: Sequence[int] = (100, 100),
        dropout: float = 0.2,
        batch_norm: bool = True,
    ) -> None:
        super().__init__(num_fields, embedding_dim)
        slots = Slots.single(num_fields) if slots is None else slots
        histories = slots.histories
        self.item = AskedItem(slots, num_fields)
        self.project = nn.Linear(embedding_dim, width, bias=False)
        self.refinements = nn.ModuleList(Attention(width) for _ in histories)
        self.memories = nn.ModuleList(Memory(width, memory_slots) for _ in histories)
        self.gates = nn.ModuleList(nn.Linear(2 * width, 1) for _ in histories)
        self.dnn = DNN(num_fields * width, tuple(hidden), dropout, batch_norm)

    def forward(  # type: ignore[override]
        self, embeddings: Tensor, histories: Sequence[History] = ()
    ) -> Tensor:
        fields: Tensor = self.project(embeddings)
        if not histories:
            return self.dnn(fields.flatten(1))  # type: ignore[no-any-return]
        read = [fields]
        histories = [History(self.project(each.values), each.present) for each in histories]
        item = self.item(fields)
        for number, (memory, gate) in enumerate(zip(self.memories, self.gates, strict=True)):
            answer = memory(self._pure(number, histories), item)
            read.append(answer * torch.sigmoid(gate(torch.cat([answer, item], 2))))
        result: Tensor = self.dnn(torch.cat(read, 1).flatten(1))
        return result

    def _pure(self, number: int, histories: Sequence[History]) -> History:
        """A history whose places have attended to it, without what the opposite one has."""
        values, present = histories[number].values, histories[number].present
        values = (values + self.refinements[number](values, values, present)) * present.unsqueeze(2)
        if len(histories) > 1:
            other = histories[0 if number == 1 else 1]
            mean = torch.bmm(other.present.unsqueeze(1), other.values) / _count(other).clamp(min=1)
            values = purified(values, mean)
        return History(values, present)

    def input_layers(self) -> list[InputLayer]:
        return [InputLayer(self.project, None)]

    def compacted(self, field_dims: list[int]) -> DUMN:
        other = copy.copy(self)
        parts = {name: copy.deepcopy(module) for name, module in self._modules.items() if name != "dnn"}
        other._modules = {**parts, "dnn": self.dnn.folded()}
        return other.eval()
