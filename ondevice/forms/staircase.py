"""The staircase: rows by falling size, each column of cells ending where rows no longer have it.

Modules here read program rows (`ondevice.bundle.rows.RowOrder`), not training ids.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ondevice.forms.blocks import Blocks
from ondevice.forms.packed import PackedTable, dequantized


class Staircase(PackedTable):
    """What both staircases share: which cells a row has, and how they become embeddings.

    Cells are those of one table: all columns of cells, one after the other, each followed by a cell of zeros.
    """

    heights: Tensor
    starts: Tensor
    step: float = 1.0
    """Of integer values that have one scale for all dimensions."""
    levels: int = 1
    """Residual levels: how many cells each dimension is the sum of."""
    sums: Tensor | None
    """What adds up the levels, (D, levels · D): a product, since XNNPACK takes no parts of batches of any size."""

    def __init__(self, values: Tensor, blocks: Blocks, heights: Sequence[int]) -> None:
        super().__init__(values, blocks.dim)
        self.width, self.columns = blocks.width, blocks.num_columns
        self.column_heights = list(heights)
        self.max_row = heights[0]
        if self.columns > 1:
            self.register_buffer("heights", torch.tensor(heights))
            self.register_buffer("starts", torch.tensor(np.cumsum([0, *(h + 1 for h in heights[:-1])])))
        self.register_buffer("sums", None)

    def describe(self) -> dict[str, list[int]]:
        dims = [self.width] * self.columns
        dims[-1] = self.dim - self.width * (self.columns - 1)
        return {"dims": dims, "rows": self.column_heights}

    def cells(self, rows: Tensor) -> Tensor:
        """Place of each cell of each row, (B, F) -> (B, F, K); (B, F) where there is one column."""
        if self.columns == 1:
            return rows.clamp(max=self.max_row)
        return torch.minimum(rows.unsqueeze(-1), self.heights) + self.starts

    def embeddings(self, read: Tensor, rows: Tensor) -> Tensor:
        """Embeddings (B, F, D) of the values of every cell, (B, F, K, width) in any shape that begins with (B, F)."""
        if self.columns == 1 and read.dim() == 3:
            looked_up = dequantized(read, self.step)
        else:
            values = self.levels * self.dim
            if self.columns * self.width != values:
                read = read.flatten(2)[..., :values]
            # The reshape follows the conversion, so that it belongs to the part all methods share.
            looked_up = dequantized(read, self.step).reshape(rows.shape[0], rows.shape[1], values)
            if self.sums is not None:
                looked_up = F.linear(looked_up, self.sums)
        return looked_up if self.scale is None else looked_up * self.scale


def staircase_columns(table: Tensor, width: int, heights: Sequence[int]) -> Tensor:
    """The columns of cells one after the other, each ended by zeros.

    Shape: table (num_rows, D) -> (Σ (height + 1), width).
    """
    padded = F.pad(table, (0, len(heights) * width - table.shape[1]))
    for k, height in enumerate(heights):
        assert not padded[height:, k * width : (k + 1) * width].any(), "a value below the staircase"
    parts = [
        F.pad(padded[:height, k * width : (k + 1) * width], (0, 0, 0, 1)) for k, height in enumerate(heights)
    ]
    return torch.cat(parts).contiguous()


class StaircaseEmbedding(Staircase):
    """Prefix sizes: columns of cells, each ``width`` dimensions of the first rows.

    e(row) = cat_k T[start_k + min(row, height_k)] · scale, the last row of every column being zero. Rows are in
    the order of falling size, so a row's number says which columns hold it.

    All columns are one table with one lookup of (B, F, K) cells. One lookup per column and a concatenation cost
    310 bytes per column in a program of one method and 460 in one of two; this costs 16, and a quarter less time.

    Args:
        table: values (num_rows, D) in program order, zero beyond each row's size.
        blocks: widths and size classes.
        heights: rows in each column.

    Shape: rows (B, F) int64 -> (B, F, D) float32.
    """

    def __init__(self, table: Tensor, blocks: Blocks, heights: Sequence[int]) -> None:
        super().__init__(staircase_columns(table, blocks.width, heights), blocks, heights)

    def dimensions(self) -> Tensor:
        place = torch.arange(self.columns).repeat_interleave(torch.tensor(self.column_heights) + 1)
        return place[:, None] * self.width + torch.arange(self.width)

    def forward(self, rows: Tensor) -> Tensor:
        return self.embeddings(F.embedding(self.cells(rows), self.values), rows)
