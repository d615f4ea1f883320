"""Batches of a split, held in memory or read from the disk."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from ondevice.data import EncodedSplit
from ondevice.training import batches as batches_module
from ondevice.training.batches import Batches

from ..world import CPU, Split

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


@pytest.fixture
def on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Split:
    """1,003 rows that are not held in memory: blocks of 10 rows, windows of about 8 blocks."""
    monkeypatch.setattr(batches_module, "RESIDENT_BYTES", 0)
    monkeypatch.setattr(batches_module, "BLOCK_ROWS", 10)
    monkeypatch.setattr(batches_module, "SHUFFLE_BYTES", 8 * 10 * (12 + 9) * 2)
    np.save(tmp_path / "ids.npy", np.arange(3009, dtype=np.int32).reshape(1003, 3))
    np.save(tmp_path / "labels.npy", (np.arange(1003) % 3 == 0).astype(np.uint8))
    mapped = [np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in ("ids", "labels")]
    return Split(*mapped)


@pytest.mark.parametrize("batch_size", [2, 7, 80, 100, 1002, 1003, 5000])
def test_from_the_disk_every_row_comes_once_in_full_batches(on_disk: Split, batch_size: int) -> None:
    batches = Batches(on_disk, batch_size, CPU)
    assert not batches.resident
    seen = list(batches.epoch(3))
    assert all(len(rows) == batch_size for rows, _, _ in seen[:-1])
    for rows, ids, labels in seen:
        assert ids.tolist() == on_disk.ids[rows.numpy()].tolist()
        assert labels.tolist() == on_disk.labels[rows.numpy()].tolist()
        assert (rows.dtype, ids.dtype, labels.dtype) == (torch.int64, torch.int64, torch.float32)
    rows = torch.cat([rows for rows, _, _ in seen]).tolist()
    alone = 1003 % batch_size == 1  # a batch of one row is left out
    assert len(rows) == len(set(rows)) == 1003 - alone
    assert len(seen) == len(batches) - alone


def test_from_the_disk_the_order_depends_on_the_seed_alone(on_disk: Split) -> None:
    first = epoch(Batches(on_disk, 64, CPU), 1)
    torch.manual_seed(99)
    assert epoch(Batches(on_disk, 64, CPU), 1) == first
    assert epoch(Batches(on_disk, 64, CPU), 2) != first


def test_from_the_disk_distant_rows_meet(on_disk: Split) -> None:
    """A batch has rows of all the split, and neighbours in it are no neighbours in the split."""
    (rows, _, _) = next(iter(Batches(on_disk, 64, CPU).epoch(0)))
    places = rows.numpy()
    assert len(set((places // 10).tolist())) >= 8
    assert places.max() - places.min() > 500
    assert (np.abs(np.diff(places)) < 10).mean() < 0.4
    order = np.concatenate(epoch(Batches(on_disk, 64, CPU), 0))
    assert abs(np.corrcoef(order, np.arange(len(order)))[0, 1]) < 0.3


def test_an_epoch_that_is_broken_off_leaves_no_thread(on_disk: Split) -> None:
    before = threading.active_count()
    for _ in Batches(on_disk, 10, CPU).epoch(0):
        break
    batches = Batches(on_disk, 10, CPU).epoch(0)
    next(batches)
    batches.close()
    assert threading.active_count() == before


def test_from_the_disk_in_order(on_disk: Split) -> None:
    parts = list(Batches(on_disk, 10, CPU).in_order(100))
    assert torch.cat([ids for ids, _ in parts]).tolist() == on_disk.ids.tolist()
    assert torch.cat([labels for _, labels in parts]).tolist() == on_disk.labels.tolist()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_from_the_disk_to_a_gpu(on_disk: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same batches as on the CPU, wherever they are held."""
    monkeypatch.setattr(batches_module, "RESIDENT_SHARE", 0)
    device = torch.device("cuda")
    expected = list(Batches(on_disk, 64, CPU).epoch(1))
    for result, there in zip(Batches(on_disk, 64, device).epoch(1), expected, strict=True):
        assert all(
            a.device.type == "cuda" and torch.equal(a.cpu(), b) for a, b in zip(result, there, strict=True)
        )


@pytest.mark.parametrize("resident", [True, False])
def test_weights_are_one_on_average(resident: bool) -> None:
    split = EncodedSplit(SPLIT.ids, SPLIT.labels, np.array([0, 1, 2, 3, 4, 5, 6], dtype=np.float32))
    batches = Batches(split, 3, CPU, resident)
    result = batches.weights(torch.tensor([6, 0, 3]), 5)
    assert result is not None
    assert result.tolist() == [2, 0, 1, 1, 1]
    assert Batches(SPLIT, 3, CPU).weights(torch.tensor([1]), 1) is None
