"""Batches of an encoded split: shuffled anew each epoch, reproducible from a seed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

RESIDENT_BYTES = 4 << 30  # ids up to this size are held on the device, as int32


class Batches:
    """A split of a data set, served as batches.

    Args:
        split: anything with ``ids`` (n, F) int32 and ``labels`` (n,).
        batch_size: rows per batch; the last batch of an epoch may be smaller.
        device: where batches are wanted.

    Shape: each batch is (rows (B,) int64, ids (B, F) int64, labels (B,) float32).
    """

    def __init__(self, split: Any, batch_size: int, device: torch.device) -> None:
        self.batch_size = batch_size
        self.device = device
        ids = np.asarray(split.ids)
        self.num_rows = len(ids)
        self.resident = ids.nbytes <= RESIDENT_BYTES
        self._ids = torch.from_numpy(np.array(ids, dtype=np.int32)).to(device) if self.resident else ids
        self._labels = torch.from_numpy(np.array(split.labels, dtype=np.float32)).to(device)

    def __len__(self) -> int:
        """Batches per epoch."""
        return -(-self.num_rows // self.batch_size)

    def take(self, rows: Tensor) -> Tensor:
        """Ids (B, F) int64 of ``rows`` (B,)."""
        if isinstance(self._ids, Tensor):
            return self._ids[rows].long()
        return torch.from_numpy(self._ids[rows.cpu().numpy()]).to(self.device).long()

    def epoch(self, seed: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """One shuffled pass; the order depends on ``seed`` alone."""
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(self.num_rows, generator=generator).to(self.device)
        for rows in order.split(self.batch_size):
            if rows.numel() > 1:  # batch norm cannot train on one row
                yield rows, self.take(rows), self._labels[rows]

    def in_order(self, batch_size: int = 8192) -> Iterator[tuple[Tensor, Tensor]]:
        """Ids and labels in the split's own order."""
        for rows in torch.arange(self.num_rows, device=self.device).split(batch_size):
            yield self.take(rows), self._labels[rows]


class MadeUpPairs:
    """Pairs that nobody rated: context columns of one training row, item columns of another.

    Teachers label them, so a compact model learns the teacher's function where the data has no rows
    (Bucilă et al. 2006, Model Compression; the pairing by sides is this project's).

    Args:
        batches: the training split.
        item_columns: positions of the item-side fields.
    """

    def __init__(self, batches: Batches, item_columns: tuple[int, ...]) -> None:
        self.batches = batches
        columns = torch.tensor(item_columns, dtype=torch.int64, device=batches.device)
        self.item_columns = columns

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """``count`` pairs, (count, F) int64."""
        rows = torch.randint(self.batches.num_rows, (2, count), generator=generator).to(self.batches.device)
        ids = self.batches.take(rows[0])
        ids[:, self.item_columns] = self.batches.take(rows[1])[:, self.item_columns]
        return ids
