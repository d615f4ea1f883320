"""One step of a training or a search: the optimizers, and what they do with a batch."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ondevice.config.sections import SizesConfig, TrainConfig
from ondevice.errors import ConfigError
from ondevice.forms.rows import FetchedRows
from ondevice.recommender import Recommender
from ondevice.training.optimizers.jointly_scaled import JointlyScaledSGD
from ondevice.training.optimizers.table_adam import TableAdam, reads_by_row
from ondevice.training.processes import ALONE, Processes

ROW_WISE_FROM = 50_000
"""Ids from which on ``row_wise: auto`` leaves rows alone that a batch does not look up (docs/large_tables.md)."""


def make_optimizers(
    recommender: Recommender, settings: TrainConfig | SizesConfig
) -> list[torch.optim.Optimizer]:
    """Adam; thresholds in a group, or for methods that follow a budget an optimizer, of their own.

    Raises: ConfigError: when rows alone are to be touched and no table is read by rows.
    """
    thresholds = [p for table in recommender.tables() for p in table.thresholds()]
    special = {id(p) for p in thresholds}
    rest = [p for p in recommender.parameters() if id(p) not in special]
    groups: list[dict[str, Any]] = [{"params": rest, "weight_decay": settings.weight_decay}]
    rate = getattr(settings, "threshold_learning_rate", None) or settings.learning_rate
    follow = any(table.follows_budget for table in recommender.tables())
    if thresholds and not follow:
        decays = any(table.thresholds_decay for table in recommender.tables())
        decay = settings.weight_decay if decays else 0.0
        if (rate, decay) == (settings.learning_rate, settings.weight_decay):
            rest.extend(thresholds)  # one group: what idle rows wait for is then worked out once
        else:
            groups.append({"params": thresholds, "lr": rate, "weight_decay": decay})
    tables = recommender.tables()
    adam = TableAdam(
        groups,
        tables,
        lr=settings.learning_rate,
        lazy=is_row_wise(recommender, settings),
        decoupled=settings.decoupled_decay,
        averaged=getattr(settings, "ema_decay", 0.0) > 0,
    )
    optimizers: list[torch.optim.Optimizer] = [adam]
    if thresholds and follow:
        optimizers.append(JointlyScaledSGD(thresholds, lr=rate, tables=tables))
    return optimizers


def is_row_wise(recommender: Recommender, settings: TrainConfig | SizesConfig) -> bool:
    """Whether a step touches only the rows it looks up: as ``row_wise`` says, or the tables' size."""
    if settings.row_wise == "auto":
        return recommender.info.num_embeddings >= ROW_WISE_FROM
    if settings.row_wise and not any(reads_by_row(table, lazy=True) for table in recommender.tables()):
        kind = type(recommender.embedding).__name__
        raise ConfigError(f"row_wise: {kind} reads its whole table at every step; use row_wise=auto")
    return bool(settings.row_wise)


def train_step(
    recommender: Recommender,
    optimizers: Sequence[torch.optim.Optimizer],
    ids: Tensor,
    targets: Tensor,
    *,
    embedding_penalty: float = 0.0,
    embedding_dropout: float = 0.0,
    precision: str = "float32",
    processes: Processes = ALONE,
    weights: Tensor | None = None,
) -> Tensor:
    """One step on a batch; returns the mean log loss (without penalties), still on the device.

    Args:
        precision: float32, or bfloat16 for the base model's arithmetic.
        processes: that share the batch: each has the ids of all of it and the targets of its share. What is
            returned is then this share's part, whose mean over the processes is the loss.
        weights: what each row counts; None: all the same.

    Shape: ids (B, F) int64, targets (B,) float32 in [0, 1], weights (B,) float32.
    """
    for optimizer in optimizers:
        if isinstance(optimizer, TableAdam):
            optimizer.fetch(recommender.mapped(ids))
    if weights is not None:
        (weights,) = processes.share(weights)
    weight, (ids,) = processes.weight(len(targets), len(ids)), processes.share(ids)
    rows = _shared_rows(recommender, ids, processes)
    embeddings = recommender.embed(ids)
    if embedding_dropout:
        embeddings = F.dropout(embeddings, embedding_dropout)
    low = torch.autocast(ids.device.type, torch.bfloat16) if precision == "bfloat16" else nullcontext()
    with low:
        logits = recommender.logits_of(embeddings, ids)
    # a process may have no row of a small batch; the mean of none is no number
    loss = F.binary_cross_entropy_with_logits(
        logits, targets, weights, reduction="mean" if len(ids) else "sum"
    )
    total = loss
    if embedding_penalty:
        total = loss + embedding_penalty * embeddings.square().sum() / max(1, len(ids))
    for table in recommender.tables():
        penalty = table.regularization()
        if penalty is not None:
            total = total + penalty
    for optimizer in optimizers:
        optimizer.zero_grad(set_to_none=True)
    (total if weight == 1.0 else total * weight).backward()
    processes.average_gradients([*recommender.parameters(), *rows])
    for optimizer in reversed(optimizers):  # what the others do to fetched rows, `TableAdam` writes back
        optimizer.step()
    for table in recommender.tables():
        table.fetched = None
    return loss.detach() if weight == 1.0 else loss.detach() * weight


def _shared_rows(recommender: Recommender, ids: Tensor, processes: Processes) -> list[Tensor]:
    """The rows fetched, those of the whole batch in every process, to be read by a process's own ``ids``."""
    rows: list[Tensor] = []
    for table in recommender.tables():
        fetched = table.fetched
        if fetched is not None and processes.size > 1:
            (inverse,) = processes.share(fetched.inverse)
            table.fetched = FetchedRows(recommender.mapped(ids), fetched.rows, inverse, fetched.values)
            rows += fetched.values.values()
    return rows
