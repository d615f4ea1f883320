"""Exportable modules with the values of a recommender's tables and nothing else.

Modules here read program rows (`rows.RowOrder`), not training ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
import torch.ao.quantization.fx._decomposed  # registers quantized_decomposed's operators
import torch.nn.functional as F
from torch import Tensor, nn

from ondevice.embeddings import Form, Mask, RetrainedEmbedding, Sizes
from ondevice.embeddings.base import EmbeddingMethod
from ondevice.errors import UserError, nearest
from ondevice.models import BaseModel
from ondevice.program.blocks import Blocks, choose_blocks
from ondevice.program.rows import RowOrder, order_rows
from ondevice.recommender import Recommender

LAYOUTS = ("staircase", "csr")
# A second delegate, and what passes between the two, in a program of three methods (measured).
SPLIT_BYTES = 1500


def dequantized(values: Tensor) -> Tensor:
    """Integers as floats, in the one form that XNNPACK takes as its own input; floats as they are."""
    if values.dtype == torch.float32:
        return values
    result: Tensor = torch.ops.quantized_decomposed.dequantize_per_tensor(
        values, 1.0, 0, -128, 127, torch.int8
    )
    return result


class PackedTable(nn.Module):
    """Rows of values in some layout, read back as (B, F, D) float32.

    ``values`` holds what is stored, float32 until it is quantized; ``scale`` is then one factor per dimension.
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
        return sum(buffer.nbytes for buffer in self.buffers() if buffer is not self.scale)

    def num_values(self) -> int:
        """Number of stored values, zeros that pad included."""
        return self.values.numel()


class StaircaseEmbedding(PackedTable):
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

    heights: Tensor
    starts: Tensor

    def __init__(self, table: Tensor, blocks: Blocks, heights: Sequence[int]) -> None:
        width, columns = blocks.width, blocks.num_columns
        padded = F.pad(table, (0, columns * width - table.shape[1]))
        parts = [
            F.pad(padded[:height, k * width : (k + 1) * width], (0, 0, 0, 1))
            for k, height in enumerate(heights)
        ]
        for k, height in enumerate(heights):
            assert not padded[height:, k * width : (k + 1) * width].any(), "a value below the staircase"
        super().__init__(torch.cat(parts).contiguous(), blocks.dim)
        self.width, self.columns = width, columns
        self.column_heights = list(heights)
        self.max_row = heights[0]
        starts = np.cumsum([0, *(h + 1 for h in heights[:-1])])
        if columns > 1:
            self.register_buffer("heights", torch.tensor(heights))
            self.register_buffer("starts", torch.tensor(starts))
        place = np.repeat(np.arange(columns), [h + 1 for h in heights])
        self._dimensions = torch.from_numpy(place)[:, None] * width + torch.arange(width)

    def dimensions(self) -> Tensor:
        return self._dimensions

    def forward(self, rows: Tensor) -> Tensor:
        if self.columns == 1:
            looked_up = dequantized(F.embedding(rows.clamp(max=self.max_row), self.values))
        else:
            cells = torch.minimum(rows.unsqueeze(-1), self.heights) + self.starts  # (B, F, K)
            found = F.embedding(cells, self.values)  # (B, F, K, width)
            if self.columns * self.width != self.dim:
                found = found.flatten(2)[..., : self.dim]
            # The reshape follows the conversion, so that it belongs to the part all methods share.
            looked_up = dequantized(found).reshape(rows.shape[0], rows.shape[1], self.dim)
        return looked_up if self.scale is None else looked_up * self.scale


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


