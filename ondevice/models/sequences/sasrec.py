"""SASRec (arXiv 1808.09781): self-attention over the newest interactions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ondevice.forms.packed import PackedTable, dequantized
from ondevice.models.sequences.base import SEQUENCE_MODELS, SequenceModel

MASKED = 1e9
"""What is taken from the score of a place that is not to be read."""


@SEQUENCE_MODELS.register("sasrec")
class SASRec(SequenceModel):
    """Self-attention over a history.

    h⁰_t = √D·e_t + p_{L−t}; each block adds attention over the places up to t, then a network of one hidden layer;
    the user's vector is the norm of the last block's output. Departures from the paper (section III): norms stand
    before each part and at the end (pre-norm), GELU in place of ReLU, positions p are counted from the newest place,
    and attention weights are not dropped.

    Args:
        last: the newest interactions that are read.
        num_blocks: blocks, one after the other.
        num_heads: heads of the attention, of which the dimension must be a multiple.
        dropout: probability of zeroing a value of the embeddings, and of what each part adds.
        gaps: whether time gaps are read, too.
    """

    places: Tensor

    def __init__(
        self,
        embedding_dim: int,
        *,
        last: int = 50,
        num_blocks: int = 2,
        num_heads: int = 2,
        dropout: float = 0.2,
        gaps: bool = False,
    ) -> None:
        super().__init__(embedding_dim, last=last, gap_width=embedding_dim if gaps else 0)
        if embedding_dim % num_heads:
            raise ValueError(
                f"embedding.dim must be a multiple of num_heads, got {embedding_dim} and {num_heads}"
            )
        self.positions = nn.Parameter(torch.empty(last, embedding_dim))
        nn.init.normal_(self.positions, std=0.02)
        self.blocks = nn.ModuleList(Block(embedding_dim, num_heads, dropout) for _ in range(num_blocks))
        self.norm = nn.LayerNorm(embedding_dim)
        self.dropout = nn.Dropout(dropout)
        self.register_buffer("places", torch.arange(last, dtype=torch.float32), persistent=False)
        self.packed: PackedPositions | None = None

    def vectors(self, embeddings: Tensor, present: Tensor, gaps: Tensor | None = None) -> Tensor:
        hidden, mask = self._begin(embeddings, gaps), self._mask(present, present.shape[1])
        for block in self.blocks:
            hidden = block(hidden, hidden, mask)
        result: Tensor = self.norm(hidden)
        return result

    def newest_vector(self, embeddings: Tensor, present: Tensor, gaps: Tensor | None = None) -> Tensor:
        hidden, (*others, last) = self._begin(embeddings, gaps), self.blocks
        mask = self._mask(present, present.shape[1]) if others else None
        for block in others:
            hidden = block(hidden, hidden, mask)
        hidden = last(hidden[:, -1:], hidden, self._mask(present, 1))  # the other places are not asked again
        result: Tensor = self.norm(hidden[:, -1])
        return result

    def last_bias(self) -> Tensor:
        return self.norm.bias

    def _begin(self, embeddings: Tensor, gaps: Tensor | None) -> Tensor:
        """What the first block reads (B, L, D)."""
        positions: Tensor = self.positions if self.packed is None else self.packed()
        length = embeddings.shape[1]
        if length < self.last:
            positions = positions[self.last - length :]
        scaled = embeddings * self.embedding_dim**0.5
        hidden: Tensor = self.dropout(self.with_gaps(scaled, gaps) + positions)
        return hidden

    def _mask(self, present: Tensor, asking: int) -> Tensor:
        """What is added to the scores of the last ``asking`` places, so that no later place and no absent one is read.

        An absent place reads itself: a softmax over nothing is no number. Differences of places say which of two is the
        later one: whole matrices would be 20 kB of a program.

        Shape: present (B, L) -> (B, 1, asking, L).
        """
        places = self.places[: present.shape[1]]
        ask = places[len(places) - asking :, None]
        earlier, later = (ask - places).clamp(0, 1), (places - ask).clamp(0, 1)
        is_there = present.to(places.dtype)[:, None, None, :]
        return (earlier * (is_there - 1) - later) * MASKED

    def packed_tables(self) -> list[PackedTable]:
        return [*super().packed_tables(), *([] if self.packed is None else [self.packed])]

    def compacted(self) -> SequenceModel:
        made = super().compacted()
        for block in made.blocks:  # type: ignore[union-attr]
            block.split_key_value()
        made.packed = PackedPositions(made.positions.detach())  # type: ignore[operator, arg-type]
        del made.positions
        return made


class PackedPositions(PackedTable):
    """Positions as a program holds them: int8 once it is quantized, 50 of 48 dimensions in 2 kB in place of 10.

    Shape: () -> (L, D).
    """

    def __init__(self, positions: Tensor) -> None:
        super().__init__(positions.clone(), positions.shape[1])
        self.register_buffer("places", torch.arange(len(positions)))

    places: Tensor

    def dimensions(self) -> Tensor:
        return torch.arange(self.dim).expand(self.values.shape)

    def forward(self) -> Tensor:
        positions = dequantized(F.embedding(self.places, self.values))
        return positions if self.scale is None else positions * self.scale


class Block(nn.Module):
    """Attention and a network of one hidden layer, each added to what it reads.

    Shape: places that ask (B, T, D), places that are read (B, L, D), mask added to scores (B, 1, T, L) -> (B, T, D).
    """

    graph_bytes = 5_670
    """Of a program, what attention's graph takes beside its linears, in rank and recommend together."""

    def __init__(self, dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.attention_norm, self.network_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.query = nn.Linear(dim, dim)
        self.key_value: nn.Linear | nn.ModuleList = nn.Linear(dim, 2 * dim)
        self.output = nn.Linear(dim, dim)
        self.network = nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, dim))
        self.dropout = nn.Dropout(dropout)

    def forward(self, asking: Tensor, hidden: Tensor, mask: Tensor) -> Tensor:
        normed = self.attention_norm(hidden)
        queries = normed if asking is hidden else self.attention_norm(asking)
        key, value = self._key_value(normed)
        query, key, value = (self._heads(each) for each in (self.query(queries), key, value))
        # plain products: for so few places they are twenty times faster on a CPU than the fused attention's gradient
        scores = (query @ key.transpose(2, 3)) * query.shape[-1] ** -0.5
        weights = (scores + mask).softmax(-1)
        attended = (weights.to(value.dtype) @ value).transpose(1, 2).flatten(2)
        asking = asking + self.dropout(self.output(attended))
        result: Tensor = asking + self.dropout(self.network(self.network_norm(asking)))
        return result

    def _key_value(self, normed: Tensor) -> Sequence[Tensor]:
        if isinstance(self.key_value, nn.ModuleList):
            return [part(normed) for part in self.key_value]
        return self.key_value(normed).chunk(2, -1)  # type: ignore[no-any-return]

    def split_key_value(self) -> None:
        """Have a layer for keys and one for values: XNNPACK does not divide a result."""
        assert isinstance(self.key_value, nn.Linear)
        whole, parts = self.key_value, nn.ModuleList()
        for weight, bias in zip(whole.weight.chunk(2), whole.bias.chunk(2), strict=True):
            part = nn.Linear(whole.in_features, len(bias))
            part.weight, part.bias = nn.Parameter(weight.detach()), nn.Parameter(bias.detach())
            parts.append(part)
        self.key_value = parts

    def _heads(self, values: Tensor) -> Tensor:
        """(B, T, D) -> (B, heads, T, D / heads)."""
        return values.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
