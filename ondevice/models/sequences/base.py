"""The contract of a model of a history: it sees embeddings of items in time order, never ids."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from ondevice.registry import Registry

SEQUENCE_MODELS: Registry[type[SequenceModel]] = Registry("sequence model")


class SequenceModel(nn.Module):
    """Maps the embeddings of what a user did, the newest last, to a vector of the user after each of them.

    The vector after place t depends on the places up to t alone. A history shorter than L has absent places, all
    of them before the first present one; what stands there changes nothing. After an absent place the user is
    ``nobody``: a learnt vector, with which items rank by how popular they are.

    Args:
        embedding_dim: dimension D of the embeddings, and of the user's vector.
        last: the newest interactions that are read, L at most.

    Shape: embeddings (B, L, D), present (B, L) bool -> user vectors (B, L, D).
    """

    linear_bits: int = 8
    """Bits a weight that linear layers ship with: 8 or 4."""
    graph_bytes: ClassVar[int] = 0

    def __init__(self, embedding_dim: int, *, last: int = 50) -> None:
        super().__init__()
        if last < 1:
            raise ValueError(f"last must be at least 1, got {last}")
        self.embedding_dim = embedding_dim
        self.last = last
        self.nobody = nn.Parameter(torch.zeros(embedding_dim))

    def forward(self, embeddings: Tensor, present: Tensor) -> Tensor:
        return torch.where(present.unsqueeze(-1), self.vectors(embeddings, present), self.nobody)

    def vectors(self, embeddings: Tensor, present: Tensor) -> Tensor:
        """The user's vectors after each present place; after others anything finite.

        Shape: as of the model.
        """
        raise NotImplementedError(f"{type(self).__name__} has no vectors")

    def newest(self, embeddings: Tensor, present: Tensor) -> Tensor:
        """The user's vector (B, D) after the newest place."""
        vectors = self.newest_vector(embeddings, present)
        return torch.where(present[:, -1:], vectors, self.nobody)

    def newest_vector(self, embeddings: Tensor, present: Tensor) -> Tensor:
        """The last of `vectors`, (B, D), for less than all of them cost."""
        return self.vectors(embeddings, present)[:, -1]
