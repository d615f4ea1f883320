"""Batches of an encoded split: shuffled anew each epoch, reproducible from a seed."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ondevice.training.ahead import ahead

RESIDENT_BYTES = 4 << 30  # ids up to this size are held in memory, as int32
RESIDENT_SHARE = 0.25  # on a GPU: up to this share of its memory
BLOCK_ROWS = 4096  # of a larger split, rows that are read together
SHUFFLE_BYTES = 512 << 20  # memory in which the rows of distant blocks are mixed
AHEAD = 16  # batches made in advance

Batch = tuple[Tensor, Tensor, Tensor]


class Batches:
    """A split of a data set, served as batches.

    A split that fits is held on the device and shuffled as a whole. A larger one stays on the disk: its blocks
    of neighbouring rows are read in a random order, as many at a time as ``SHUFFLE_BYTES`` hold, and the rows
    of these blocks are mixed; threads read and make batches in advance, in pinned memory for a GPU.

    Args:
        split: anything with ``ids`` (n, F) int32, ``labels`` (n,) and, if rows do not all count the same,
            ``weights`` (n,).
        batch_size: rows per batch; the last batch of an epoch may be smaller.
        device: where batches are wanted.
        resident: whether it is held on the device; None: as its size says.

    Shape: each batch is (rows (B,) int64, ids (B, F) int64, labels (B,) float32).
    """

    def __init__(
        self, split: Any, batch_size: int, device: torch.device, resident: bool | None = None
    ) -> None:
        self.batch_size = batch_size
        self.device = device
        ids = np.asarray(split.ids)
        self.num_rows = len(ids)
        self.resident = ids.nbytes <= resident_bytes(device) if resident is None else resident
        self._on_disk = (ids, np.asarray(split.labels))
        weights = getattr(split, "weights", None)
        self.row_weights = None if weights is None else torch.from_numpy(np.array(weights, dtype=np.float32))
        self._mean_weight = 1.0 if self.row_weights is None else float(self.row_weights.double().mean())
        if self.resident:
            self._ids = torch.from_numpy(np.array(ids, dtype=np.int32)).to(device)
            self._labels = torch.from_numpy(np.array(split.labels, dtype=np.float32)).to(device)

    def __len__(self) -> int:
        """Batches per epoch."""
        return -(-self.num_rows // self.batch_size)

    def take(self, rows: Tensor) -> Tensor:
        """Ids (B, F) int64 of ``rows`` (B,)."""
        if self.resident:
            return self._ids[rows].long()
        return torch.from_numpy(self._on_disk[0][rows.cpu().numpy()]).to(self.device).long()

    def labels(self, rows: Tensor) -> Tensor:
        """Labels (B,) float32 of ``rows`` (B,)."""
        if self.resident:
            return self._labels[rows]
        return torch.from_numpy(self._on_disk[1][rows.cpu().numpy()]).to(self.device).float()

    def weights(self, rows: Tensor, count: int) -> Tensor | None:
        """What ``rows`` count in a loss, 1 on average, and 1 for what follows them, (count,); None: all the same."""
        if self.row_weights is None:
            return None
        counted = self.row_weights[rows.cpu()].to(self.device) / self._mean_weight
        return torch.cat([counted, counted.new_ones(count - len(counted))])

    def epoch(self, seed: int) -> Generator[Batch, None, None]:
        """One shuffled pass; the order depends on ``seed`` alone."""
        made = self._whole(seed) if self.resident else ahead(lambda: self._mixed(seed), AHEAD)
        with contextlib.closing(made):
            for batch in made:
                if len(batch[0]) > 1:  # batch norm cannot train on one row
                    yield self._to_device(batch)

    def in_order(self, batch_size: int = 8192) -> Generator[tuple[Tensor, Tensor], None, None]:
        """Ids and labels in the split's own order."""
        if self.resident:
            for rows in torch.arange(self.num_rows, device=self.device).split(batch_size):
                yield self.take(rows), self._labels[rows]
            return
        starts = range(0, self.num_rows, batch_size)
        read = ahead(lambda: (self._pinned(self._read([s], batch_size)) for s in starts), AHEAD)
        with contextlib.closing(read):
            for batch in read:
                yield self._to_device(batch)[1:]

    def _whole(self, seed: int) -> Generator[Batch, None, None]:
        """Batches of all rows, mixed, as (int64, int32, float32) on the device."""
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(self.num_rows, generator=generator).to(self.device)
        for rows in order.split(self.batch_size):
            yield rows, self._ids[rows], self._labels[rows]

    def _mixed(self, seed: int) -> Generator[Batch, None, None]:
        """Batches of rows from the disk, as (int64, int32, uint8), the windows of blocks read one ahead."""
        generator = torch.Generator().manual_seed(seed)
        blocks = torch.randperm(-(-self.num_rows // BLOCK_ROWS), generator=generator)
        block_bytes = BLOCK_ROWS * (self._on_disk[0][:1].nbytes + 9)
        windows = (blocks * BLOCK_ROWS).split(max(1, SHUFFLE_BYTES // 2 // block_bytes))
        left: Batch | None = None
        with ThreadPoolExecutor(1) as reader:
            reading = reader.submit(self._read, windows[0].tolist(), BLOCK_ROWS)
            for following in [*windows[1:], None]:
                window = reading.result()
                if following is not None:
                    reading = reader.submit(self._read, following.tolist(), BLOCK_ROWS)
                order = torch.randperm(len(window[0]), generator=generator)
                first = self.batch_size - (0 if left is None else len(left[0]))
                for places in (order[:first], *order[first:].split(self.batch_size)):
                    batch: Batch = tuple(part[places] for part in window)  # type: ignore[assignment]
                    if left is not None:
                        batch = tuple(map(torch.cat, zip(left, batch, strict=True)))  # type: ignore[assignment]
                    left = batch
                    if len(batch[0]) == self.batch_size:
                        yield self._pinned(batch)
                        left = None
        if left is not None:
            yield self._pinned(left)

    def _read(self, starts: list[int], length: int) -> Batch:
        """Row numbers, ids and labels of stretches of rows, in memory."""
        ids, labels = self._on_disk
        stretches = [slice(start, min(start + length, self.num_rows)) for start in starts]
        return (
            torch.cat([torch.arange(s.start, s.stop) for s in stretches]),
            torch.from_numpy(np.concatenate([ids[s] for s in stretches])),
            torch.from_numpy(np.concatenate([labels[s] for s in stretches])),
        )

    def _pinned(self, batch: Batch) -> Batch:
        """The batch where a GPU can fetch it from while it computes."""
        if self.device.type != "cuda":
            return batch
        rows, ids, labels = batch
        return rows.pin_memory(), ids.pin_memory(), labels.pin_memory()

    def _to_device(self, batch: Batch) -> Batch:
        rows, ids, labels = (part.to(self.device, non_blocking=True) for part in batch)
        return rows, ids.long(), labels.float()


def resident_bytes(device: torch.device) -> int:
    """The largest split of ids, in bytes, that is held on a device."""
    if device.type == "cuda":
        return int(RESIDENT_SHARE * torch.cuda.get_device_properties(device).total_memory)
    return RESIDENT_BYTES
