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

import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from safetensors.torch import save as save_safetensors
from torch import Tensor, nn

from ondevice.config import RetrainConfig, parse_budget
from ondevice.data import Dataset
from ondevice.embeddings import Codes, Form, RetrainedEmbedding, Sizes
from ondevice.embeddings.forms import form_of_tensors, form_tensors
from ondevice.errors import UserError
from ondevice.files import atomic_directory
from ondevice.recommender import Recommender, cut, pruned_id_map
from ondevice.training import qat
from ondevice.training.batches import Batches
from ondevice.training.budgets import Budgets
from ondevice.training.checkpoint import load_recommender
from ondevice.training.fit import Fit, epoch_seed, evaluate
from ondevice.training.pairs import MadeUpPairs
from ondevice.training.run import Run, budget_label, table_info
from ondevice.training.sizing import coded

ELASTIC, LEVELS = "elastic", "levels"
"""In a run directory the elastic model, and in its folder its levels."""

Final = Callable[[list[Form], int, int | None], list[Form]]

CALIBRATION_ROWS = 32_768
"""Training rows over which batch norm's statistics are computed."""


@dataclass(frozen=True)
class Level:
    """The sizes of one budget.

    Args:
        label: of the budget.
        target: number of values asked for.
        max_size: largest dimension of a row; None for that of the config.
        found: what the search found for it.
        forms: the final forms, each a part of the next larger level's.
    """

    label: str
    target: int
    max_size: int | None
    found: list[Form]
    forms: list[Form]


class Staircases:
    """Sizes at any number of values, each row's at most those of the largest level.

    Args:
        levels: of the budgets, the largest first.
        final: what is shipped of what was found, at a number of values and a largest dimension.
    """

    def __init__(self, levels: Sequence[Level], final: Final) -> None:
        self.levels, self.final = list(levels), final

    @classmethod
    def of_budgets(cls, budgets: Budgets, found: Sequence[tuple[int | str, int, list[Form]]]) -> Staircases:
        """The levels of budgets, each under the next larger one.

        Args:
            budgets: of the run.
            found: for each budget, where the search stopped and what it found.
        """
        made = cls([], budgets.final_forms)
        for budget, searched, forms in sorted(found, key=lambda f: (-f[1], -parse_budget(f[0])[1])):
            made._add(budgets, budget, searched, budgets.following(forms))
        return made

    def _add(self, budgets: Budgets, budget: int | str, searched: int, found: list[Form]) -> None:
        """Add a level under those that are there."""
        larger = self.levels[-1].forms if self.levels else None

        def forms_at(target: int, max_size: int | None) -> list[Form]:
            return self._under(self.final(found, target, max_size), larger)

        target, max_size = budgets.target(budget, searched, forms_at)
        label = budget_label(budget)
        self.levels.append(Level(label, target, max_size, found, forms_at(target, max_size)))

    @staticmethod
    def _under(forms: list[Form], larger: list[Form] | None) -> list[Form]:
        return forms if larger is None else [smaller_of(f, g) for f, g in zip(forms, larger, strict=True)]

    def at(self, target: int) -> list[Form]:
        """The forms at ``target`` values, found as those of the level above.

        Raises: UserError: when nothing would be left.
        """
        above = [level for level in self.levels if level.target >= target]
        level = above[-1] if above else self.levels[0]
        if level.target <= target:
            return level.forms
        return self._under(self.final(level.found, target, level.max_size), level.forms)

    def of_budget(self, budgets: Budgets, budget: int | str, searched: int) -> list[Form]:
        """The forms of a budget: a level's, or for one that is named after the training, those of its number of values.

        Raises: UserError: when the budget is above the largest level.
        """
        for level in self.levels:
            if level.label == budget_label(budget):
                return level.forms
        target, _ = budgets.target(budget, searched, lambda target, max_size: self.at(target))
        if target > self.levels[0].target:
            raise UserError(
                f"search.budgets: {budget} is more than the elastic model was trained for ({self.levels[0].label}); "
                "name another run.output=DIR"
            )
        return self.at(target)

    def between(self) -> list[list[Form]]:
        """Forms between the largest and the smallest level: the other levels, and one between each two."""
        inner = [level.forms for level in self.levels[1:-1]]
        kept = [sum(form.num_kept() for form in level.forms) for level in self.levels]
        return inner + [self.at(round((a * b) ** 0.5)) for a, b in itertools.pairwise(kept)]