class PackedRecommender(nn.Module):
    """A recommender that reads program rows, and holds the kept values alone.

    Shape: rows (B, F) int64 -> logits (B,).
    """

    first_weight: Tensor
    bias: Tensor

    def __init__(
        self,
        table: PackedTable,
        first_order: FirstOrderTable | None,
        model: BaseModel,
        bias: Tensor,
        order: RowOrder,
        layout: str,
    ) -> None:
        super().__init__()
        self.table = table
        self.first_order = first_order
        self.model = model
        self.layout = layout
        self.register_buffer("bias", bias.detach().clone().reshape(1))
        # Sum, scale and bias of the first-order part are one product with these equal weights.
        self.register_buffer("first_weight", torch.ones(1, model.num_fields))
        self.order = order

    def tables(self) -> list[PackedTable]:
        """The embedding table, and the first-order one where there is one."""
        return [self.table] if self.first_order is None else [self.table, self.first_order]

    def forward(self, rows: Tensor) -> Tensor:
        logits: Tensor = self.model(self.table(rows))
        if self.first_order is None:
            return logits + self.bias
        return logits + F.linear(self.first_order(rows), self.first_weight, self.bias).squeeze(-1)


def form_of(table: EmbeddingMethod) -> Form:
    """What a table keeps; everything when it was never compacted."""
    if isinstance(table, RetrainedEmbedding):
        return table.compact()
    return Sizes(torch.full((table.num_embeddings,), table.embedding_dim), table.embedding_dim)


def pack(
    recommender: Recommender, layout: str = "staircase", keys: Sequence[str | None] | None = None
) -> PackedRecommender:
    """The packed recommender, equal to the eager one on the same rows.

    Args:
        recommender: a trained model in evaluation mode.
        layout: ``staircase`` for prefix sizes, ``csr`` for positions (sizes are positions, too).
        keys: canonical text of each training id's key (None for unknown ids), for the order of rows.

    Raises: UserError: when nothing is kept, or the layout cannot hold the form.
    """
    if layout not in LAYOUTS:
        raise UserError(f"unknown layout '{layout}' {nearest(layout, LAYOUTS)}")
    forms = [form_of(table) for table in recommender.tables()]
    if sum(form.num_kept() for form in forms) == 0:
        raise UserError("packing stored nothing: neither an embedding value nor a first-order weight is kept")
    if layout == "staircase" and isinstance(forms[0], Mask):
        raise UserError(
            "layout staircase holds leading dimensions, but this model keeps positions; "
            "export with --layout csr, or retrain with sizes"
        )
    info, sizes = recommender.info, forms[0].row_sizes().numpy()
    table = recommender.tables()[0].table().cpu()
    model = compacted_model(recommender.model, forms[0], info.field_offsets)
    packed: PackedTable
    if layout == "staircase":
        blocks = choose_blocks(sizes, info.num_fields)
        order = order_rows(info.field_offsets, forms, keys, blocks.classes(sizes))
        rows = torch.from_numpy(order.ids)
        packed = StaircaseEmbedding(table[rows, : blocks.dim], blocks, blocks.heights(sizes))
    else:
        order = order_rows(info.field_offsets, forms, keys)
        rows = torch.from_numpy(order.ids)
        packed = JaggedEmbedding(table[rows], forms[0].mask()[rows, : table.shape[1]])
    first_order = None
    if len(forms) > 1 and order.first_order_rows:
        weights = recommender.tables()[1].table().cpu()[rows, 0]
        first_order = FirstOrderTable(weights[: order.first_order_rows])
    bias = recommender.bias.detach().cpu()
    return PackedRecommender(packed, first_order, model, bias, order, layout).eval()


def compacted_model(model: BaseModel, form: Form, field_offsets: Tensor) -> BaseModel:
    """The model in evaluation form, batch norm folded, without input columns that only meet zeros.

    The columns are dropped where that saves bytes: picking the others costs an index of 8 bytes per column, and
    cuts the delegate in two.
    """
    width = model.embedding_dim
    kept = form.mask()[:, :width]
    bounds = field_offsets.tolist()
    dims = []
    for begin, end in pairwise(bounds):
        used = kept[begin:end].any(0).nonzero()
        dims.append(int(used[-1]) + 1 if used.numel() else 0)
    full = model.compacted([width] * model.num_fields)
    narrow = model.compacted(dims)
    saved = _parameter_bytes(full) - _parameter_bytes(narrow)
    return narrow if saved > 8 * sum(dims) + SPLIT_BYTES else full


def _parameter_bytes(model: BaseModel) -> int:
    """Bytes at 8 bits a weight."""
    return sum(p.numel() for p in model.parameters())
