"""Teachers: finished models whose predictions a compact model learns."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor

from ondevice.distributed.processes import ALONE, Processes
from ondevice.errors import UserError
from ondevice.recommender import Recommender
from ondevice.training.batches import Batches, MadeUpPairs


def own_teacher(name: str) -> int | None:
    """0 for ``dense``, k for ``dense+k``; None for another run's folder."""
    match = re.fullmatch(r"dense(?:\+([1-9]\d?))?", name)
    return None if match is None else int(match[1] or 0)


class Teacher:
    """The mean prediction of one or several recommenders, on real rows and on pairs nobody rated.

    Targets of real rows are α·label + (1 − α)·teacher, those of made-up pairs the teacher's alone.

    Args:
        models: trained recommenders over the same ids.
        batches: the training split.
        item_columns: positions of the item-side fields.
        label_weight: α in [0, 1].
        pairs: made-up pairs per real row.
        processes: that share a batch.

    Raises: UserError: when pairs are asked for but all fields are on one side.
    """

    def __init__(
        self,
        models: Sequence[Recommender],
        batches: Batches,
        item_columns: tuple[int, ...],
        label_weight: float,
        pairs: float,
        processes: Processes = ALONE,
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
        self.processes = processes
        self._made_up = MadeUpPairs(batches, item_columns)
        self._real = torch.cat([self._predict_all(ids) for ids, _ in batches.in_order()])

    def _predict_all(self, ids: Tensor) -> Tensor:
        return self.processes.join(self.predict(*self.processes.share(ids)), len(ids))

    @torch.no_grad()
    def predict(self, ids: Tensor) -> Tensor:
        """Mean probability over the teachers, (B,)."""
        return torch.stack([torch.sigmoid(model(ids)) for model in self.models]).mean(0)

    def extend(
        self, rows: Tensor, ids: Tensor, labels: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Ids of a batch, its real rows and then made-up pairs, and soft targets of this process's share of it."""
        real, count = rows.numel(), round(self.pairs * rows.numel())
        whole = torch.cat([ids, self._made_up.draw(count, generator)]) if count else ids
        (places,) = self.processes.share(torch.arange(real + count, device=ids.device))
        places, made_up = places[places < real], places[places >= real]
        targets = self.label_weight * labels[places] + (1 - self.label_weight) * self._real[rows[places]]
        if count:
            targets = torch.cat([targets, self.predict(whole[made_up])])
        return whole, targets
