"""Batches and made-up pairs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from ondevice.training import batches as batches_module
from ondevice.training.batches import Batches, MadeUpPairs

from ..world import CPU, Split, World

SPLIT = Split(
    np.array([[10 + i, 20 + i, 30 + i] for i in range(7)], dtype=np.int32), np.arange(7, dtype=np.uint8) % 2
)


def epoch(batches: Batches, seed: int) -> list[list[int]]:
    return [rows.tolist() for rows, _, _ in batches.epoch(seed)]


@pytest.mark.parametrize("resident", [True, False])
def test_every_row_comes_once_an_epoch(resident: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not resident:
        monkeypatch.setattr(batches_module, "RESIDENT_BYTES", 0)
    batches = Batches(SPLIT, 2, CPU)
    assert batches.resident == resident
    seen = []
    for rows, ids, labels in batches.epoch(5):
        seen += rows.tolist()
        assert ids.tolist() == SPLIT.ids[rows.numpy()].tolist()
        assert labels.tolist() == SPLIT.labels[rows.numpy()].tolist()
        assert (ids.dtype, labels.dtype) == (torch.int64, torch.float32)
    assert len(batches) == 4
    assert len(seen) == 6  # the seventh row would be a batch of one, which batch norm cannot train on
    assert len(set(seen)) == 6


def test_no_row_is_left_out_when_the_last_batch_has_two() -> None:
    first, last = epoch(Batches(SPLIT, 5, CPU), 0)
    assert sorted(first + last) == list(range(7))


def test_the_order_depends_on_the_seed_alone() -> None:
    batches = Batches(SPLIT, 3, CPU)
    first = epoch(batches, 1)
    torch.manual_seed(99)
    torch.rand(5)
    assert epoch(Batches(SPLIT, 3, CPU), 1) == first
    assert epoch(batches, 2) != first


def test_an_epoch_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    epoch(Batches(SPLIT, 3, CPU), 1)
    assert torch.equal(torch.rand(1), expected)


def test_in_order_is_the_split_itself() -> None:
    parts = list(Batches(SPLIT, 2, CPU).in_order(4))
    assert [len(ids) for ids, _ in parts] == [4, 3]
    assert torch.cat([ids for ids, _ in parts]).tolist() == SPLIT.ids.tolist()
    assert torch.cat([labels for _, labels in parts]).tolist() == SPLIT.labels.tolist()


def drawn(seed: int, count: int = 200) -> Tensor:
    pairs = MadeUpPairs(Batches(SPLIT, 2, CPU), item_columns=(2,))
    return pairs.draw(count, torch.Generator().manual_seed(seed))


def test_made_up_pairs_join_the_sides_of_two_rows() -> None:
    """Context columns come from one real row, item columns from another."""
    ids = drawn(0)
    assert ids.shape == (200, 3)
    context, item = ids[:, 0] - 10, ids[:, 2] - 30
    assert torch.equal(ids[:, 1], context + 20)
    assert set(context.tolist()) == set(item.tolist()) == set(range(7))
    assert (context != item).float().mean() > 0.7
    assert torch.equal(drawn(0), ids)
    assert not torch.equal(drawn(1), ids)


def test_drawing_pairs_changes_no_row(world: World) -> None:
    batches = world.batches()
    MadeUpPairs(batches, (2,)).draw(500, torch.Generator().manual_seed(0))
    assert torch.cat([ids for ids, _ in batches.in_order()]).tolist() == world.train.ids.tolist()
