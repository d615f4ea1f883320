"""Rows of codes as a program holds them: a byte for each cell, and one codebook."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ondevice.forms.blocks import Blocks
from ondevice.forms.codebook import REFINEMENT, joined
from ondevice.forms.packed import dequantized
from ondevice.forms.staircase import Staircase, staircase_columns

BY_LEVEL_FROM = 1_500
"""Bytes of the product that adds up levels, above which they are looked up one by one."""


def adds_by_level(levels: int, dim: int) -> bool:
    """Whether a program looks levels up one by one and adds them: the product that does it, 4 · levels · D² bytes, is
    then the larger part.
    """
    return levels > 1 and 4 * levels * dim**2 > BY_LEVEL_FROM


class CodedStaircase(Staircase):
    """A staircase whose cells are one byte each: an index into a codebook, whose entry 0 is zero.

    e(row) = cat_k B[C[start_k + min(row, height_k)]], and with two levels the second half of it, a quarter as large, is
    added to the first. ``values`` are the codebook; as integers they have one scale, which belongs to their conversion:
    a scale per dimension would be an operator more for entries that are much alike.

    Args:
        codes: codes (num_rows, K) uint8 in program order, zero beyond each row's size.
        codebook: values (256, width).
        blocks: widths and size classes, of ``levels`` · D values.
        heights: rows in each column.
        levels: residual levels of a row.

    Shape: rows (B, F) int64 -> (B, F, D) float32.
    """

    codes: Tensor

    def __init__(
        self,
        codes: Tensor,
        codebook: Tensor,
        blocks: Blocks,
        heights: Sequence[int],
        levels: int = 1,
    ) -> None:
        super().__init__(codebook.contiguous(), blocks, heights)
        self.register_buffer("codes", staircase_columns(codes, 1, heights))
        self.levels = levels
        self.dim = blocks.dim // levels
        self.by_level = adds_by_level(levels, self.dim)
        if levels > 1 and not self.by_level:
            self.sums = joined(torch.eye(blocks.dim), self.dim).t().contiguous()

    def dimensions(self) -> Tensor:
        return torch.zeros_like(self.values, dtype=torch.int64)

    def quantize(self, values: Tensor, scale: Tensor) -> None:
        self.values, self.step = values, float(scale[0])

    def forward(self, rows: Tensor) -> Tensor:
        codes = F.embedding(self.cells(rows), self.codes)  # (B, F, K, 1) uint8; that 1 ends with the reshape
        if not self.by_level:
            return self.embeddings(F.embedding(codes.int(), self.values), rows)
        first, *others = codes.int().split(self.dim // self.width, 2)
        total = self._level(first, rows, 1.0)
        for level, each in enumerate(others, 1):
            total = total + self._level(each, rows, REFINEMENT**level)
        return total

    def _level(self, codes: Tensor, rows: Tensor, factor: float) -> Tensor:
        """What one level adds (B, F, D)."""
        read = F.embedding(codes, self.values)
        shape = (rows.shape[0], rows.shape[1], self.dim)
        if read.dtype == torch.float32:
            return read.reshape(shape) * factor
        return dequantized(read, self.step * factor).reshape(shape)
