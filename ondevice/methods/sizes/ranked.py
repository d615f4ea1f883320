"""What methods share that rank all leading dimensions of all rows by what they are worth."""

from __future__ import annotations

from torch import Tensor

from ondevice.forms.base import Ranking
from ondevice.forms.table import EmbeddingMethod, TableInfo


class Ranked(EmbeddingMethod):
    """A method whose gains are measured in a trained model, and from which the sizes for any budget follow.

    Args:
        row_cost: what a stored row costs beside its dimensions, in values: its key, which rows of long keys that
            occur once may not be worth.
    """

    def __init__(
        self,
        info: TableInfo,
        embedding_dim: int,
        *,
        init_std: float | None = None,
        row_cost: float = 0.0,
    ) -> None:
        super().__init__(info, embedding_dim, init_std=init_std)
        self.row_cost = row_cost
        self.gains: Tensor | None = None

    def compact(self, target: int | None = None) -> Ranking:
        """All leading dimensions by their gains, those of rows that training never saw without any.

        Raises: RuntimeError: before ``gains`` (N, K) are set.
        """
        if self.gains is None:
            raise RuntimeError("gains are measured in a trained model first")
        seen = (self.info.counts > 0).to(self.gains.device)
        dim = max(self.embedding_dim, self.gains.shape[1])
        return Ranking((self.gains * seen[:, None]).cpu(), dim, self.row_cost)
