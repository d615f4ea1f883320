"""The contract of a method: how it is searched with, and what it ends in; and the registry of all methods."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from ondevice.config.sections import Config
from ondevice.errors import BudgetTooSmall, ConfigError, UserError
from ondevice.forms.base import Form
from ondevice.forms.mask import Mask
from ondevice.forms.sizes import Sizes
from ondevice.forms.table import EmbeddingTable
from ondevice.methods.context import SearchContext
from ondevice.methods.ranking import Ranking
from ondevice.registry import Registry

METHODS: Registry[type[Method]] = Registry("method")
Selection = Form | Ranking
"""What a method ends in."""


class RowSearch(Protocol):
    """The arithmetic of a search on some rows alone, with one s per row or value: what sharded tables need of a method.

    Shape: weight (U, C) float32, s broadcastable to it.
    """

    @property
    def by_value(self) -> bool:
        """Whether every value has an s, or else a row's embedding and its first-order weight have one each."""

    def initial(self, counts: Tensor) -> Tensor:
        """The first s (U,) of rows by their training counts (U,)."""

    def pruned(self, weight: Tensor, s: Tensor) -> Tensor:
        """The values in effect, with a gradient for both."""

    def margins(self, weight: Tensor, s: Tensor) -> Tensor:
        """How far each value is from being pruned when all s rise alike."""


class Method(EmbeddingTable):
    """A table of N rows as it is searched, in some way that ends in what is kept of it.

    A search calls `prepare`, which trains or measures what the method needs and gets it from the context; then
    `forms_with` for each target, or, where `prepare` had the table searched in place, takes what was found on the way.

    Shape: ids (B, F) int64 -> (B, F, D) float32.
    """

    finds_positions: ClassVar[bool] = False
    """Whether single values are found, so that ``compact.store=positions`` can keep them."""
    ships_as_selected: ClassVar[bool] = False
    """Whether its form ends the matter, so that sizes are neither limited nor made multiples of a step."""
    searches_in_place: ClassVar[bool] = False
    """Whether it finds what is kept while its table is trained (`SearchContext.search`): models of ratings alone."""
    reads_dense: ClassVar[bool] = False
    """Whether it asks for the trained dense model, which a run of the next item has for teachers and starts alone."""
    search_keys: ClassVar[tuple[str, ...]] = ()
    """Keys of `ondevice.config.sections.SCHEDULE` that it reads; others are refused."""

    @classmethod
    def completed(cls, options: Mapping[str, Any], largest: int | None) -> dict[str, Any]:
        """A run's options, with those that follow from the largest dimension that a row is stored at.

        Args:
            options: as given.
            largest: ``compact.store.max_size``; None for no limit.
        """
        return dict(options)

    def check(self, config: Config) -> None:
        """Whether the rest of a configuration suits the method: known before anything is trained.

        Raises: UserError: naming the key that does not, and the way out.
        """

    def prepare(self, context: SearchContext[Any]) -> list[dict[str, float]]:
        """Train or measure what `compact` needs; returns the history of that training, an entry per epoch."""
        return []

    def compact(self, target: int | None = None) -> Selection:
        """What this table ends in; a rule keeps at most ``target`` values, a method with `scores` what they say."""
        raise NotImplementedError(f"{type(self).__name__} does not say what it ends in")

    def forms_with(
        self, others: Sequence[Method], target: int, removed: Tensor | None, first_order: bool
    ) -> list[Selection]:
        """What this table and those beside it end in, together at no more than ``target`` values.

        By default a rule: the most values that `compact` allows, and a first-order weight for every row that keeps
        something. Arguments as of `ondevice.methods.sizing.forms_at`.

        Raises: UserError: when the target is too small.
        """

        def forms(number: int) -> list[Selection]:
            form = self.compact(number)
            return [form, *(Sizes((form.row_sizes() > 0).long(), 1) for _ in others)]

        def shipped(selections: list[Selection]) -> int:
            kept = selections if first_order else selections[:1]
            return sum((f if removed is None else f.without(removed)).num_kept() for f in kept)

        def whole(selections: list[Selection]) -> int:
            if selections[0].is_shipped_as_selected:
                return shipped(selections)
            return sum(form.num_kept() for form in selections)

        values = sum(table.weight.numel() for table in (self, *others))

        def most(counted: Callable[[list[Selection]], int]) -> list[Selection] | None:
            """The largest selections of which so much is counted; None where the smallest are too large."""
            low, high = 1, max(target, values)
            best: list[Selection] | None = None
            while low <= high:
                middle = (low + high) // 2
                try:
                    selections = forms(middle)
                except UserError:
                    low = middle + 1
                    continue
                if counted(selections) <= target:
                    best, low = selections, middle + 1
                else:
                    high = middle - 1
            return best

        # sizes are counted whole, since `shipped_sizes` makes more of them where rows are stored nowhere; such rows are
        # left out where a budget does not reach so far
        best = most(whole) or most(shipped)
        if best is None:
            low, high = 0, values
            while high - low > 1:
                middle = (low + high) // 2
                try:
                    forms(middle)
                except UserError:
                    low = middle
                else:
                    high = middle
            least = shipped(forms(high))
            raise BudgetTooSmall(
                f"budget of {target} values: too small for the rows seen in training; the smallest is {least}"
            )
        return best

    def first_order_form(self) -> Selection:
        """What this table keeps as the first-order weights beside embeddings that are ranked."""
        return self.compact()

    def scores(self) -> Tensor | None:
        """What ranks single values when a budget is met, (N, D), 0 for values already gone; None for rules."""
        return None

    def selected(self, kept: Tensor) -> Selection:
        """What is stored when a target keeps some of the values that `scores` ranks; by default their positions.

        Shape: kept as `scores`, bool.
        """
        return Mask(kept.cpu())

    def margins(self, rows: Tensor, *values: Tensor) -> Tensor | None:
        """How far each value is from being pruned, (U, D), for methods that follow a budget; else None.

        Args: rows and values as of `of_rows`.
        """
        return None

    def num_kept_of(self, rows: Tensor, *values: Tensor) -> int:
        """Number of values in effect among those of ``rows``; an estimate where a method cannot tell."""
        return self.num_kept() * len(rows) // self.num_embeddings

    def shift_thresholds(self, amount: float) -> None:
        """Raise every s of a method that follows a budget: values whose margin is not above it are pruned."""
        raise RuntimeError(f"{type(self).__name__} follows no budget")

    @classmethod
    def row_search(cls, options: Mapping[str, Any]) -> RowSearch:
        """The search of sharded tables, with the method's options.

        Raises: UserError: when the method cannot be sharded, or not with these options.
        """
        raise ConfigError(
            f"compact.sizes.name: got '{METHODS.name_of(cls)}', which needs whole tables and cannot be sharded; use "
            "compact.sizes=pep"
        )


