"""What methods share that rank all leading dimensions of all rows by what they are worth."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ondevice.forms.sizes import Sizes
from ondevice.forms.table import TableInfo
from ondevice.methods.base import Method, Selection
from ondevice.methods.ranking import Ranking


class Ranked(Method):
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

    def forms_with(
        self, others: Sequence[Method], target: int, removed: Tensor | None, first_order: bool
    ) -> list[Selection]:
        """The ranking, from which the sizes for any target follow."""
        return [self.compact(), *(table.first_order_form() for table in others)]

    def first_order_form(self) -> Selection:
        """None of its own: rows that keep an embedding get a first-order weight."""
        return Sizes(torch.zeros(self.num_embeddings, dtype=torch.int64), 1)

    def compact(self, target: int | None = None) -> Ranking:
        """All leading dimensions by their gains, those of rows that training never saw without any.

        Raises: RuntimeError: before ``gains`` (N, K) are set.
        """
        if self.gains is None:
            raise RuntimeError("gains are measured in a trained model first")
        seen = (self.info.counts > 0).to(self.gains.device)
        dim = max(self.embedding_dim, self.gains.shape[1])
        return Ranking((self.gains * seen[:, None]).cpu(), dim, self.row_cost)
