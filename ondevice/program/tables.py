"""Tables as a program holds them: the kept values of each row, found by the row's number.

Modules here read program rows (`rows.RowOrder`), not training ids.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.ao.quantization.fx._decomposed  # registers quantized_decomposed's operators
import torch.nn.functional as F
from torch import Tensor, nn

from ondevice.errors import UserError
from ondevice.forms.blocks import Blocks
from ondevice.forms.codebook import joined

# Fractions of the largest value at which rounded values are clipped; the one with the least squared error is taken.
CLIPPINGS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.7)


def dequantized(values: Tensor, step: float = 1.0) -> Tensor:
    """Integers times a step, in the one form that XNNPACK takes as its own input; floats as they are."""
    if values.dtype == torch.float32:
        return values
    result: Tensor = torch.ops.quantized_decomposed.dequantize_per_tensor(
        values, step, 0, -128, 127, torch.int8
    )
    return result


class PackedTable(nn.Module):
    """Rows of values in some layout, read back as (B, F, D) float32.

    ``values`` holds what is stored, float32 until it is quantized; ``scale`` is then one factor per dimension, or None
    where there is one for all.
    """

    values: Tensor
    scale: Tensor | None

    def __init__(self, values: Tensor, dim: int) -> None:
        super().__init__()
        self.register_buffer("values", values)
        self.register_buffer("scale", None)
        self.dim = dim

    def dimensions(self) -> Tensor:
        """The dimension of each stored value, in the shape of ``values``."""
        raise NotImplementedError(f"{type(self).__name__} does not say which dimension a value belongs to")

    def quantize(self, values: Tensor, scale: Tensor) -> None:
        """Replace the values by integers and one scale per dimension."""
        self.values = values
        self.scale = scale

    def stored_bytes(self) -> int:
        """Bytes of everything that has one entry per stored value or row."""
        own = (buffer for name, buffer in self.named_buffers() if name not in ("scale", "sums"))
        return sum(buffer.nbytes for buffer in own)

    def num_values(self) -> int:
        """Number of stored values, zeros that pad included."""
        return self.values.numel()


class Staircase(PackedTable):
    """What both staircases share: which cells a row has, and how they become embeddings.

    Cells are those of one table: all columns of cells, one after the other, each followed by a cell of zeros.
    """

    heights: Tensor
    starts: Tensor
    step: float = 1.0
    """Of integer values that have one scale for all dimensions."""
    levels: int = 1
    """How often cells say each dimension."""
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

    def cells(self, rows: Tensor) -> Tensor:
        """Place of each cell of each row, (B, F) -> (B, F, K); (B, F) where there is one column."""
        if self.columns == 1:
            return rows.clamp(max=self.max_row)
        return torch.minimum(rows.unsqueeze(-1), self.heights) + self.starts

    def embeddings(self, found: Tensor, rows: Tensor) -> Tensor:
        """Embeddings (B, F, D) of the values of every cell, (B, F, K, width) in any shape that begins with (B, F)."""
        if self.columns == 1 and found.dim() == 3:
            looked_up = dequantized(found, self.step)
        else:
            values = self.levels * self.dim
            if self.columns * self.width != values:
                found = found.flatten(2)[..., :values]
            # The reshape follows the conversion, so that it belongs to the part all methods share.
            looked_up = dequantized(found, self.step).reshape(rows.shape[0], rows.shape[1], values)
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
        levels: how often rows say their dimensions.

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
        if levels > 1:
            self.sums = joined(torch.eye(blocks.dim), self.dim).t().contiguous()

    def dimensions(self) -> Tensor:
        return torch.zeros_like(self.values, dtype=torch.int64)

    def quantize(self, values: Tensor, scale: Tensor) -> None:
        self.values, self.step = values, float(scale[0])

    def forward(self, rows: Tensor) -> Tensor:
        codes = F.embedding(self.cells(rows), self.codes)  # (B, F, K, 1) uint8; that 1 ends with the reshape
        return self.embeddings(F.embedding(codes.int(), self.values), rows)


class JaggedEmbedding(PackedTable):
    """Positions anywhere (PEP as published): each value with its column, CSR without row pointers.

    Rows are in the order of falling number of values. The j-th values of all rows that have one are stored
    together (jagged diagonals), so that where a row's values are follows from its number: entry
    start_j + min(row, height_j). Two bytes per int8 value, none per row.

    Args:
        table: values (num_rows, D) in program order.
        kept: positions (num_rows, D) bool; rows hold a falling number of them.

    Shape: rows (B, F) int64 -> (B, F, D) float32.
    """

    columns: Tensor
    heights: Tensor
    starts: Tensor

    def __init__(self, table: Tensor, kept: Tensor) -> None:
        num_rows, dim = table.shape
        if dim > 256:
            raise UserError(f"layout csr stores columns in one byte: dimension {dim} is above 256")
        counts = kept.sum(1)
        assert bool((counts[1:] <= counts[:-1]).all()), "rows are not in the order of falling counts"
        most = max(1, int(counts.max())) if num_rows else 1
        order = torch.argsort((~kept).to(torch.uint8), dim=1, stable=True)[:, :most]  # kept columns first
        values, columns, heights = [], [], []
        for j in range(most):
            height = int((counts > j).sum())
            column = order[:height, j]
            values.append(F.pad(table[torch.arange(height), column], (0, 1)))
            columns.append(F.pad(column, (0, 1)))
            heights.append(height)
        super().__init__(torch.cat(values)[:, None].contiguous(), dim)
        self.register_buffer("columns", torch.cat(columns)[:, None].to(torch.uint8))
        self.register_buffer("heights", torch.tensor(heights))
        self.register_buffer("starts", torch.tensor(np.cumsum([0, *(h + 1 for h in heights[:-1])])))

    def dimensions(self) -> Tensor:
        return self.columns.long()

    def forward(self, rows: Tensor) -> Tensor:
        places = torch.minimum(rows.unsqueeze(-1), self.heights) + self.starts  # (B, F, L)
        values = F.embedding(places, self.values).flatten(2)
        columns = F.embedding(places, self.columns).flatten(2).long()
        zeros = torch.zeros(rows.shape[0], rows.shape[1], self.dim, dtype=values.dtype)
        dense = dequantized(zeros.scatter_add(2, columns, values))
        return dense if self.scale is None else dense * self.scale


class FirstOrderTable(PackedTable):
    """First-order weights of the rows [0, num_rows), and a zero for the others.

    Shape: rows (B, F) int64 -> (B, F) float32, before the scale.
    """

    def __init__(self, weights: Tensor) -> None:
        super().__init__(F.pad(weights, (0, 1))[:, None].contiguous(), 1)
        self.max_row = int(weights.numel())

    def dimensions(self) -> Tensor:
        return torch.zeros_like(self.values, dtype=torch.int64)

    def forward(self, rows: Tensor) -> Tensor:
        return dequantized(F.embedding(rows.clamp(max=self.max_row), self.values)).flatten(1)
