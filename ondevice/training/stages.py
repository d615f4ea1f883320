"""Stages of a training: what changes in a model while it is trained, such as values that become codes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from ondevice.config.sections import TrainConfig
from ondevice.recommender import Recommender
from ondevice.training.batches import Batches
from ondevice.training.processes import Processes
from ondevice.training.teacher import Teacher


class Stages(Protocol):
    """Changes of a model at some steps, counted from 0, and the learning rates between them."""

    def is_due(self, step: int) -> bool:
        """Whether `at` does something before a step."""

    def at(self, step: int) -> bool:
        """What is due before a step; says whether axes were rotated, along which optimizers have momentum."""

    def rate(self, step: int) -> tuple[float, float, float]:
        """The learning rate a schedule starts from, and the steps from which and to which it runs."""


MakeStages = Callable[
    [
        Recommender,
        TrainConfig,
        Batches,
        "Teacher | None",
        int,
        Processes,
        "Callable[[int], None] | None",
    ],
    "Stages | None",
]
"""Makes the stages of a training of (a recommender, settings, the training split, its teacher, a seed, processes, and
what changes the level of an elastic table before a step); None where the model has none."""
