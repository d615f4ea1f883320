"""What a run of ratings gives to the method that searches in it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ondevice.config.sections import TrainConfig
from ondevice.forms.base import Form
from ondevice.methods.base import Selection
from ondevice.methods.code_search import CodeSearch, Samples
from ondevice.methods.gains import measure_gains
from ondevice.methods.search import Search
from ondevice.recommender import Recommender
from ondevice.run.prepared import PreparedRun
from ondevice.training.batches import Batches
from ondevice.training.fit import FitResult
from ondevice.training.norm import synced
from ondevice.training.teacher import Teacher

SEARCHED = "searched"
"""Folder of the compact model with free values that a method measured, and that retraining begins with."""


class PipelineContext:
    """What a pipeline gives to the method that searches in it: see `ondevice.methods.context.SearchContext`.

    Args:
        run: whose search it is.
        fit: trains a recommender in a phase, by settings and with a dense model beside it.
        teacher_of: gives the teachers of compact models, with the training split and the dense model.
        recommender: with the method's tables.
        dense: the trained dense model.
        targets: numbers of values at which something is to be found.
    """

    def __init__(
        self,
        run: PreparedRun,
        fit: Callable[[str, Recommender, TrainConfig, Recommender], FitResult],
        teacher_of: Callable[[Batches, Recommender], Teacher | None],
        recommender: Recommender,
        dense: Recommender,
        targets: list[int],
    ) -> None:
        self.run, self.fit, self.teacher_of = run, fit, teacher_of
        self.recommender, self.targets = recommender, targets
        self.config, self.info, self.processes = run.config, run.info, run.processes
        self.skip, self.item_columns = run.skip, run.dataset.schema.item_columns
        self._dense = dense
        self.selections: dict[int, list[Selection]] = {}
        self.seconds: float | None = None
        """Of a search, over all resumes."""

    def dense(self) -> Recommender:
        return self._dense

    def train_batches(self, batch_size: int) -> Batches:
        return self.run.train_batches(batch_size)

    def search(self) -> list[dict[str, float]]:
        synced(self.recommender, self.processes)
        result = Search(
            self.recommender,
            self.train_batches(self.config.compact.sizes.batch_size),
            self.run.valid,
            self.config.compact.sizes,
            self.targets,
            seed=self.config.run.seed,
            progress=self.run.progress,
            checkpoint=self.run.files.checkpoint("search"),
            processes=self.processes,
        ).run()
        self.selections, self.seconds = result.forms, result.seconds
        return result.history

    def compact_model(self, forms: list[Form], initial: Recommender | None) -> Recommender:
        return self.run.rebuilt(self.info, forms, initial)

    def train(self, recommender: Recommender, settings: TrainConfig) -> list[dict[str, float]]:
        return self.fit("search", recommender, settings, self._dense).history

    def gains(self, num_dims: int, pairs: float) -> Tensor:
        batches = self.train_batches(self.config.compact.sizes.batch_size)
        seed = self.config.run.seed
        return measure_gains(
            self._dense, batches, self.item_columns, num_dims=num_dims, pairs=pairs, seed=seed
        )

    def code_gains(self, recommender: Recommender) -> Tensor:
        train = self.train_batches(self.config.compact.train.batch_size)
        with torch.random.fork_rng(devices=[]):  # teachers draw weights when they are read
            samples = Samples(train, self.teacher_of(train, self._dense), self.config.run.seed)
        return CodeSearch(recommender, samples, self.processes).gains()

    def begin_retraining_with(self, recommender: Recommender, is_rotated: bool) -> None:
        run = self.run
        run.files.save(SEARCHED, recommender, self.config.compact_model.name, run.compact_options)
        run.files.remember(**{SEARCHED: {"is_rotated": is_rotated}})
