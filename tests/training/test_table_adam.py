"""Adam by rows against ``torch.optim.Adam`` on whole tables: same seeds, same weights, moments and averages."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from ondevice.recommender import Recommender, build
from ondevice.training.average import WeightAverage
from ondevice.training.fit import train_step
from ondevice.training.table_adam import TableAdam

from ..world import World

STEPS = 150
BATCH = 4  # of 78 rows a step reads at most 12: most are idle most of the time


def build_recommender(world: World, method: str, **options: Any) -> Recommender:
    """Without batch norm: the gradient of a bias before it is noise, which Adam blows up to full steps."""
    torch.manual_seed(0)
    return build(
        world.info,
        model="deepfm",
        model_options={"hidden": (8,), "dropout": 0.1, "batch_norm": False},
        method=method,
        method_options=options,
        embedding_dim=4,
    ).train()


def groups(recommender: Recommender, decay: float) -> list[dict[str, Any]]:
    """Thresholds in a group with a rate of their own."""
    thresholds = [p for table in recommender.tables() for p in table.thresholds()]
    special = {id(p) for p in thresholds}
    rest = [p for p in recommender.parameters() if id(p) not in special]
    found = [{"params": rest, "weight_decay": decay}]
    return [*found, {"params": thresholds, "lr": 3e-2, "weight_decay": decay}] if thresholds else found


def train(
    world: World,
    recommender: Recommender,
    optimizer: torch.optim.Optimizer,
    average: WeightAverage | None = None,
    steps: range = range(STEPS),
) -> Recommender:
    """Steps with a falling learning rate on small batches, half of which read few rows only."""
    for step in steps:
        torch.manual_seed(step)
        rows = torch.randint(0, 1600 if step % 2 else 20, (BATCH,)).numpy()
        for group in optimizer.param_groups:
            group["lr"] = group.setdefault("first_lr", group["lr"]) * (1 - 0.5 * step / STEPS)
        ids, labels = (
            torch.tensor(world.train.ids[rows]).long(),
            torch.tensor(world.train.labels[rows]).float(),
        )
        train_step(recommender, [optimizer], ids, labels, embedding_penalty=1e-3)
        if average is not None:
            average.after_step(step + 1)
    return recommender


def lazily(
    world: World, method: str, decay: float, decoupled: bool, **options: Any
) -> tuple[Recommender, TableAdam]:
    recommender = build_recommender(world, method, **options)
    optimizer = TableAdam(
        groups(recommender, decay),
        recommender.tables(),
        lr=1e-2,
        lazy=True,
        decoupled=decoupled,
        averaged=True,
    )
    return recommender, optimizer


def assert_near(got: Tensor, expected: Tensor, tolerance: float, what: str) -> None:
    difference = ((got - expected).abs() / expected.abs().clamp(min=1)).max().item()
    assert difference <= tolerance, f"{what}: differs by {difference}"


METHODS = [
    ("uniform", {}),
    ("pep", {"regime": "decay", "threshold_init": -4.0}),
    ("pep", {"regime": "data", "threshold_init": -4.0, "granularity": "feature"}),
    ("pep", {"regime": "data", "threshold_init": -4.0, "granularity": "field-dimension"}),
]


@pytest.mark.parametrize("averaged", [False, True])
@pytest.mark.parametrize(("decay", "decoupled"), [(0.0, False), (0.5, True), (1e-4, False)])
@pytest.mark.parametrize(("method", "options"), METHODS)
def test_equals_adam_on_whole_tables(
    world: World, method: str, options: dict[str, Any], decay: float, decoupled: bool, averaged: bool
) -> None:
    """Within 2e-6 of 1 or of the value, after 150 steps of up to 1e-2: rounding, and ε to second order."""
    recommender, optimizer = lazily(world, method, decay, decoupled, **options)
    whole = build_recommender(world, method, **options)
    reference = torch.optim.Adam(groups(whole, decay), lr=1e-2, fused=True, decoupled_weight_decay=decoupled)
    averages = [None, None]
    if averaged:
        averages = [WeightAverage(recommender, 0.9, 3, optimizer), WeightAverage(whole, 0.9, 3)]
    train(world, recommender, optimizer, averages[0])
    train(world, whole, reference, averages[1])
    behind = (recommender.embedding.weight - whole.embedding.weight).abs().max().item()
    assert behind > 1e-3  # rows were left alone
    optimizer.flush()
    for (name, p), q in zip(recommender.named_parameters(), whole.parameters(), strict=True):
        assert_near(p, q, 2e-6, name)
        for moment in ("exp_avg", "exp_avg_sq"):
            assert_near(optimizer.state[p][moment], reference.state[q][moment], 2e-6, f"{name} {moment}")
        assert optimizer.state[p]["step"] == reference.state[q]["step"] == STEPS
    if averages[0] is not None and averages[1] is not None:
        for a, b in zip(averages[0].average, averages[1].average, strict=True):
            assert_near(a, b, 2e-6, "average")
