"""Soft targets on real rows and on made-up pairs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ondevice.distributed.processes import Processes
from ondevice.errors import UserError
from ondevice.training.teacher import Teacher

from ..world import World


def teacher(world: World, **options: object) -> Teacher:
    settings = {"item_columns": (2,), "label_weight": 0.3, "pairs": 0.5, **options}
    models = [world.recommender(seed=seed) for seed in (1, 2)]
    return Teacher(models, world.batches(), **settings)


def mean_prediction(world: World, ids: Tensor) -> Tensor:
    models = [world.recommender(seed=seed).eval() for seed in (1, 2)]
    return (torch.sigmoid(models[0](ids)) + torch.sigmoid(models[1](ids))).detach() / 2


def test_targets_are_labels_and_mean_predictions_mixed(world: World) -> None:
    rows, ids, labels = next(world.batches().epoch(0))
    extended, targets = teacher(world).extend(rows, ids, labels, torch.Generator().manual_seed(0))
    assert extended.shape == (128 + 64, 3)
    assert torch.equal(extended[:128], ids)
    real = 0.3 * labels + 0.7 * mean_prediction(world, ids)
    torch.testing.assert_close(targets[:128], real)
    torch.testing.assert_close(targets[128:], mean_prediction(world, extended[128:]))
    user, item = extended[128:, 0], extended[128:, 2]
    ages = {int(u): int(a) for u, a in world.train.ids[:, :2]}
    assert [ages[int(u)] for u in user] == extended[128:, 1].tolist()
    pairs = {(int(u), int(i)) for u, _, i in world.train.ids}
    assert any((int(u), int(i)) not in pairs for u, i in zip(user, item, strict=True))


def test_without_pairs_a_batch_keeps_its_rows(world: World) -> None:
    rows, ids, labels = next(world.batches().epoch(0))
    extended, targets = teacher(world, pairs=0.0, label_weight=1.0).extend(
        rows, ids, labels, torch.Generator()
    )
    assert torch.equal(extended, ids)
    assert torch.equal(targets, labels)


def test_processes_share_one_batch(world: World) -> None:
    """Put in order, the shares of four processes are the batch of one."""
    own = teacher(world)
    rows, ids, labels = next(world.batches().epoch(0))
    rows, ids, labels = rows[:90], ids[:90], labels[:90]
    expected = own.extend(rows, ids, labels, torch.Generator().manual_seed(0))
    for rank in range(4):
        own.processes = Processes(rank, 4)
        extended, targets = own.extend(rows, ids, labels, torch.Generator().manual_seed(0))
        assert torch.equal(extended, expected[0])
        torch.testing.assert_close(targets, expected[1][rank::4])


@pytest.mark.parametrize("item_columns", [(), (0, 1, 2)])
def test_pairs_need_both_sides(world: World, item_columns: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match=r"pairs.*only one side; set pairs=0"):
        teacher(world, item_columns=item_columns)
    assert teacher(world, item_columns=item_columns, pairs=0.0).pairs == 0.0


def test_teachers_are_frozen_and_in_evaluation(world: World) -> None:
    for model in teacher(world).models:
        assert not model.training
        assert not any(parameter.requires_grad for parameter in model.parameters())
