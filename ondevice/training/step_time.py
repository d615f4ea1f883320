"""A searching method's training step against the dense step, side by side."""

from __future__ import annotations

import statistics
import time

import torch

from ondevice.config import SearchConfig
from ondevice.recommender import Recommender
from ondevice.training.batches import Batches
from ondevice.training.fit import make_optimizers, train_step


def step_time_ratio(
    searching: Recommender, dense: Recommender, batches: Batches, settings: SearchConfig, steps: int = 120
) -> float:
    """Median over pairs of steps of the searching step's time over the dense one's.

    Both take the same batches in turn, so that noise of the machine falls on both. The recommenders are
    changed by it.
    """
    sides = [(m, make_optimizers(m.train(), settings)) for m in (searching, dense)]
    ratios = []
    for number, (_, ids, labels) in enumerate(batches.epoch(0)):
        if number >= steps:
            break
        taken = []
        for recommender, optimizers in sides:
            _wait(batches.device)
            started = time.perf_counter()
            train_step(recommender, optimizers, ids, labels, embedding_penalty=settings.embedding_penalty)
            _wait(batches.device)
            taken.append(time.perf_counter() - started)
        if number >= min(10, len(batches) // 2):  # the first steps allocate
            ratios.append(taken[0] / taken[1])
    return round(statistics.median(ratios), 3)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
