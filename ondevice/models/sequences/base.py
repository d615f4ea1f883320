"""The contract of a model of a history: it sees embeddings of items in time order, never ids."""

from __future__ import annotations

import copy
from typing import ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ondevice.data.gaps import NUM_BUCKETS
from ondevice.forms.packed import PackedTable, dequantized
from ondevice.registry import Registry

SEQUENCE_MODELS: Registry[type[SequenceModel]] = Registry("sequence model")


class SequenceModel(nn.Module):
    """Maps the embeddings of what a user did, the newest last, to a vector of the user after each of them.

    The vector after place t depends on the places up to t alone. A history shorter than L has absent places, all
    of them before the first present one; what stands there changes nothing. After an absent place the user is
    ``nobody``: a learnt vector, with which items rank by how popular they are.

    With ``gaps`` a learnt vector of the bucket of each place's time gap (`ondevice.data.gaps`) is added to what the
    model reads there; it is 0 where no gap is known.

    Args:
        embedding_dim: dimension D of the embeddings, and of the user's vector.
        last: the newest interactions that are read, L at most.
        gap_width: dimension of the vectors of gaps; 0 where none are read.

    Shape: embeddings (B, L, D), present (B, L) bool, gaps (B, L) int64 or None -> user vectors (B, L, D).
    """

    linear_bits: int = 8
    """Bits a weight that linear layers ship with: 8 or 4."""
    graph_bytes: ClassVar[int] = 0
    """Of a program, what its graph takes beside that of a norm, a decayed mean and its linears."""

    def __init__(self, embedding_dim: int, *, last: int = 50, gap_width: int = 0) -> None:
        super().__init__()
        if last < 1:
            raise ValueError(f"last must be at least 1, got {last}")
        self.embedding_dim = embedding_dim
        self.last = last
        self.nobody = nn.Parameter(torch.zeros(embedding_dim))
        self.gaps: nn.Module | None = None
        if gap_width:
            self.gaps = nn.Embedding(NUM_BUCKETS, gap_width, padding_idx=0)
            nn.init.zeros_(self.gaps.weight)

    @property
    def reads_gaps(self) -> bool:
        return self.gaps is not None

    def with_gaps(self, values: Tensor, gaps: Tensor | None) -> Tensor:
        """What is read of each place (B, L, W), with the vectors of the gaps (B, L) added where the model has some."""
        if self.gaps is None or gaps is None:
            return values
        result: Tensor = values + self.gaps(gaps)
        return result

    def forward(self, embeddings: Tensor, present: Tensor, gaps: Tensor | None = None) -> Tensor:
        return torch.where(present.unsqueeze(-1), self.vectors(embeddings, present, gaps), self.nobody)

    def vectors(self, embeddings: Tensor, present: Tensor, gaps: Tensor | None = None) -> Tensor:
        """The user's vectors after each present place; after others anything finite.

        Shape: as of the model.
        """
        raise NotImplementedError(f"{type(self).__name__} has no vectors")

    def newest(self, embeddings: Tensor, present: Tensor, gaps: Tensor | None = None) -> Tensor:
        """The user's vector (B, D) after the newest place."""
        is_there = present[:, -1:].to(embeddings.dtype)
        return self.newest_vector(embeddings, present, gaps) * is_there + self.nobody * (1 - is_there)

    def newest_vector(self, embeddings: Tensor, present: Tensor, gaps: Tensor | None = None) -> Tensor:
        """The last of `vectors`, (B, D), for less than all of them cost."""
        return self.vectors(embeddings, present, gaps)[:, -1]

    def last_bias(self) -> Tensor:
        """What is added last to every vector of a user: with an item's embedding it is a bias of the item.

        Shape: (D,), a parameter of the model.
        """
        raise NotImplementedError(f"{type(self).__name__} has no last_bias")

    def packed_tables(self) -> list[PackedTable]:
        """Tables of a compacted model that are quantized as those of embeddings are."""
        return [self.gaps] if isinstance(self.gaps, PackedGaps) else []

    def compacted(self) -> SequenceModel:
        """An equal model, in evaluation, whose `newest` is made of operators that XNNPACK takes without a break.

        It takes histories of exactly ``last`` places.
        """
        made = copy.deepcopy(self).eval()
        for module in list(made.modules()):
            for name, child in list(module.named_children()):
                if isinstance(child, nn.LayerNorm):
                    setattr(module, name, ProductNorm(child))
        if made.gaps is not None:
            made.gaps = PackedGaps(cast(nn.Embedding, made.gaps).weight.detach())
        return made


class PackedGaps(PackedTable):
    """The vectors of gaps as a program holds them.

    Shape: gaps (B, L) int64 -> (B, L, W).
    """

    graph_bytes = 1_350
    """Of a program, what reading gaps takes in rank and recommend together."""

    def __init__(self, vectors: Tensor) -> None:
        super().__init__(vectors.clone(), vectors.shape[1])

    def dimensions(self) -> Tensor:
        return torch.arange(self.dim).expand(self.values.shape)

    def forward(self, gaps: Tensor) -> Tensor:
        vectors = dequantized(F.embedding(gaps, self.values))
        return vectors if self.scale is None else vectors * self.scale


class ProductNorm(nn.Module):
    """A layer norm whose means are products with 1 / D: XNNPACK has no norm, and each one would cut a program in two.

    y = (x − m) / √(mean((x − m)²) + ε) · w + b with m = mean(x), as `torch.nn.LayerNorm`.

    Args:
        norm: over the last dimension.

    Shape: (…, D) -> (…, D).
    """

    mean: Tensor

    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = norm.weight, norm.bias, norm.eps
        (dim,) = norm.normalized_shape
        self.register_buffer("mean", torch.full((1, dim), 1 / dim))

    def forward(self, values: Tensor) -> Tensor:
        centred = values - F.linear(values, self.mean)
        variance = F.linear(centred * centred, self.mean)
        return centred * torch.rsqrt(variance + self.eps) * self.weight + self.bias
