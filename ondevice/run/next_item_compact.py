"""The compact models of a run of the next item: the search of sizes, and the retraining of each budget."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, cast

import torch
from safetensors.torch import load as load_safetensors
from torch import Tensor

from ondevice import next_item
from ondevice.config.budget import budget_label
from ondevice.config.sections import STARTS, TrainConfig
from ondevice.errors import ConfigError
from ondevice.forms.base import Form
from ondevice.forms.codes import CodedEmbedding
from ondevice.forms.table import EmbeddingTable
from ondevice.methods import METHODS, Method
from ondevice.methods.base import Selection, forms_at
from ondevice.methods.next_item_codes import (
    NextItemCodeSearch,
    WindowSamples,
    item_gains,
    next_item_stages,
)
from ondevice.methods.selection import described, named, part_of, read_selection
from ondevice.models.sequences import SEQUENCE_MODELS
from ondevice.next_item import NextItemRecommender
from ondevice.run.budgets import shortfall
from ondevice.run.next_item_budgets import NextItemBudgets
from ondevice.run.next_item_dense import PreparedNextItem, without_attributes
from ondevice.run.pipeline_context import SEARCHED
from ondevice.training import qat
from ondevice.training.batches import Batches
from ondevice.training.checkpoint import load_next_item, save_next_item
from ondevice.training.fit import FitResult
from ondevice.training.next_item import NextItemFit
from ondevice.training.rankings import RankingTeachers
from ondevice.training.windows import Moments, Windows


class NextItemCompact:
    """Trains the compact models of a run.

    Args:
        pipeline: of the run, its data read.
    """

    def __init__(self, pipeline: PreparedNextItem) -> None:
        self.pipeline, self.config = pipeline, pipeline.config
        self.files, self.state = pipeline.files, pipeline.state
        self.budgets = NextItemBudgets(pipeline.config, without_attributes(pipeline.dataset), pipeline.info)
        self.options = self.budgets.model_options

    def run(self) -> None:
        """Search what each budget keeps, and train it; what is done already is not done again."""
        targets = {budget: self.budgets.search_target(budget) for budget in self.config.compact.budgets}
        missing = [b for b in targets if budget_label(b) not in self.state.get("budgets", {})]
        if not missing:
            return
        selections = self._searched(sorted(set(targets.values()), reverse=True))
        for budget in missing:
            self._retrain(budget, targets[budget], selections[targets[budget]])

    def fit(self, phase: str, recommender: NextItemRecommender, settings: TrainConfig) -> FitResult:
        """Train a compact model."""
        pipeline, last = self.pipeline, recommender.model.last
        return NextItemFit(
            recommender,
            self.windows(settings, last),
            Moments.of(pipeline.log, "valid", last),
            settings,
            seed=self.config.run.seed,
            phase=phase,
            progress=pipeline.progress,
            checkpoint=self.files.checkpoint(phase),
            teacher=self.teachers(last),
            make_stages=next_item_stages(self.config.compact.store),
        ).run()

    def windows(self, settings: TrainConfig, last: int) -> Windows:
        """What a training of compact models reads."""
        return Windows(self.pipeline.log, last, settings.windows, settings.batch_size, self.pipeline.device)

    def teachers(self, last: int) -> RankingTeachers | None:
        """The teachers of compact models that read the ``last`` items."""
        compact, temperature = self.config.compact, self.config.research.teacher_temperature
        return self.pipeline.teachers(compact.teach, compact.train, last, temperature)

    def samples(self, last: int) -> WindowSamples:
        """Windows that what rows are worth is measured on."""
        windows = self.windows(self.config.compact.train, last)
        return WindowSamples(windows, self.teachers(last), self.config.run.seed)

    def start(self) -> NextItemRecommender | None:
        """What compact models begin with: the dense model, another run's, or nothing.

        Raises: UserError: when that run is not there, or was trained on other data or another kind of model.
        """
        start, name = self.config.research.start, self.config.compact_model.name
        if start not in STARTS:
            given = self.pipeline.other_dense(start, "research.start")
            if not isinstance(given.model, SEQUENCE_MODELS[name]):
                kind = type(given.model).__name__
                raise ConfigError(f"research.start: {start} is a run of {kind}, but compact.model is {name}")
            return given
        return self.pipeline.dense() if start == "dense" else None

    def rebuilt(self, forms: Sequence[Form], initial: NextItemRecommender | None) -> NextItemRecommender:
        """A compact recommender under ``forms``, from initial weights or drawn ones."""
        torch.manual_seed(self.config.run.seed)
        made = next_item.rebuild(
            self.pipeline.info,
            forms,
            model=self.config.compact_model.name,
            model_options=self.options,
            initial=initial,
            init_std=self.config.embedding.init_std,
        )
        return made.to(self.pipeline.device)

    def _searched(self, targets: list[int]) -> dict[int, list[Selection]]:
        """What the method selects at each target: measured, or read back."""
        path, state = self.pipeline.folder / "search.safetensors", self.state.get("search", {})
        if not set(targets) <= {int(target) for target in state.get("found", {})}:
            self._search(targets)
        stored, descriptions = load_safetensors(path.read_bytes()), self.state["search"]["found"]
        return {
            target: [
                read_selection(description, part_of(stored, f"{target}/{place}"))
                for place, description in enumerate(descriptions[str(target)])
            ]
            for target in targets
        }

    def _search(self, targets: list[int]) -> None:
        started = time.perf_counter()
        method = self._searching()
        history = method.prepare(NextItemContext(self, method))
        content: dict[str, Tensor] = {}
        descriptions: dict[str, list[dict[str, Any]]] = {}
        for target in targets:
            selections = forms_at([method], target, ~self.budgets.seen, first_order=False)
            descriptions[str(target)] = [described(each) for each in selections]
            for place, each in enumerate(selections):
                content |= named(each, f"{target}/{place}")
        self.files.write("search.safetensors", content)
        entry = {"seconds": round(time.perf_counter() - started, 2), "found": descriptions}
        self.files.remember(search=entry, history={**self.state["history"], "search": history})
        self.files.forget("search")

    def _searching(self) -> Method:
        """The table of items as the method searches it."""
        torch.manual_seed(self.config.run.seed)
        sizes, embedding = self.config.compact.sizes, self.config.embedding
        options = METHODS[sizes.name].completed(sizes.options, self.config.compact.store.max_size)
        if embedding.init_std is not None:
            options = {"init_std": embedding.init_std, **options}
        return METHODS[sizes.name](self.pipeline.info, embedding.dim, **options).to(self.pipeline.device)

    def _start(self, forms: list[Form]) -> NextItemRecommender:
        """The compact recommender that a retraining begins with: the one that the method measured, if any."""
        measured = SEARCHED in self.state and self.config.research.start != "fresh"
        initial = self.start()
        if measured:
            initial = load_next_item(self.pipeline.folder / SEARCHED, self.pipeline.info)
        recommender = self.rebuilt(forms, initial)
        if measured and recommender.embedding.learns_codes:
            cast(CodedEmbedding, recommender.embedding).is_rotated = self.state[SEARCHED]["is_rotated"]
        return recommender

    def _retrain(self, budget: int | str, target: int, selections: list[Selection]) -> None:
        label, compact, pipeline = budget_label(budget), self.config.compact, self.pipeline
        forms = self.budgets.forms(budget, target, selections)
        recommender, phase = self._start(forms), f"retrain-{label}"
        sizes = forms[0].row_sizes()
        pipeline.progress.say(
            f"{phase}: {recommender.num_kept():,} values of {int((sizes > 0).sum()):,} items, "
            f"{forms[0].width} dimensions, estimated {self.budgets.estimated_bytes(forms):,} bytes"
        )
        unused = shortfall(budget, self.budgets.estimated_bytes(forms), sizes)
        if unused is not None:
            pipeline.progress.say(f"{phase}: {budget} is estimated to come out {unused}")
        qat.prepare(recommender.model, compact.store.linear_bits)
        result = self.fit(phase, recommender, compact.train)
        qat.finish(recommender.model)
        name = self.config.compact_model.name
        save_next_item(pipeline.folder / "budgets" / label, recommender, name, self.options)
        entry = pipeline.entry(phase, recommender, result)
        entry["estimated_bytes"] = self.budgets.estimated_bytes(forms)
        self.files.remember(
            budgets={**self.state.get("budgets", {}), label: entry},
            history={**self.state["history"], label: result.history},
        )
        self.files.forget(phase)


class NextItemContext:
    """What a run of the next item gives to a method: see `ondevice.methods.context.SearchContext`.

    Args:
        compact: of the run.
        method: the table that is searched.
    """

    def __init__(self, compact: NextItemCompact, method: Method) -> None:
        pipeline = compact.pipeline
        self.compact, self.config, self.info, self.processes = (
            compact,
            compact.config,
            pipeline.info,
            pipeline.processes,
        )
        self.skip: tuple[int, ...] = ()
        self.item_columns: tuple[int, ...] = ()
        choice = compact.config.model
        model = SEQUENCE_MODELS[choice.name](method.embedding_dim, **pipeline.model_options)
        biases = EmbeddingTable(pipeline.info, 1)
        self.recommender = NextItemRecommender(method, biases, model)

    def dense(self) -> NextItemRecommender:
        return self.compact.pipeline.dense()

    def train_batches(self, batch_size: int) -> Batches:
        raise RuntimeError("a run of the next item reads windows, not rows")

    def search(self) -> list[dict[str, float]]:
        raise RuntimeError("a run of the next item trains no method in place")

    def compact_model(self, forms: list[Form], initial: NextItemRecommender | None) -> NextItemRecommender:
        return self.compact.rebuilt(forms, self.compact.start() if initial is None else initial)

    def train(self, recommender: NextItemRecommender, settings: TrainConfig) -> list[dict[str, float]]:
        return self.compact.fit("search", recommender, settings).history

    def gains(self, num_dims: int, pairs: float) -> Tensor:
        dense, seed = self.dense(), self.config.run.seed
        windows = self.compact.windows(self.config.compact.train, dense.model.last)
        return item_gains(dense, WindowSamples(windows, None, seed, pairs), num_dims, seed)

    def code_gains(self, recommender: NextItemRecommender) -> Tensor:
        model = recommender
        return NextItemCodeSearch(model, self.compact.samples(model.model.last), self.config.run.seed).gains()

    def begin_retraining_with(self, recommender: NextItemRecommender, is_rotated: bool) -> None:
        compact = self.compact
        name = self.config.compact_model.name
        folder = compact.pipeline.folder / SEARCHED
        save_next_item(folder, recommender, name, compact.options)
        compact.files.remember(**{SEARCHED: {"is_rotated": is_rotated}})
