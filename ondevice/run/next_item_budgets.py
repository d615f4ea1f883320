"""From a budget in bytes to the forms of a compact model of the next item."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from ondevice.bundle.item_rows import fixed_bytes, next_item_bytes
from ondevice.config.budget import parse_budget
from ondevice.config.sections import Config
from ondevice.data import Dataset
from ondevice.errors import BudgetTooSmall
from ondevice.forms.base import Form
from ondevice.forms.sizes import Sizes
from ondevice.forms.table import TableInfo
from ondevice.methods.base import Selection
from ondevice.models.sequences import SEQUENCE_MODELS, SequenceModel
from ondevice.run.budgets import MARGIN, Budgets, final_forms
from ondevice.run.next_item_dense import sequence_options


class NextItemBudgets(Budgets):
    """What the budgets of a run leave of its table of items.

    Every item that training saw keeps its smallest size at least: an item without a row could not be recommended.

    Args:
        config: of the run; its budgets are in bytes.
        dataset: what the bundle ships.
        info: of the items.
    """

    def __init__(self, config: Config, dataset: Dataset, info: TableInfo) -> None:
        self.config, self.dataset, self.info, self.skip = config, dataset, info, ()
        self.model_options = sequence_options("compact.model", config.compact_model, dataset.schema)
        self.seen = (info.counts > 0) & (torch.arange(info.num_embeddings) > 0)
        self.has_biases = config.compact.store.first_order == "rows"
        store = config.compact.store
        widest = min(store.max_size or config.embedding.dim, config.embedding.dim)
        levels = 1 if store.codes is None else store.codes.code_levels
        self.num_values = info.num_embeddings * (levels * widest + self.has_biases)

    def search_target(self, budget: int | str) -> int:
        """The number of values that a rule is asked for: a first guess, which `forms` settles in its proportions.

        Raises: UserError: when the program alone takes as many bytes.
        """
        amount, store = parse_budget(budget)[1], self.config.compact.store
        dim = self.config.embedding.dim
        least = fixed_bytes(self.sequence_model(min(store.size_step, dim)), self.dataset)
        if amount <= least:
            raise BudgetTooSmall(
                f"budget {budget}: the program, its sequence model and the manifest "
                f"alone take about {least:,} bytes; allow more, or choose a "
                "smaller compact.model"
            )
        left = amount - fixed_bytes(self.sequence_model(min(store.max_size or dim, dim)), self.dataset)
        values = 1 if store.codes is None else store.codes.code_dims  # of a byte
        return max(self.num_values // 100, min(self.num_values, int(left * values)))

    def sequence_model(self, width: int) -> SequenceModel:
        """The sequence model of a compact recommender of some width."""
        with torch.random.fork_rng(devices=[]):
            model = SEQUENCE_MODELS[self.config.compact_model.name](width, **self.model_options)
        model.linear_bits = self.config.compact.store.linear_bits or model.linear_bits
        return model

    def estimated_bytes(self, forms: Sequence[Form], endpoints: Sequence[str] | None = None) -> int:
        estimate = next_item_bytes(forms, self.info, self.sequence_model(forms[0].width), self.dataset)
        return math.ceil(MARGIN * estimate)

    def following(self, selections: list[Selection]) -> list[Selection]:
        return selections[:1]

    def final_forms(
        self, selections: list[Selection], target: int, max_size: int | None = None
    ) -> list[Form]:
        """What is retrained of what a method selected, at ``target`` values of the embeddings."""
        store = self.config.compact.store
        unseen = ~self.seen
        selected = [selections[0].without(unseen)]
        (form,) = final_forms(selected, target, store, max_size, share=False)
        least = store.size_step * self.seen.long()
        form = form.with_sizes(torch.maximum(form.row_sizes(), least))
        return [form, Sizes(self.seen.long(), 1)] if self.has_biases else [form]
