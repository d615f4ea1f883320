"""The naive formulation that step times are measured against is the same method, only slower."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from benchmarks import pep_step as step_time
from benchmarks.naive import WholeTablePEP, naive_batches, naive_step
from benchmarks.pep_step import compare_steps, compare_with_naive, step_time_ratio
from ondevice.config.sections import SizesConfig
from ondevice.data import Dataset, load_dataset
from ondevice.methods.build import build
from ondevice.recommender import Recommender
from ondevice.training.step import make_optimizers, train_step

from ..world import World


@pytest.fixture
def dataset(tiny_config: Callable[..., dict[str, Any]]) -> Dataset:
    return load_dataset(**tiny_config()["data"])


def pair(world: World) -> tuple[Recommender, WholeTablePEP]:
    """Both with the same weights and thresholds, about half of the values pruned."""
    options = {"regime": "decay", "threshold_init": -2.5}
    ours = build(
        world.info,
        model="fm",
        model_options={},
        method="pep",
        method_options=options,
        embedding_dim=4,
        first_order_method="uniform",
    )
    naive = WholeTablePEP(78, 4, threshold_init=-2.5)
    with torch.no_grad():
        naive.weight.copy_(ours.embedding.weight)
        naive.first_order.copy_(ours.first_order.weight)
    return ours, naive


def test_the_naive_formulation_says_and_learns_the_same(world: World) -> None:
    ours, naive = pair(world)
    settings = SizesConfig(weight_decay=1e-5)
    optimizers = make_optimizers(ours, settings)
    naive_optimizer = torch.optim.Adam(naive.parameters(), lr=1e-3, weight_decay=1e-5)
    assert 0 < ours.embedding.num_kept() < 78 * 4
    for _, ids, labels in world.batches().epoch(0):
        torch.testing.assert_close(naive(ids), ours(ids), rtol=1e-4, atol=1e-5)
        train_step(ours, optimizers, ids, labels)
        naive_step(naive, naive_optimizer, ids, labels)
    torch.testing.assert_close(naive.s, ours.embedding.s, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(naive.weight, ours.embedding.weight, rtol=1e-3, atol=1e-4)


def test_naive_batches_hold_every_row(world: World) -> None:
    ids = torch.cat([ids for ids, _ in naive_batches(world.valid.ids, world.valid.labels, 64)])
    assert sorted(ids.tolist()) == sorted(world.valid.ids.tolist())


def test_a_ratio_is_of_the_first_over_the_second(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that only the recommenders move, since a busy machine has hours of its own."""
    now = 0.0

    def taking(seconds: float) -> Recommender:
        recommender = world.recommender()
        embed = recommender.embed

        def waits(ids: torch.Tensor) -> torch.Tensor:
            nonlocal now
            now += seconds
            return embed(ids)

        recommender.embed = waits  # type: ignore[method-assign]
        return recommender

    monkeypatch.setattr(step_time.time, "perf_counter", lambda: now)
    batches, settings = world.batches(), SizesConfig()
    assert step_time_ratio(taking(3.0), taking(2.0), batches, settings) == 1.5
    assert step_time_ratio(taking(2.0), taking(3.0), batches, settings) == 0.667


def test_figures_have_their_names(dataset: Dataset) -> None:
    steps = compare_steps(dataset, model="fm", batch_size=64, embedding_dim=4, steps=8, regime="budget")
    assert steps["rows_in_table"] == 78
    assert steps["pep_over_dense"] > 0
    assert steps["regime"] == "budget"
    epoch = compare_with_naive(dataset, batch_size=64, rounds=2, steps=5)
    assert epoch["rows"] == 1600
    assert epoch["naive_over_ours"] > 0
