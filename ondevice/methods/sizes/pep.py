"""PEP, Plug-in Embedding Pruning: thresholds learnt with the table (ICLR 2021, arXiv 2101.07577)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ondevice.errors import UserError, nearest
from ondevice.forms.base import Mask
from ondevice.forms.rows import gather_rows, lookup
from ondevice.forms.soft_threshold import pruned_lookup
from ondevice.forms.table import EmbeddingMethod, TableInfo
from ondevice.methods.base import METHODS

GRANULARITIES = ("global", "dimension", "field", "field-dimension", "feature", "feature-dimension")
REGIMES = {
    "decay": "coupled weight decay raises s and lowers unseen rows; s0 is a timer (the paper's released settings)",
    "data": "data gradients move s from near the weights' scale; almost no weight decay",
    "budget": "data gradients move s; all s are shifted together so that the kept values meet a schedule",
}


THRESHOLD_INIT = {"decay": -15.0, "data": -11.0, "budget": -7.0}
"""Initial s of each regime."""


@METHODS.register("pep")
class PEP(EmbeddingMethod):
    """Plug-in Embedding Pruning: a soft threshold learnt for each value, row, field or table.

    V̂ = sign(V)·ReLU(|V| − g(s)), g = sigmoid (equation 4). Only the rows of the batch are thresholded, so a
    step's cost does not grow with the table. ``regime="budget"`` departs from the paper, where nothing ties
    the thresholds to a size: now and then all thresholds are shifted by a common amount, which is solved
    so that just as many values are kept as a schedule allows. Data gradients then only
    say which values resist (the target is LEAP's idea, arXiv 2105.14636; solving for it is ours). They move s
    by plain scaled descent: Adam would move a row that is seen once an epoch as far as one seen at every step.

    Args:
        granularity: what shares a threshold: global, dimension, field, field-dimension, feature,
            feature-dimension.
        regime: what moves s: ``decay``, ``data`` or ``budget``.
        threshold_init: initial s; None for the regime's own (−15, −11 and −7).
        count_prior: γ of s₀ − γ·ln(occurrences), for thresholds of single rows: how much less a value must
            stand out for each time it is used. None for the regime's own (0, 0 and 1).

    Raises: UserError: when the granularity or the regime is unknown.
    """

    needs = "search"

    def __init__(
        self,
        info: TableInfo,
        embedding_dim: int,
        *,
        init_std: float | None = None,
        granularity: str = "feature-dimension",
        regime: str = "budget",
        threshold_init: float | None = None,
        count_prior: float | None = None,
    ) -> None:
        if granularity not in GRANULARITIES:
            raise UserError(
                f"method.granularity: unknown '{granularity}' {nearest(granularity, GRANULARITIES)}"
            )
        if regime not in REGIMES:
            raise UserError(f"method.regime: unknown '{regime}' {nearest(regime, REGIMES)}")
        super().__init__(info, embedding_dim, init_std=init_std)
        self.granularity = granularity
        self.regime = regime
        if threshold_init is None:
            threshold_init = THRESHOLD_INIT[regime]
        rows = {"global": 1, "dimension": 1, "field": info.num_fields, "field-dimension": info.num_fields}
        shape = (
            rows.get(granularity, info.num_embeddings),
            embedding_dim if granularity.endswith("dimension") else 1,
        )
        s = torch.full(shape, float(threshold_init))
        if granularity.startswith("feature"):
            gamma = count_prior if count_prior is not None else float(regime == "budget")
            s -= gamma * info.counts.clamp(min=1).log()[:, None]
        elif count_prior:
            raise UserError(
                f"method.count_prior: granularity '{granularity}' has no threshold per row; use feature"
            )
        self.s = nn.Parameter(s)
        self.register_buffer("last_of_field", info.field_offsets[1:] - 1, persistent=False)

    last_of_field: Tensor

    def _s_of_rows(self, rows: Tensor, *values: Tensor) -> Tensor:
        """The thresholds of ``rows`` before the sigmoid, broadcastable to (U, D)."""
        if len(values) == 2:
            return values[1]
        if not self.granularity.startswith("field"):
            return self.s
        return lookup(self.s, torch.bucketize(rows, self.last_of_field))

    def row_parameters(self) -> list[nn.Parameter]:
        return [self.weight, self.s] if self.granularity.startswith("feature") else [self.weight]

    def of_rows(self, rows: Tensor, inverse: Tensor, *values: Tensor) -> Tensor:
        return pruned_lookup(values[0], self._s_of_rows(rows, *values), inverse)

    def of_ids(self, ids: Tensor) -> Tensor:
        rows, inverse = self.info.distinct(ids)
        return self.of_rows(rows, inverse, *(gather_rows(p, rows) for p in self.row_parameters()))

    @torch.no_grad()
    def table(self) -> Tensor:
        rows = torch.arange(self.num_embeddings, device=self.weight.device)
        threshold = torch.sigmoid(self._s_of_rows(rows, *self.row_parameters()))
        return self.weight - torch.clamp(self.weight, -threshold, threshold)

    def num_kept(self) -> int:
        return int((self.table() != 0).sum())

    def thresholds(self) -> list[nn.Parameter]:
        return [self.s]

    @property
    def thresholds_decay(self) -> bool:
        return self.regime == "decay"

    @property
    def follows_budget(self) -> bool:
        return self.regime == "budget"

    @torch.no_grad()
    def margins(self, rows: Tensor, *values: Tensor) -> Tensor | None:
        """g⁻¹(|V|) − s: a value is pruned when all s rise by its margin."""
        if self.regime != "budget":
            return None
        return torch.logit(values[0].abs().clamp(1e-9, 1 - 1e-6)) - self._s_of_rows(rows, *values)

    @torch.no_grad()
    def num_kept_of(self, rows: Tensor, *values: Tensor) -> int:
        return int((values[0].abs() > torch.sigmoid(self._s_of_rows(rows, *values))).sum())

    @torch.no_grad()
    def shift_thresholds(self, amount: float) -> None:
        if self.regime != "budget":
            raise RuntimeError(f"regime {self.regime} follows no budget")
        self.s.add_(amount)

    def scores(self) -> Tensor:
        """|V̂|, 0 for rows that training never saw."""
        return self.table().abs() * (self.info.counts > 0).to(self.weight.device)[:, None]

    def compact(self, target: int | None = None) -> Mask:
        """The values that survive the thresholds now."""
        return Mask((self.scores() > 0).cpu())
