"""PEP, Plug-in Embedding Pruning: thresholds learnt with the table (ICLR 2021, arXiv 2101.07577)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ondevice.config.sections import Config
from ondevice.errors import ConfigError, nearest
from ondevice.forms.mask import Mask
from ondevice.forms.rows import gather_rows, lookup
from ondevice.forms.soft_threshold import pruned_lookup, soft_threshold
from ondevice.forms.table import TableInfo
from ondevice.methods.base import METHODS, Method, Selection
from ondevice.methods.context import SearchContext
from ondevice.methods.gains import principal_axes
from ondevice.methods.ranking import Ranking
from ondevice.methods.sizes.loss_units import LossUnits
from ondevice.methods.sizes.uniform import Uniform

GRANULARITIES = ("global", "dimension", "field", "field-dimension", "feature", "feature-dimension")
REGIMES = {
    "decay": "coupled weight decay raises s and lowers unseen rows; s0 is a timer (the paper's released settings)",
    "data": "data gradients move s from near the weights' scale; almost no weight decay",
    "budget": "data gradients move s; all s are shifted together so that the kept values meet a schedule",
    "loss": "as budget, but what is compared with a threshold is what leaving a value out would cost the loss",
}
BUDGET_REGIMES = ("budget", "loss")


THRESHOLD_INIT = {"decay": -15.0, "data": -11.0, "budget": -7.0, "loss": -7.0}
"""Initial s of each regime."""
MAX_SIZE = 8
"""Largest dimension of a row with ``regime="loss"``, where none is given and no larger one can be stored."""


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

    Where the loss is stationary for V̂, neither V nor s has a data gradient, and what is cut is what is small, not what
    is worth little. ``regime="loss"`` is ours: it follows a budget as well, but from the trained dense model on, along
    axes of each field's own and in the units of `LossUnits`, V̂ = sign(V)·ReLU(|V| − g(s)/√ĥ) with ĥ the Fisher diagonal
    of the value; it ends in leading dimensions, ranked by their worth against their thresholds.

    Args:
        granularity: what shares a threshold: global, dimension, field, field-dimension, feature,
            feature-dimension.
        regime: what moves s: ``decay``, ``data``, ``budget`` or ``loss``.
        threshold_init: initial s; None for the regime's own (−15, −11, −7 and −7).
        count_prior: γ of s₀ − γ·ln(occurrences), for thresholds of single rows: how much less a value must
            stand out for each time it is used. None for the regime's own (0, 0, 1 and 0).
        max_size: with ``regime="loss"``, the largest dimension a row may get, and that a step of the search computes;
            None for that of ``compact.store``, but no less than 8.
        prefix_dropout: with ``regime="loss"``, the share of a batch's rows of which only a drawn number of leading
            values is read.

    Raises: ConfigError: when the granularity or the regime is unknown, or an option is of another regime.
    """

    finds_positions = True
    searches_in_place = True
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
        max_size: int | None = None,
        prefix_dropout: float = 0.5,
    ) -> None:
        if granularity not in GRANULARITIES:
            raise ConfigError(
                f"compact.sizes.granularity: unknown '{granularity}' {nearest(granularity, GRANULARITIES)}"
            )
        if regime not in REGIMES:
            raise ConfigError(f"compact.sizes.regime: unknown '{regime}' {nearest(regime, REGIMES)}")
        if regime == "loss" and not granularity.startswith("feature"):
            raise ConfigError(
                f"compact.sizes.granularity: got '{granularity}', but thresholds of regime 'loss' belong to rows; use "
                "feature or feature-dimension"
            )
        if regime != "loss" and (max_size, prefix_dropout) != (None, 0.5):
            raise ConfigError(
                f"compact.sizes.max_size and prefix_dropout: of regime 'loss', but regime is '{regime}'; leave them out"
            )
        width = min(max_size or MAX_SIZE, embedding_dim) if regime == "loss" else embedding_dim
        super().__init__(info, width, init_std=init_std)
        self.loss = LossUnits(info, width, embedding_dim, prefix_dropout) if regime == "loss" else None
        embedding_dim = width
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

    @classmethod
    def completed(cls, options: Mapping[str, Any], largest: int | None) -> dict[str, Any]:
        if options.get("regime") != "loss" or options.get("max_size") is not None:
            return dict(options)
        return {**options, "max_size": max(MAX_SIZE, largest or MAX_SIZE)}

    def check(self, config: Config) -> None:
        if self.regime == "loss" and config.distributed.mode != "none":
            raise ConfigError(
                f"compact.sizes.regime: got 'loss' with distributed.mode={config.distributed.mode}, but curvature is "
                "measured by one process; set distributed.mode=none, or use compact.sizes.regime=budget"
            )

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
        if self.loss is not None:
            weight, s = values
            return self.loss.embeddings(rows, inverse, weight, s, self.training)
        return pruned_lookup(values[0], self._s_of_rows(rows, *values), inverse)

    def of_ids(self, ids: Tensor) -> Tensor:
        rows, inverse = self.info.distinct(ids)
        return self.of_rows(rows, inverse, *(gather_rows(p, rows) for p in self.row_parameters()))

    def prepare(self, context: SearchContext[Any]) -> list[dict[str, float]]:
        """Train with the thresholds in place; in the loss's units, on from the dense model."""
        if self.loss is not None:
            begin_with_dense(context)
        return context.search()

    @torch.no_grad()
    def _in_units(self, rows: Tensor, weight: Tensor) -> Tensor:
        """What is compared with g(s): values, or their worth to the loss, with their sign."""
        return weight if self.loss is None else weight * self.loss.per_unit(rows)

    def _pruned(self) -> Tensor:
        """V̂ of all rows, (N, D) or along axes (N, K), in what is compared with g(s)."""
        rows = torch.arange(self.num_embeddings, device=self.weight.device)
        values = self.row_parameters()
        return pruned_values(self._in_units(rows, self.weight), self._s_of_rows(rows, *values))

    def table(self) -> Tensor:
        if self.loss is None:
            return self._pruned()
        return self.loss.table(self._pruned())

    def num_kept(self) -> int:
        return int((self._pruned() != 0).sum())

    def thresholds(self) -> list[nn.Parameter]:
        return [self.s]

    @property
    def thresholds_decay(self) -> bool:
        return self.regime == "decay"

    @property
    def follows_budget(self) -> bool:
        return self.regime in BUDGET_REGIMES

    def margins(self, rows: Tensor, *values: Tensor) -> Tensor | None:
        if not self.follows_budget:
            return None
        return margins_of(self._in_units(rows, values[0]), self._s_of_rows(rows, *values))

    @torch.no_grad()
    def num_kept_of(self, rows: Tensor, *values: Tensor) -> int:
        worth = self._in_units(rows, values[0]).abs()
        return int((worth > torch.sigmoid(self._s_of_rows(rows, *values))).sum())

    @torch.no_grad()
    def shift_thresholds(self, amount: float) -> None:
        if not self.follows_budget:
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
        """|V̂|, or in the loss's units its worth, 0 for rows that training never saw."""
        return self._pruned().abs() * (self.info.counts > 0).to(self.weight.device)[:, None]

    def selected(self, kept: Tensor) -> Selection:
        """Positions; in the loss's units, leading dimensions by the square of their worth against their threshold."""
        if self.loss is None or self.embedding_dim == 1:
            return Mask(kept.cpu())
        rows = torch.arange(self.num_embeddings, device=self.weight.device)
        worth = self._in_units(rows, self.weight.detach()) / torch.sigmoid(self.s.detach())
        seen = (self.info.counts > 0).to(worth.device)
        return Ranking((worth.square() * seen[:, None]).cpu(), self.embedding_dim)

    def compact(self, target: int | None = None) -> Selection:
        """What survives the thresholds now."""
        return self.selected(self.scores() > 0)


