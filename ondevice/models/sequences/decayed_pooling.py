"""A pooled history whose past fades: a state of one vector, and one step for each tap."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ondevice.models.sequences.base import SEQUENCE_MODELS, SequenceModel


@SEQUENCE_MODELS.register("decayed_pooling")
class DecayedPooling(SequenceModel):
    """An average of the history that fades, and a small network.

    p_t = a ⊙ p_{t−1} + (1 − a) ⊙ e_t with a learnt decay a in (0, 1) for each dimension and p_0 = 0;
    the user's vector is W₂·GELU(W₁·norm([p_t, e_t])). All places of a history are computed at once, as products with
    the powers of a; `step` computes one from the state before it. With a ``width`` of its own the model reads W₀·e_t in
    place of e_t, W₀ the identity at first: a table of few dimensions then does not make it narrow.

    Args:
        last: the newest interactions that are read.
        hidden: width of the hidden layer; 0 for 2·D.
        dropout: probability of zeroing a value of the embeddings, and of the hidden layer.
        width: dimension of the state; 0 for D.
        gaps: whether time gaps are read, too: with those ``until`` the next item a tap changes the newest place's.
    """

    logs: Tensor | None
    ages: Tensor

    def __init__(
        self,
        embedding_dim: int,
        *,
        last: int = 50,
        hidden: int = 0,
        dropout: float = 0.2,
        width: int = 0,
        gaps: bool = False,
    ) -> None:
        dim = width or embedding_dim
        super().__init__(embedding_dim, last=last, gap_width=dim if gaps else 0)
        hidden = hidden or 2 * dim
        self.enter = nn.Linear(embedding_dim, width, bias=False) if width else None
        if self.enter is not None:
            nn.init.eye_(self.enter.weight)
        # half of a memory is lost after 1 … 30 steps
        half_lives = torch.logspace(0, torch.tensor(30.0).log2().item(), dim, base=2)
        self.decay = nn.Parameter(torch.logit(0.5 ** (1 / half_lives)))
        self.norm = nn.LayerNorm(2 * dim)
        self.network = nn.Sequential(
            nn.Linear(2 * dim, hidden),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, embedding_dim),
        )
        self.dropout = nn.Dropout(dropout)
        self.register_buffer("logs", None)

    def vectors(self, embeddings: Tensor, present: Tensor, gaps: Tensor | None = None) -> Tensor:
        items = self._entered(embeddings, gaps) * present.unsqueeze(-1)
        return self._read(self._pooled(items, items.shape[1]), items)

    def newest_vector(self, embeddings: Tensor, present: Tensor, gaps: Tensor | None = None) -> Tensor:
        items = self._entered(embeddings, gaps) * present.to(embeddings.dtype).unsqueeze(-1)
        if self.logs is None:
            return self._read(self._pooled(items, 1)[:, 0], items[:, -1])
        weights = torch.exp(self.ages * self.logs[0] + self.logs[1])
        return self._read((items * weights).sum(1), items[:, -1])

    def _entered(self, embeddings: Tensor, gaps: Tensor | None) -> Tensor:
        items: Tensor = self.dropout(embeddings)
        return self.with_gaps(items if self.enter is None else self.enter(items), gaps)

    def last_bias(self) -> Tensor:
        return cast(nn.Linear, self.network[-1]).bias

    @torch.no_grad()
    def compacted(self) -> SequenceModel:
        made = (
            super().compacted()
        )  # the powers of a are worked out in the program: as a table they were 50 rows of it
        logs = torch.stack([F.logsigmoid(self.decay), F.logsigmoid(-self.decay)])
        made.register_buffer("logs", logs)
        made.register_buffer("ages", torch.arange(self.last - 1.0, -1, -1)[:, None])
        return made

    def step(self, state: Tensor, item: Tensor, gaps: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The state and the user's vector after one more item; the state before the first is zero.

        Shape: state (B, width), item (B, D), gaps (B,) int64 -> state (B, width), user vector (B, D).
        """
        item = self._entered(item, gaps)
        rate = torch.sigmoid(self.decay)
        state = rate * state + (1 - rate) * item
        return state, self._read(state, item)

    def _pooled(self, items: Tensor, count: int) -> Tensor:
        """p_t of the last ``count`` places: a product for each dimension, (D, T, L) x (D, L, B).

        Shape: items (B, L, D) -> (B, count, D).
        """
        weights = self._weights(items.shape[1], count)
        return torch.matmul(weights, items.permute(2, 1, 0)).permute(2, 1, 0)

    def _weights(self, length: int, count: int) -> Tensor:
        """(1 − a)·a^(t − s), what p_t has of e_s, of the last ``count`` places t; 0 where s comes after t.

        Powers of a that is below 1 only fall with their exponent: nothing is divided, nothing grows.

        Shape: (D, count, length).
        """
        places = torch.arange(length, device=self.decay.device)
        ages = places[length - count :, None] - places
        logs = F.logsigmoid(self.decay)[:, None, None] * ages.clamp(min=0)
        return torch.exp(logs + F.logsigmoid(-self.decay)[:, None, None]) * (ages >= 0)

    def _read(self, state: Tensor, item: Tensor) -> Tensor:
        result: Tensor = self.network(self.norm(torch.cat([state, item], -1)))
        return result
