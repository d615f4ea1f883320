"""Initial weights of single rows: the same whatever the number of processes, and again whenever they are wanted."""

from __future__ import annotations

import math
import zlib

import torch
from torch import Tensor

BLOCK_ROWS = 1 << 14


class InitialRows:
    """Embeddings and first-order weights as they are before any training, block by block of rows.

    Args:
        num_rows: rows N of the table.
        dim: dimension D of the embeddings; the column after them is the first-order weight, if there is one.
        has_first_order: whether there is one.
        std: standard deviation; None for Xavier uniform over the whole tables (N, D) and (N, 1).
        seed: of all rows.
    """

    def __init__(self, num_rows: int, dim: int, has_first_order: bool, std: float | None, seed: int) -> None:
        self.num_rows, self.dim, self.std, self.seed = num_rows, dim, std, seed
        widths = [dim, 1] if has_first_order else [dim]
        self.width = sum(widths)
        self.bounds = torch.cat([torch.full((w,), math.sqrt(6 / (num_rows + w))) for w in widths])

    def block(self, number: int) -> Tensor:
        """Rows ``number`` · BLOCK_ROWS and following, (up to BLOCK_ROWS, width)."""
        generator = torch.Generator().manual_seed(zlib.crc32(f"{self.seed}/rows/{number}".encode()))
        rows = min(BLOCK_ROWS, self.num_rows - number * BLOCK_ROWS)
        if self.std is not None:
            return torch.randn(rows, self.width, generator=generator) * self.std
        return (torch.rand(rows, self.width, generator=generator) * 2 - 1) * self.bounds

    def fill_(self, shard: Tensor, first: int) -> None:
        """Write rows ``first`` and following into ``shard``, (n, width)."""
        for number in range(first // BLOCK_ROWS, -(-(first + len(shard)) // BLOCK_ROWS)):
            start = number * BLOCK_ROWS
            begin, end = max(start, first), min(start + BLOCK_ROWS, first + len(shard))
            shard[begin - first : end - first] = self.block(number)[begin - start : end - start].to(
                shard.device
            )

    def take(self, rows: Tensor) -> Tensor:
        """Some rows, ascending: (K,) int64 -> (K, width)."""
        taken = torch.empty(len(rows), self.width)
        blocks = rows // BLOCK_ROWS
        for number in blocks.unique().tolist():
            here = blocks == number
            taken[here] = self.block(number)[rows[here] - number * BLOCK_ROWS]
        return taken
