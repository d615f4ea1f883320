"""One training for all budgets: every smaller compact model is a part of the largest, and needs no training of its own.

At each step the batch is computed at one level of sizes: in turn the largest, the smallest, and one drawn from those
between (the sandwich rule of slimmable networks, arXiv 1903.05134, section 3.1, with one level a step in place of
all). So a row's leading dimensions learn to do without the later ones, and the base model to do with either: nested
dropout (arXiv 1402.0915) along the sizes that a method found. Compact models from one training, for any budget, are
those of RULE (arXiv 2106.02223) and PEEL (arXiv 2306.10532); sizes, not blocks chosen for groups, are this project's.

Batch norm sees other embeddings at each level: its statistics are computed anew for each compact model that is cut
from the whole (arXiv 1903.05134, section 3.3).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ondevice.config.budget import elastic_target
from ondevice.config.sections import CompactConfig
from ondevice.data import Dataset
from ondevice.errors import UserError
from ondevice.forms.base import CompactTable, Form
from ondevice.forms.table import table_info
from ondevice.recommender import Recommender, cut, pruned_id_map
from ondevice.run.budgets import Budgets
from ondevice.run.directory import Run
from ondevice.run.levels import Staircases, load_staircases
from ondevice.training import qat
from ondevice.training.batches import Batches
from ondevice.training.checkpoint import load_recommender
from ondevice.training.fit import Fit, epoch_seed, evaluate
from ondevice.training.pairs import MadeUpPairs

ELASTIC, LEVELS = "elastic", "levels"
"""In a run directory the elastic model, and in its folder its levels."""


CALIBRATION_ROWS = 32_768
"""Training rows over which batch norm's statistics are computed."""


@dataclass(frozen=True)
class Masks:
    """A level as a training applies it: the values of each table that are read, and the ids read in place of each."""

    values: list[Tensor]
    id_map: Tensor

    @classmethod
    def of(cls, recommender: Recommender, forms: list[Form]) -> Masks:
        """The masks of some forms, at the width of a recommender's tables."""
        device, values = recommender.bias.device, []
        for table, form in zip(recommender.tables(), forms, strict=True):
            columns = torch.arange(table.embedding_dim)
            values.append((columns < form.row_sizes()[:, None]).to(device))
        return cls(values, pruned_id_map(recommender.info, forms).to(device))

    def apply(self, recommender: Recommender) -> None:
        """From now on the recommender reads and trains this level alone."""
        for table, values in zip(recommender.tables(), self.values, strict=True):
            assert isinstance(table, CompactTable)
            table.level = values
        recommender.map_ids(self.id_map)


