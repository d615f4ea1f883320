"""Positions: single values kept anywhere in a row, stored with their columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ondevice.errors import UserError
from ondevice.forms.base import FORMS, Form, RowLayout, SizeLimits
from ondevice.forms.packed import PackedTable, dequantized
from ondevice.forms.sizes import proportional_sizes
from ondevice.forms.table import EmbeddingTable, TableInfo

POSITIONS_BYTES, POSITION_BYTES = {"forward": 1_620, "rank": 380, "recommend": 1_320}, 16
"""Of a program: the lookup of positions by endpoint, and what each further value of the longest row adds."""


@FORMS.register("positions")
@dataclass(frozen=True)
class Mask(Form):
    """Which single values are kept, anywhere in a row (PEP as published, magnitude pruning).

    Shape: kept (N, D) bool.
    """

    keeps_positions: ClassVar[bool] = True
    layout_name: ClassVar[str] = "csr"

    kept: Tensor

    def __post_init__(self) -> None:
        if self.kept.dim() != 2 or self.kept.dtype != torch.bool:
            raise ValueError(f"a mask must be (N, D) bool, got {tuple(self.kept.shape)} {self.kept.dtype}")

    @property
    def dim(self) -> int:  # type: ignore[override]
        return int(self.kept.shape[1])

    def row_sizes(self) -> Tensor:
        return self.kept.sum(1)

    def mask(self) -> Tensor:
        return self.kept

    def without(self, rows: Tensor) -> Mask:
        return Mask(self.kept & ~rows[:, None])

    @classmethod
    def holding(cls, form: Form) -> Form | None:
        return Mask(form.mask()[:, : form.width])

    def within(self, larger: Form) -> Form:
        return Mask(self.kept & larger.mask())

    def facts(self) -> dict[str, Any]:
        return {"dim": self.dim}

    def tensors(self) -> dict[str, Tensor]:
        return {"kept": self.kept}

    @classmethod
    def of_tensors(cls, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> Mask:
        return Mask(tensors["kept"].bool())

    def leading(self, limits: SizeLimits) -> Form:
        return proportional_sizes(self.row_sizes(), self.dim, limits)

    def layout(self, info: TableInfo) -> RowLayout:
        return RowLayout(self.row_sizes().cpu().numpy())

    def pack(self, table: EmbeddingTable, ids: Tensor) -> PackedTable:
        values = table.table().cpu()[ids]
        return JaggedEmbedding(values, self.kept[ids, : values.shape[1]])

    def estimate(self, num_fields: int, endpoints: Sequence[str]) -> int:
        longest = int(self.row_sizes().max())
        lookups = sum(POSITIONS_BYTES[name] for name in endpoints) + POSITION_BYTES * longest
        return 2 * (self.num_kept() + longest) + lookups


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

    def describe(self) -> dict[str, list[int]]:
        return {"dims": [self.dim], "rows": [int(self.heights[0])]}

    def forward(self, rows: Tensor) -> Tensor:
        places = torch.minimum(rows.unsqueeze(-1), self.heights) + self.starts  # (B, F, L)
        values = F.embedding(places, self.values).flatten(2)
        columns = F.embedding(places, self.columns).flatten(2).long()
        zeros = torch.zeros(rows.shape[0], rows.shape[1], self.dim, dtype=values.dtype)
        dense = dequantized(zeros.scatter_add(2, columns, values))
        return dense if self.scale is None else dense * self.scale
