"""From a budget to the forms that a compact model is trained under."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import cast

from torch import Tensor

from ondevice.bundle.estimate import bundle_bytes, fixed_bytes, largest_target, shipped_endpoints
from ondevice.config.budget import parse_budget
from ondevice.config.file import plain_options
from ondevice.config.sections import Config
from ondevice.config.stores import Store
from ondevice.data import Dataset
from ondevice.errors import BudgetTooSmall, ConfigError
from ondevice.forms.base import Form
from ondevice.forms.blocks import MAX_COLUMNS
from ondevice.forms.codes import Codes, coded
from ondevice.forms.grid import Grid
from ondevice.forms.table import TableInfo
from ondevice.methods.base import Selection
from ondevice.methods.sizing import field_places, shipped_sizes, unstored_removed
from ondevice.models import MODELS, BaseModel
from ondevice.models.base import make_model

MARGIN = 1.006
"""For what estimates fall short: 0.2 and 0.4 % of two bundles of 128 and 64 kB."""
CLOSE = 0.97
"""Share of a budget in bytes below which sizes of fewer columns are tried."""
USED = 0.95
"""Share of a budget in bytes below which a report says why no more of it is used."""


class Budgets:
    """What the budgets of a run leave of its tables.

    Args:
        config: of the run.
        dataset: what compact models know, and ship.
        info: its offsets and counts.
    """

    def __init__(self, config: Config, dataset: Dataset, info: TableInfo) -> None:
        self.config, self.dataset, self.info = config, dataset, info
        self.skip = field_places(dataset.schema.names, config.compact.skip_fields)
        for field in dataset.schema.histories:
            if field.name in config.compact.skip_fields:
                raise ConfigError(
                    f"compact.skip_fields: '{field.name}' is a history, which reads the rows of '{field.of}' and has "
                    "none to leave out; remove it from the schema"
                )
        self.endpoints = shipped_endpoints(config.compact.endpoints, dataset)
        self.model_options = plain_options(config.compact_model.options)
        first_order = MODELS[config.model.name].uses_first_order
        self.num_values = info.num_embeddings * (config.embedding.dim + first_order)

    def search_target(self, budget: int | str) -> int:
        """The number of values at which the search stops for a budget.

        Raises: UserError: when the budget is in bytes and the program alone takes as many.
        """
        unit, amount = parse_budget(budget)
        total = self.num_values
        if unit == "share":
            return max(1, int(amount * total))
        if unit == "values":
            return min(total, int(amount))
        dim = self.config.embedding.dim
        narrowest = self.base_model(min(self.config.compact.store.size_step, dim))
        least = fixed_bytes(narrowest, self.dataset, self.endpoints)
        if amount <= least:
            raise BudgetTooSmall(
                f"budget {budget}: the program ({', '.join(self.endpoints)}), its linear layers and the manifest alone "
                f"take about {least:,} bytes; allow more, leave out some of compact.endpoints, or train with a "
                "narrower model.hidden or none (compact.model={name: fm})"
            )
        # a first guess, at a quarter byte of key per stored byte; `forms` settles the number for the sizes found
        store = self.config.compact.store
        model = self.base_model(min(store.max_size or dim, dim))
        left = amount - fixed_bytes(model, self.dataset, self.endpoints)
        values = 1 if store.codes is None else store.codes.code_dims  # of a byte
        return max(total // 100, min(total, int(left / 1.25 * values)))

    def base_model(self, width: int) -> BaseModel:
        """The base model of a compact recommender of some width."""
        model = make_model(self.config.compact_model.name, self.info.slots, width, self.model_options)
        model.linear_bits = self.config.compact.store.linear_bits or model.linear_bits
        return model

    def model_of(self, forms: Sequence[Form]) -> BaseModel:
        """The base model at the width of some forms."""
        return self.base_model(forms[0].width)

    def estimated_bytes(self, forms: Sequence[Form], endpoints: Sequence[str] | None = None) -> int:
        """Estimated bytes of the bundle of a model under these forms."""
        store = self.config.compact.store
        estimate = bundle_bytes(
            forms,
            self.model_of(forms),
            self.dataset,
            endpoints or self.endpoints,
            store.first_order == "projection",
            store.fingerprint_bits,
        )
        return math.ceil(MARGIN * estimate)

    def final_forms(
        self, selections: list[Selection], target: int, max_size: int | None = None
    ) -> list[Form]:
        """What is retrained of what a search found, at ``target`` values.

        Args:
            selections: the forms of the tables.
            target: most values to keep.
            max_size: largest dimension of a row; None for that of the config.
        """
        share = self.config.embedding.first_order is None
        selections = unstored_removed(selections, self.info, self.skip)
        if not MODELS[self.config.compact_model.name].uses_first_order:
            selections = selections[:1]
        return final_forms(selections, target, self.config.compact.store, max_size, share=share)

    def target(
        self, budget: int | str, searched: int, forms_at: Callable[[int, int | None], list[Form]]
    ) -> tuple[int, int | None]:
        """The number of values that a budget allows, and the largest dimension of a row.

        For bytes, the most values whose bundle is estimated to fit. Rows of more than `MAX_COLUMNS` steps make the
        cells of all rows wider, and what smaller rows do not keep of theirs is stored as zeros; where sizes below that
        use clearly more of the budget for what is kept, rows end there.

        Args:
            budget: as in the config.
            searched: where the search stopped for it: the number itself, unless the budget is in bytes.
            forms_at: the final forms at a number of values and a largest dimension, None for that of the config.
        """
        unit, amount = parse_budget(budget)
        store = self.config.compact.store
        if unit != "bytes":
            return searched, None
        best: tuple[int, int, int | None] | None = None
        narrow = MAX_COLUMNS * store.size_step
        wide = min(store.max_size or self.config.embedding.dim, self.config.embedding.dim)
        for max_size in (None, narrow) if narrow < wide else (None,):

            def forms(target: int, max_size: int | None = max_size) -> list[Form]:
                return forms_at(target, max_size)

            target = largest_target(int(amount), self.num_values, forms, self.estimated_bytes)
            chosen = forms(target)
            used = self.estimated_bytes(chosen) - chosen[0].padding(self.info.num_fields)
            if best is None or used > best[0]:
                best = used, target, max_size
            if used >= CLOSE * amount:
                break
        assert best is not None
        return best[1:]

    def following(self, selections: list[Selection]) -> list[Selection]:
        """What was found, with first-order weights that go when their row's embedding goes.

        Those of rows that keep an embedding are left out: `shipped_sizes` gives each row that still has one its own.
        """
        if self.config.embedding.first_order is not None:
            return selections
        return [selections[0], *(form.without(selections[0].row_sizes() > 0) for form in selections[1:])]

    def forms(self, budget: int | str, searched: int, selections: list[Selection]) -> list[Form]:
        """The final forms of a budget, in the proportions found."""
        if parse_budget(budget)[0] == "bytes":
            selections = self.following(selections)

        def forms_at(target: int, max_size: int | None) -> list[Form]:
            return self.final_forms(selections, target, max_size)

        return forms_at(*self.target(budget, searched, forms_at))


def shortfall(budget: int | str, num_bytes: int, sizes: Tensor) -> str | None:
    """How far a bundle is from its budget in bytes, and why; None where it keeps it and uses at least `USED` of it.

    Args:
        budget: as in the config.
        num_bytes: of the bundle, without its catalog file.
        sizes: kept dimensions of each row of the embeddings.
    """
    unit, amount = parse_budget(budget)
    if unit != "bytes":
        return None
    if num_bytes > amount:
        over = num_bytes - int(amount)
        less = int(amount) - 2 * over
        return f"{over:,} bytes above: its size was estimated too low; ask for {less}B and train again"
    if num_bytes >= USED * amount:
        return None
    kept = sizes[sizes > 0]
    below = f"{100 * (1 - num_bytes / amount):.1f} % below"
    if len(kept) and bool((kept == kept.max()).all()):
        most = int(kept.max())
        return f"{below}: all {len(kept):,} rows that the search kept have {most} values, and max_size allows no more"
    return f"{below}: the next larger sizes do not fit"


def final_forms(
    forms: list[Selection], target: int, store: Store, max_size: int | None = None, share: bool = True
) -> list[Form]:
    """What is retrained: the positions as found, sizes in few classes, or sizes whose cells are codes.

    Args:
        forms: what a search found.
        target: most values to keep.
        store: how they are stored.
        max_size: largest dimension of a row; None for that of the store.
        share: as in `shipped_sizes`.
    """
    if store.first_order != "rows":
        forms = forms[:1]
    if forms[0].is_shipped_as_selected:
        return cast(list[Form], forms)
    if store.keeps_positions:
        if not forms[0].keeps_positions:
            raise ConfigError(
                "compact.store: the method ends in sizes, not positions; use compact.store=int8"
            )
        return cast(list[Form], forms)
    max_size, codes = max_size or store.max_size, store.codes
    dim = min(max_size or forms[0].dim, forms[0].dim)
    if codes is not None:  # whole cells alone
        dim = dim // codes.code_dims * codes.code_dims
        max_size = codes.code_levels * dim
        if not dim:
            raise ConfigError(
                f"compact.store.code_dims: got {codes.code_dims}, but embedding.dim is {forms[0].dim}; it must be at "
                "most that"
            )
    final = shipped_sizes(forms, target, max_size=max_size, size_step=store.size_step, share=share)
    if codes is not None:
        final[0] = coded(
            final[0].row_sizes(), codes.code_dims, dim, Grid if codes.codebook == "grid" else Codes
        )
    return final
