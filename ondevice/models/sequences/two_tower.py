"""Two towers: the mean of a history through a network, against one vector for each item."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn

from ondevice.models.sequences.base import SEQUENCE_MODELS, SequenceModel


@SEQUENCE_MODELS.register("two_tower")
class TwoTower(SequenceModel):
    """The mean of the newest interactions, and a network: what retrieval at YouTube calls the user's tower.

    u_t = W₂·ReLU(W₁·m_t) with m_t the mean of the vectors e_s, t − L < s ≤ t, of the present places (Covington et al.
    2016, section 3). The item's tower is its vector: a row, and those of its attributes where the data have some
    (`ondevice.next_item.ItemAttributes`). Departures: items are scored by ⟨u, e⟩ + w of the same table that the history
    reads, and the user has no features beside the history.

    Args:
        last: the newest interactions that are read, L.
        hidden: widths of the hidden layers.
        dropout: probability of zeroing a value of the mean, and of each hidden layer.
        gaps: whether time gaps are read, too.
    """

    graph_bytes = -2_200  # neither norm nor decay

    def __init__(
        self,
        embedding_dim: int,
        *,
        last: int = 50,
        hidden: Sequence[int] = (128,),
        dropout: float = 0.2,
        gaps: bool = False,
    ) -> None:
        super().__init__(embedding_dim, last=last, gap_width=embedding_dim if gaps else 0)
        layers: list[nn.Module] = [nn.Dropout(dropout)]
        width = embedding_dim
        for each in hidden:
            layers += [nn.Linear(width, each), nn.ReLU(), nn.Dropout(dropout)]
            width = each
        self.network = nn.Sequential(*layers, nn.Linear(width, embedding_dim))

    def vectors(self, embeddings: Tensor, present: Tensor, gaps: Tensor | None = None) -> Tensor:
        there = present.to(embeddings.dtype).unsqueeze(-1)
        sums, counts = (each.cumsum(1) for each in (self.with_gaps(embeddings, gaps) * there, there))
        result: Tensor = self.network(sums / counts.clamp(min=1))
        return result

    def newest_vector(self, embeddings: Tensor, present: Tensor, gaps: Tensor | None = None) -> Tensor:
        there = present.to(embeddings.dtype).unsqueeze(-1)
        result: Tensor = self.network(
            (self.with_gaps(embeddings, gaps) * there).sum(1) / there.sum(1).clamp(min=1)
        )
        return result

    def last_bias(self) -> Tensor:
        return cast(nn.Linear, self.network[-1]).bias
