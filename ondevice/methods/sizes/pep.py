"""PEP, Plug-in Embedding Pruning: thresholds learnt with the table (ICLR 2021, arXiv 2101.07577)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ondevice.errors import ConfigError, nearest
from ondevice.forms.mask import Mask
from ondevice.forms.rows import gather_rows, lookup
from ondevice.forms.soft_threshold import pruned_lookup, soft_threshold
from ondevice.forms.table import TableInfo
from ondevice.methods.base import METHODS, Method
from ondevice.methods.context import SearchContext

GRANULARITIES = ("global", "dimension", "field", "field-dimension", "feature", "feature-dimension")
REGIMES = {
    "decay": "coupled weight decay raises s and lowers unseen rows; s0 is a timer (the paper's released settings)",
    "data": "data gradients move s from near the weights' scale; almost no weight decay",
    "budget": "data gradients move s; all s are shifted together so that the kept values meet a schedule",
}


THRESHOLD_INIT = {"decay": -15.0, "data": -11.0, "budget": -7.0}
"""Initial s of each regime."""


@torch.no_grad()
def pruned_values(weight: Tensor, s: Tensor) -> Tensor:
    """V̂ = sign(V)·ReLU(|V| − g(s)) without a gradient (equation 4).

    Shape: weight (U, D), s broadcastable to it -> (U, D).
    """
    threshold = torch.sigmoid(s)
    return weight - torch.clamp(weight, -threshold, threshold)


@torch.no_grad()
def margins_of(weight: Tensor, s: Tensor) -> Tensor:
    """g⁻¹(|V|) − s: a value is pruned when all s rise by its margin.

    Shape: weight (U, D), s broadcastable to it -> (U, D).
    """
    return torch.logit(weight.abs().clamp(1e-9, 1 - 1e-6)) - s


def initial_thresholds(counts: Tensor, init: float, count_prior: float) -> Tensor:
    """s₀ − γ·ln(occurrences) of rows.

    Shape: counts (U,) -> (U,).
    """
    return init - count_prior * counts.clamp(min=1).log()


@dataclass(frozen=True)
class PEPRows:
    """PEP on some rows, as sharded tables search with it: see `ondevice.methods.base.RowSearch`.

    Args:
        by_value: whether every value has a threshold, or every row.
        init: initial s of a row that occurs once.
        count_prior: γ of init − γ·ln(occurrences).
    """

    by_value: bool
    init: float
    count_prior: float

    def initial(self, counts: Tensor) -> Tensor:
        return initial_thresholds(counts, self.init, self.count_prior)

    def pruned(self, weight: Tensor, s: Tensor) -> Tensor:
        return soft_threshold(weight, s)

    def margins(self, weight: Tensor, s: Tensor) -> Tensor:
        return margins_of(weight, s)


@METHODS.register("pep")
class PEP(Method):
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

    Raises: ConfigError: when the granularity or the regime is unknown.
    """

    finds_positions = True
    search_keys = (
        "epochs",
        "batch_size",
        "learning_rate",
        "threshold_learning_rate",
        "weight_decay",
        "decoupled_decay",
        "embedding_penalty",
        "check_every",
        "row_wise",
        "precision",
    )

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
            raise ConfigError(
                f"compact.sizes.granularity: unknown '{granularity}' {nearest(granularity, GRANULARITIES)}"
            )
        if regime not in REGIMES:
            raise ConfigError(f"compact.sizes.regime: unknown '{regime}' {nearest(regime, REGIMES)}")
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
            s = initial_thresholds(info.counts, float(threshold_init), gamma)[:, None].expand(shape).clone()
        elif count_prior:
            raise ConfigError(
                f"compact.sizes.count_prior: granularity '{granularity}' has no threshold per row; use feature"
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

    def prepare(self, context: SearchContext) -> list[dict[str, float]]:
        """Train with the thresholds in place."""
        return context.search()

    def table(self) -> Tensor:
        rows = torch.arange(self.num_embeddings, device=self.weight.device)
        return pruned_values(self.weight, self._s_of_rows(rows, *self.row_parameters()))

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

    def margins(self, rows: Tensor, *values: Tensor) -> Tensor | None:
        if self.regime != "budget":
            return None
        return margins_of(values[0], self._s_of_rows(rows, *values))

    @torch.no_grad()
    def num_kept_of(self, rows: Tensor, *values: Tensor) -> int:
        return int((values[0].abs() > torch.sigmoid(self._s_of_rows(rows, *values))).sum())

    @torch.no_grad()
    def shift_thresholds(self, amount: float) -> None:
        if self.regime != "budget":
            raise RuntimeError(f"regime {self.regime} follows no budget")
        self.s.add_(amount)

    @classmethod
    def row_search(cls, options: Mapping[str, Any]) -> PEPRows:
        if options.get("regime", "budget") != "budget":
            raise ConfigError("compact.sizes.regime: sharded thresholds follow a budget")
        granularity = options.get("granularity", "feature-dimension")
        if granularity not in ("feature", "feature-dimension"):
            raise ConfigError(
                f"compact.sizes.granularity: got '{granularity}'; sharded thresholds belong to rows: feature or "
                "feature-dimension"
            )
        init, prior = options.get("threshold_init"), options.get("count_prior")
        return PEPRows(
            granularity == "feature-dimension",
            THRESHOLD_INIT["budget"] if init is None else float(init),
            1.0 if prior is None else float(prior),
        )

    def scores(self) -> Tensor:
        """|V̂|, 0 for rows that training never saw."""
        return self.table().abs() * (self.info.counts > 0).to(self.weight.device)[:, None]

    def compact(self, target: int | None = None) -> Mask:
        """The values that survive the thresholds now."""
        return Mask((self.scores() > 0).cpu())