class ElasticFit(Fit):
    """`Fit` of a recommender whose smaller levels are to be compact models of their own.

    The epoch that is kept has the best mean of the budgets' validation AUC.

    Args:
        staircases: levels of the budgets.
        cutter: makes the compact model of some forms.
    """

    def __init__(self, *arguments: Any, staircases: Staircases, cutter: Cutter, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.staircases, self.cutter = staircases, cutter
        levels = [level.forms for level in staircases.levels]
        self._largest, self._smallest = (
            Masks.of(self.recommender, forms) for forms in (levels[0], levels[-1])
        )
        self._between = [Masks.of(self.recommender, forms) for forms in staircases.between()]
        self._draws = torch.Generator()

    def _levels(self) -> Callable[[int], None]:
        return self._apply

    def _begin_step(self, step: int) -> None:
        if step % len(self.train) == 0:
            self._draws.manual_seed(epoch_seed(self.seed, self.phase, self.epoch) + 2)
        super()._begin_step(step)
        self._apply(step)

    def _apply(self, step: int) -> None:
        """Read and train one level: in turn the largest, the smallest and one drawn from those between."""
        level = (
            (self._largest, self._smallest)[step % 3] if step % 3 < 2 or not self._between else self._drawn()
        )
        level.apply(self.recommender)

    def _drawn(self) -> Masks:
        return self._between[int(torch.randint(len(self._between), (), generator=self._draws))]

    def _finish_epoch(self, train_loss: float, started: float) -> None:
        self._largest.apply(self.recommender)
        super()._finish_epoch(train_loss, started)

    def _validate(self) -> dict[str, float]:
        """Means over the budgets, and the AUC of each."""
        if not all(table.is_final for table in self.recommender.tables()):
            return super()._validate()
        self.recommender.eval()  # codes are brought up to the weights as they are, averaged ones for instance
        each = []
        for level in self.staircases.levels:
            each.append(evaluate(self.cutter(self.recommender, level.forms), self.valid, self.processes))
        self.recommender.train()
        return {
            **{key: sum(one[key] for one in each) / len(each) for key in ("auc", "logloss")},
            **{
                f"auc_{level.label}": one["auc"]
                for level, one in zip(self.staircases.levels, each, strict=True)
            },
        }


class Cutter:
    """Makes compact models of an elastic one.

    Args:
        model: name of the base model, with its options.
        dataset: whose training rows give batch norm its statistics.
        settings: of the compact models: as many made-up pairs are mixed in as in their training.
    """

    def __init__(
        self, model: str, options: dict[str, Any], dataset: Dataset, settings: CompactConfig
    ) -> None:
        self.model, self.options = model, options
        self.dataset, self.settings = dataset, settings
        self._ids: Tensor | None = None

    def __call__(self, recommender: Recommender, forms: list[Form]) -> Recommender:
        """The compact model of some forms, in evaluation mode; its layers of few bits are rounded by themselves."""
        smaller = cut(recommender, forms, model=self.model, model_options=self.options)
        qat.prepare(smaller.model, self.settings.store.linear_bits)
        calibrate(smaller, self._rows(smaller.bias.device))
        qat.finish(smaller.model)
        return smaller

    def _rows(self, device: torch.device) -> Tensor:
        """Rows as a training sees them: real ones from all over the split, then made-up pairs."""
        if self._ids is None:
            train = Batches(self.dataset.train, 2, device)
            count = min(CALIBRATION_ROWS, train.num_rows)
            rows = torch.arange(count, device=device) * train.num_rows // count
            teach = self.settings.teach
            pairs = round(teach.pairs * count) if teach.teachers else 0
            made_up = MadeUpPairs(train, self.dataset.schema.item_columns)
            drawn = made_up.draw(pairs, torch.Generator().manual_seed(0))
            mixed = torch.cat([train.take(rows), drawn])
            order = torch.randperm(len(mixed), generator=torch.Generator().manual_seed(1)).to(device)
            self._ids = mixed[order]
        return self._ids


@torch.no_grad()
def calibrate(recommender: Recommender, ids: Tensor, batch_size: int = 8192) -> None:
    """Set batch norm's statistics to their mean over batches of rows; nothing else changes.

    Shape: ids (R, F) int64.
    """
    norms = [m for m in recommender.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    recommender.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # PyTorch's sign for a plain mean over batches
        norm.train()
    for batch in ids.split(batch_size):
        if len(batch) > 1:
            recommender(batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    recommender.eval()


class ElasticRun:
    """The elastic model of a finished run, from which compact models of any number of values are cut.

    Args:
        run: trained with ``compact.train.elastic=true``.

    Raises: UserError: when it holds no elastic model.
    """

    def __init__(self, run: Run) -> None:
        folder = run.path / ELASTIC
        self.dataset = run.dataset(rows=False)
        info = table_info(
            self.dataset.vocabulary.field_offsets, self.dataset.counts, slots=self.dataset.schema.slots
        )
        self.budgets = Budgets(run.config, self.dataset, info)
        self.recommender = load_recommender(folder, info)
        self.staircases = load_staircases(folder / LEVELS, self.budgets)
        options = self.budgets.model_options
        self.cutter = Cutter(run.config.compact_model.name, options, self.dataset, run.config.compact)

    def compact(self, target: int) -> Recommender:
        """The compact model of at most ``target`` values."""
        return self.cutter(self.recommender, self.staircases.at(target))

    def valid(self, recommender: Recommender) -> dict[str, float]:
        """AUC and log loss over the validation split."""
        return evaluate(recommender, Batches(self.dataset.valid, 8192, recommender.bias.device))

    def estimated_bytes(self, target: int, methods: Sequence[str] | None = None) -> int:
        """Estimated bytes of the bundle at ``target`` values, with these methods or those of the run."""
        return self.budgets.estimated_bytes(self.staircases.at(target), methods)

    def largest_target(self) -> int:
        """The number of values at which everything that was trained is kept."""
        return self.staircases.levels[0].target

    def least_target(self) -> int:
        """The smallest number of values that leaves something of the embeddings."""
        low, high = 0, self.largest_target()
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self._leaves_something(middle) else (middle, high)
        return high

    def _leaves_something(self, target: int) -> bool:
        try:
            return self.staircases.at(target)[0].num_kept() > 0
        except UserError:
            return False


def compact_model(run: Run, label: str) -> Recommender:
    """A compact model of a run, in evaluation mode; ``elastic-N`` is cut from its elastic model at N values.

    Raises: UserError: when the run has none of that label.
    """
    target = elastic_target(label)
    return run.compact(label) if target is None else ElasticRun(run).compact(target)