@torch.no_grad()
def begin_with_dense(context: SearchContext[Any]) -> None:
    """Let the tables of a search in the loss's units begin with the trained dense model, and so its base model.

    First-order weights that are not stored (projected from embeddings, or left out) keep their values, and do not
    compete.
    """
    recommender, dense = context.recommender, context.dense()
    recommender.model.load_state_dict(dense.model.state_dict())
    recommender.bias.copy_(dense.bias)
    table = recommender.embedding
    assert isinstance(table, PEP)
    assert table.loss is not None
    with torch.enable_grad():
        axes = principal_axes(
            dense,
            context.train_batches(context.config.compact.sizes.batch_size),
            context.item_columns,
            num_dims=table.embedding_dim,
            pairs=0.0,
            seed=context.config.run.seed,
        )
    rows = torch.arange(table.num_embeddings, device=table.weight.device)
    table.weight.copy_(axes.coordinates)
    table.loss.begin(axes.directions, axes.curvature, axes.lookups)
    unit = 2 * table.loss.worth(rows, table.weight).amax()
    first = recommender.first_order
    if first is not None and dense.first_order is not None:
        if context.config.compact.store.first_order != "rows":
            recommender.first_order = first = Uniform(context.info, 1).to(table.weight.device)
        elif isinstance(first, PEP) and first.loss is not None:
            first.loss.begin(torch.ones_like(first.loss.axes), axes.logit_curvature[:, None], axes.lookups)
            unit = torch.maximum(unit, 2 * first.loss.worth(rows, dense.first_order.table()).amax())
            first.loss.unit.copy_(unit)
        first.weight.copy_(dense.first_order.table())
    table.loss.unit.copy_(unit)
