"""Adam by rows against ``torch.optim.Adam`` on whole tables: same seeds, same weights, moments and averages."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ondevice.config.sections import SizesConfig
from ondevice.forms import fused
from ondevice.forms.table import TableInfo
from ondevice.methods.build import build
from ondevice.recommender import Recommender
from ondevice.training.average import WeightAverage
from ondevice.training.optimizers import idle, table_adam
from ondevice.training.optimizers.table_adam import TableAdam, flush, release
from ondevice.training.step import make_optimizers, train_step

from ...world import World

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
    result = [{"params": rest, "weight_decay": decay}]
    return [*result, {"params": thresholds, "lr": 3e-2, "weight_decay": decay}] if thresholds else result


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
        device = recommender.bias.device
        ids = torch.tensor(world.train.ids[rows]).long().to(device)
        labels = torch.tensor(world.train.labels[rows]).float().to(device)
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
        averages = [WeightAverage(recommender, 0.9, 3, [optimizer]), WeightAverage(whole, 0.9, 3)]
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


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("granularity", ["feature", "feature-dimension"])
def test_equals_adam_on_whole_tables_on_a_gpu(
    world: World, granularity: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By fused kernels, however small the rows; dropout draws the same for both."""
    monkeypatch.setattr(fused, "LEAST_VALUES", 1)
    options = {"regime": "decay", "threshold_init": -4.0, "granularity": granularity}
    pair = [build_recommender(world, "pep", **options).to("cuda") for _ in range(2)]
    given = [groups(recommender, 0.5) for recommender in pair]
    rows = TableAdam(given[0], pair[0].tables(), lr=1e-2, lazy=True, decoupled=True)
    for recommender, optimizer in zip(
        pair, (rows, torch.optim.AdamW(given[1], lr=1e-2, fused=True)), strict=True
    ):
        train(world, recommender, optimizer)
    rows.flush()
    for (name, p), q in zip(pair[0].named_parameters(), pair[1].parameters(), strict=True):
        assert_near(p, q, 1e-5, name)


class LargestMade(TorchDispatchMode):
    """Notes the most elements that an operation made; views and what it was given do not count."""

    numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not func.is_view and not func._schema.is_mutable:
            for tensor in torch.utils._pytree.tree_leaves(result):
                if isinstance(tensor, Tensor):
                    self.numel = max(self.numel, tensor.numel())
        return result


def test_only_rows_that_are_read_are_written(world: World) -> None:
    """Bit for bit, moments and all."""
    recommender, optimizer = lazily(world, "pep", 0.1, True, regime="decay", threshold_init=-4.0)
    train(world, recommender, optimizer, steps=range(3))
    before = optimizer._records.values.clone()
    train(world, recommender, optimizer, steps=range(3, 4))
    torch.manual_seed(3)
    read = torch.tensor(world.train.ids[torch.randint(0, 1600, (BATCH,)).numpy()]).long().unique()
    changed = (optimizer._records.values != before).any(1).nonzero().squeeze(1)
    assert changed.tolist() == read.tolist()


@pytest.mark.parametrize("regime", ["budget", "decay"])
def test_a_step_makes_nothing_as_large_as_the_table(regime: str) -> None:
    offsets = torch.tensor([0, 200_000, 300_000])
    info = TableInfo(offsets, torch.ones(300_000, dtype=torch.int64))
    options = {"regime": regime}
    recommender = build(
        info, model="fm", model_options={}, method="pep", method_options=options, embedding_dim=4
    )
    optimizers = make_optimizers(recommender, SizesConfig(weight_decay=1e-5))
    ids = torch.tensor([[5, 250_000], [199_999, 200_000]])
    train_step(recommender, optimizers, ids, torch.tensor([0.0, 1.0]))  # allocates
    with LargestMade() as seen:
        train_step(recommender, optimizers, ids.clone(), torch.tensor([0.0, 1.0]))
    assert 0 < seen.numel < 1000


def test_rows_are_peeked_at_as_a_flush_leaves_them(world: World) -> None:
    recommender, optimizer = lazily(world, "pep", 0.1, True, regime="data", threshold_init=-4.0)
    train(world, recommender, optimizer)
    rows = torch.tensor([50, 3, 77])
    weight, s = optimizer.peek(recommender.embedding, rows)
    assert not torch.equal(weight, recommender.embedding.weight[rows])
    optimizer.flush()
    assert torch.equal(weight, recommender.embedding.weight[rows])
    assert torch.equal(s, recommender.embedding.s[rows])


def test_rows_that_wait_are_not_read_by_mistake(world: World) -> None:
    recommender, optimizer = lazily(world, "uniform", 0.0, False)
    ids = torch.tensor(world.train.ids[:4]).long()
    recommender(ids)
    train(world, recommender, optimizer, steps=range(2))
    with pytest.raises(RuntimeError, match=r"wait for their updates: call the optimizer's flush\(\) first"):
        recommender(ids)
    flush([optimizer])
    recommender(ids)


@pytest.mark.parametrize(("decay", "decoupled"), [(0.1, True), (1e-4, False)])
def test_all_rows_are_brought_up_to_date_now_and_then(
    world: World, monkeypatch: pytest.MonkeyPatch, decay: float, decoupled: bool
) -> None:
    """As happens by itself after many steps; it changes nothing."""
    results = []
    for limit in (7, 1000):
        monkeypatch.setattr(idle, "CAPACITY", limit)
        monkeypatch.setattr(table_adam, "CAPACITY", limit)
        recommender, optimizer = lazily(world, "uniform", decay, decoupled)
        average = WeightAverage(recommender, 0.9, 3, [optimizer])
        train(world, recommender, optimizer, average)
        assert optimizer._idle[0].count == (STEPS - 1) % limit + 1
        optimizer.flush()
        results.append([*recommender.parameters(), *average.average])
    for a, b in zip(*results, strict=True):
        assert_near(a, b, 2e-6, "weights or average")


@pytest.mark.parametrize("from_whole", [False, True])
def test_a_state_is_that_of_adam_and_goes_on_alike(world: World, from_whole: bool) -> None:
    """From its own state bit for bit; from that of Adam on whole tables as near as they are."""
    first, adam = lazily(world, "pep", 0.1, True, regime="decay", threshold_init=-4.0)
    if from_whole:
        first = build_recommender(world, "pep", regime="decay", threshold_init=-4.0)
        adam = torch.optim.Adam(groups(first, 0.1), lr=1e-2, fused=True, decoupled_weight_decay=True)
    train(world, first, adam, steps=range(60))
    state = copy.deepcopy(adam.state_dict())
    second, other = lazily(world, "pep", 0.1, True, regime="decay", threshold_init=-4.0)
    second.load_state_dict(first.state_dict())
    other.load_state_dict(state)
    assert set(other.state_dict()["state"][0]) == {"step", "exp_avg", "exp_avg_sq"}
    for recommender, optimizer in ((first, adam), (second, other)):
        train(world, recommender, optimizer, steps=range(60, STEPS))
        flush([optimizer])
    for p, q in zip(first.parameters(), second.parameters(), strict=True):
        assert_near(p, q, 2e-6 if from_whole else 0.0, "weights")


def test_tables_get_memory_of_their_own_back(world: World) -> None:
    recommender, optimizer = lazily(world, "uniform", 0.0, False)
    train(world, recommender, optimizer, steps=range(5))
    assert not recommender.embedding.weight.is_contiguous()
    release([optimizer])
    assert recommender.embedding.weight.is_contiguous()
    recommender(torch.tensor(world.train.ids[:4]).long())