def competing(tables: Sequence[Method]) -> Sequence[Method]:
    """The tables that share the budget: those whose method scores values, or all when none does.

    First-order weights that were given a method of their own without scores (``uniform``) are neither
    pruned nor counted, as in the protocol of the PEP paper's code.
    """
    scoring = [table for table in tables if table.scores() is not None]
    return scoring or tables


def forms_at(
    tables: Sequence[Method], target: int, removed: Tensor | None = None, first_order: bool = True
) -> list[Selection]:
    """The forms of all tables, those that share the budget together at no more than ``target`` values.

    Methods that score values compete over one ranking; else the embeddings' method decides (`Method.forms_with`).

    Args:
        tables: the embedding table, then the first-order one where there is one.
        target: most values to keep, over the tables that share the budget.
        removed: ids (N,) bool that will not be stored; shared rows, whose number nothing changes later, use what
            these leave.
        first_order: whether first-order weights are stored for each row; for shared rows, too.
    """
    scores = [table.scores() for table in tables]
    scored = [s for s in scores if s is not None]
    if not scored:
        return tables[0].forms_with(tables[1:], target, removed, first_order)
    flat = torch.cat([s.flatten() for s in scored])
    threshold = torch.zeros((), device=flat.device)
    if target < int((flat > 0).sum()):
        threshold = flat.kthvalue(flat.numel() - target).values
    return [
        table.selected(s > threshold) if s is not None else table.compact()
        for table, s in zip(tables, scores, strict=True)
    ]
