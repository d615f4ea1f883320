"""Teachers: finished models whose predictions a compact model learns."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ondevice.errors import UserError
from ondevice.recommender import Recommender
from ondevice.training.batches import Batches, MadeUpPairs


class Teacher:
    """The mean prediction of one or several recommenders, on real rows and on pairs nobody rated.

    Targets of real rows are α·label + (1 − α)·teacher, those of made-up pairs the teacher's alone.

    Args:
        models: trained recommenders over the same ids.
        batches: the training split.
        item_columns: positions of the item-side fields.
        label_weight: α in [0, 1].
        pairs: made-up pairs per real row.

    Raises: UserError: when pairs are asked for but all fields are on one side.
    """

    def __init__(
        self,
        models: Sequence[Recommender],
        batches: Batches,
        item_columns: tuple[int, ...],
        label_weight: float,
        pairs: float,
    ) -> None:
        fields = models[0].info.num_fields
        if pairs and not 0 < len(item_columns) < fields:
            raise UserError(
                "training.pairs: made-up pairs join context and item fields, but the schema has only one side; "
                "set pairs=0 or give fields a side"
            )
        self.models = [m.to(batches.device).eval() for m in models]
        for model in self.models:
            model.requires_grad_(False)
        self.label_weight = label_weight
        self.pairs = pairs
        self._made_up = MadeUpPairs(batches, item_columns)
        self._real = torch.cat([self.predict(ids) for ids, _ in batches.in_order()])

    @torch.no_grad()
    def predict(self, ids: Tensor) -> Tensor:
        """Mean probability over the teachers, (B,)."""
        return torch.stack([torch.sigmoid(model(ids)) for model in self.models]).mean(0)

    def extend(
        self, rows: Tensor, ids: Tensor, labels: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Ids and soft targets of a batch: its real rows, then made-up pairs."""
        targets = self.label_weight * labels + (1 - self.label_weight) * self._real[rows]
        count = round(self.pairs * rows.numel())
        if not count:
            return ids, targets
        made_up = self._made_up.draw(count, generator)
        return torch.cat([ids, made_up]), torch.cat([targets, self.predict(made_up)])