def smaller_of(form: Form, other: Form) -> Form:
    """Row by row the smaller of two sizes."""
    sizes = torch.minimum(form.row_sizes(), other.row_sizes())
    if isinstance(form, Codes):
        return coded(Sizes(sizes, max(1, int(sizes.max()))), form.code_dims, form.dim)
    return Sizes(sizes, form.dim)


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
            assert isinstance(table, RetrainedEmbedding)
            table.level = values
        recommender.read_through(self.id_map)


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
        settings: of the training: as many made-up pairs are mixed in.
    """

    def __init__(
        self, model: str, options: dict[str, Any], dataset: Dataset, settings: RetrainConfig
    ) -> None:
        self.model, self.options = model, options
        self.dataset, self.settings = dataset, settings
        self._ids: Tensor | None = None

    def __call__(self, recommender: Recommender, forms: list[Form]) -> Recommender:
        """The compact model of some forms, in evaluation mode; its layers of few bits are rounded by themselves."""
        smaller = cut(recommender, forms, model=self.model, model_options=self.options)
        qat.prepare(smaller.model, self.settings.linear_bits)
        calibrate(smaller, self._rows(smaller.bias.device))
        qat.finish(smaller.model)
        return smaller

    def _rows(self, device: torch.device) -> Tensor:
        """Rows as a training sees them: real ones from all over the split, then made-up pairs."""
        if self._ids is None:
            train = Batches(self.dataset.train, 2, device)
            count = min(CALIBRATION_ROWS, train.num_rows)
            rows = torch.arange(count, device=device) * train.num_rows // count
            pairs = round(self.settings.pairs * count) if self.settings.teacher else 0
            made_up = MadeUpPairs(train, tuple(self.dataset.schema.item_fields))
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


def save_staircases(folder: Path, staircases: Staircases) -> None:
    """Write the levels: ``levels.json`` and ``levels.safetensors``."""
    tensors: dict[str, Tensor] = {}
    for number, level in enumerate(staircases.levels):
        for place, form in enumerate(level.found):
            tensors |= form_tensors(form, f"{number}/found/{place}")
        for place, form in enumerate(level.forms):
            tensors[f"{number}/forms/{place}"] = form.row_sizes().to(torch.int32)
    dims = [form.dim for form in staircases.levels[0].found]
    levels = [
        {"label": level.label, "target": level.target, "max_size": level.max_size}
        for level in staircases.levels
    ]
    described = {"levels": levels, "dims": dims}
    with atomic_directory(folder) as building:
        (building / "levels.json").write_text(json.dumps(described) + "\n")
        (building / "levels.safetensors").write_bytes(save_safetensors(tensors))


def load_staircases(folder: Path, budgets: Budgets) -> Staircases:
    """Read back what `save_staircases` wrote.

    Raises: UserError: when the folder holds none.
    """
    try:
        described = json.loads((folder / "levels.json").read_text())
        tensors = load_file(folder / "levels.safetensors")
    except (OSError, ValueError) as error:
        raise UserError(
            f"{folder}: holds no levels of an elastic model ({error}); train the run again"
        ) from None
    settings = budgets.config.retrain
    row_cost = float(budgets.config.method.options.get("row_cost", 0.0))
    levels: list[Level] = []
    for number, level in enumerate(described["levels"]):
        found: list[Form] = [
            form_of_tensors(tensors, f"{number}/found/{place}", dim, True, row_cost)
            for place, dim in enumerate(described["dims"])
        ]
        forms: list[Form] = []
        for place in range(1 if settings.first_order != "rows" else len(found)):
            sizes = tensors[f"{number}/forms/{place}"].long()
            if settings.code_dims is not None and place == 0:
                own = coded(Sizes(sizes, described["dims"][0]), settings.code_dims, described["dims"][0])
                forms.append(smaller_of(own, levels[0].forms[0]) if levels else own)
            else:
                forms.append(Sizes(sizes, described["dims"][place]))
        levels.append(Level(level["label"], level["target"], level["max_size"], found, forms))
    return Staircases(levels, budgets.final_forms)


class ElasticRun:
    """The elastic model of a finished run, from which compact models of any number of values are cut.

    Args:
        run: trained with ``retrain.elastic=true``.

    Raises: UserError: when it holds no elastic model.
    """

    def __init__(self, run: Run) -> None:
        folder = run.path / ELASTIC
        self.dataset = run.dataset()
        info = table_info(self.dataset.vocabulary.field_offsets, self.dataset.counts)
        self.budgets = Budgets(run.config, self.dataset, info)
        self.recommender = load_recommender(folder, info)
        self.staircases = load_staircases(folder / LEVELS, self.budgets)
        options = self.budgets.model_options
        self.cutter = Cutter(run.config.compact_model.name, options, self.dataset, run.config.retrain)

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
