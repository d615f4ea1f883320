"""What a step costs: a searching method against dense training, this code against the naive formulation."""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch

from benchmarks.naive import WholeTablePEP, naive_batches, naive_step
from ondevice.config.sections import SizesConfig
from ondevice.data import Dataset
from ondevice.forms.table import table_info
from ondevice.methods.build import build
from ondevice.recommender import Recommender
from ondevice.training.batches import Batches
from ondevice.training.step import make_optimizers, train_step


def step_time_ratio(
    searching: Recommender, dense: Recommender, batches: Batches, settings: SizesConfig, steps: int = 120
) -> float:
    """Median over pairs of steps of the searching step's time over the dense one's.

    Both take the same batches in turn, so that noise of the machine falls on both. The recommenders are
    changed by it.
    """
    return round(statistics.median(_paired(searching, dense, batches, settings, steps)[0]), 3)


def _paired(
    searching: Recommender, dense: Recommender, batches: Batches, settings: SizesConfig, steps: int
) -> tuple[list[float], list[float], list[float]]:
    """Ratios and seconds of each side, step by step, the first ones (which allocate) left out."""
    sides = [(m, make_optimizers(m.train(), settings)) for m in (searching, dense)]
    taken: tuple[list[float], list[float]] = ([], [])
    for number, (_, ids, labels) in enumerate(batches.epoch(0)):
        if number >= steps:
            break
        for (recommender, optimizers), seconds in zip(sides, taken, strict=True):
            wait(batches.device)
            started = time.perf_counter()
            train_step(recommender, optimizers, ids, labels, embedding_penalty=settings.embedding_penalty)
            wait(batches.device)
            seconds.append(time.perf_counter() - started)
    skip = min(10, len(taken[0]) // 2)
    mine, other = taken[0][skip:], taken[1][skip:]
    return [a / b for a, b in zip(mine, other, strict=True)], mine, other


def wait(device: torch.device) -> None:
    """Until a device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def compare_steps(
    dataset: Dataset, *, model: str, batch_size: int, embedding_dim: int = 32, steps: int = 250, **pep: Any
) -> dict[str, Any]:
    """PEP's training step over the dense one's, interleaved on the same batches of a data set."""
    info = table_info(dataset.vocabulary.field_offsets, dataset.counts)
    batches = Batches(dataset.train, batch_size, torch.device("cpu"))
    torch.manual_seed(0)
    sides = [
        build(info, model=model, model_options={}, method=m, method_options=o, embedding_dim=embedding_dim)
        for m, o in (("pep", pep), ("uniform", {}))
    ]
    ratios, mine, other = _paired(sides[0], sides[1], batches, SizesConfig(), steps)
    return {
        "model": model,
        "batch_size": batch_size,
        "rows_in_table": info.num_embeddings,
        "dense_ms": round(1e3 * statistics.median(other), 3),
        "pep_ms": round(1e3 * statistics.median(mine), 3),
        "pep_over_dense": round(statistics.median(ratios), 3),
        **pep,
    }


def compare_with_naive(
    dataset: Dataset, *, batch_size: int = 1024, rounds: int = 5, steps: int = 40
) -> dict[str, Any]:
    """Seconds of an epoch of FM with PEP: this code's loop against the naive one, rounds interleaved.

    Each round times ``steps`` steps of either side, fetching included, and the median is scaled to an epoch.
    """
    info = table_info(dataset.vocabulary.field_offsets, dataset.counts)
    batches = Batches(dataset.train, batch_size, torch.device("cpu"))
    torch.manual_seed(0)
    ours = build(
        info, model="fm", model_options={}, method="pep", method_options={"regime": "decay"}, embedding_dim=32
    ).train()
    settings = SizesConfig(weight_decay=1e-5)
    optimizers = make_optimizers(ours, settings)
    naive = WholeTablePEP(info.num_embeddings, 32)
    naive_optimizer = torch.optim.Adam(naive.parameters(), lr=1e-3, weight_decay=1e-5)
    own_batches = batches.epoch(0)
    naive_loader = iter(naive_batches(dataset.train.ids, dataset.train.labels, batch_size))
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        started = time.perf_counter()
        for _ in range(steps):
            _, ids, labels = next(own_batches)
            train_step(ours, optimizers, ids, labels)
        seconds[0].append(time.perf_counter() - started)
        started = time.perf_counter()
        for _ in range(steps):
            ids, labels = next(naive_loader)
            naive_step(naive, naive_optimizer, ids, labels)
        seconds[1].append(time.perf_counter() - started)
    epoch = len(batches) / steps
    mine, other = (statistics.median(s) * epoch for s in seconds)
    return {
        "batch_size": batch_size,
        "rows": batches.num_rows,
        "epoch_seconds": round(mine, 2),
        "naive_epoch_seconds": round(other, 2),
        "naive_over_ours": round(statistics.median(b / a for a, b in zip(*seconds, strict=True)), 2),
    }
