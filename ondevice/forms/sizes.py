"""Prefix sizes: how many leading dimensions each row keeps, stored as a staircase."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ondevice.errors import BudgetTooSmall, UserError
from ondevice.forms.base import FORMS, Form, RowLayout, SizeLimits
from ondevice.forms.blocks import Blocks, choose_blocks, columns_bytes
from ondevice.forms.packed import PackedTable
from ondevice.forms.staircase import StaircaseEmbedding
from ondevice.forms.table import EmbeddingTable, TableInfo


@FORMS.register("sizes")
@dataclass(frozen=True)
class Sizes(Form):
    """How many leading dimensions each row keeps.

    Args:
        sizes: kept dimensions per row, each in [0, dim].
        dim: the table's full dimension D.

    Shape: sizes (N,) int64.
    """

    sizes: Tensor
    dim: int

    def __post_init__(self) -> None:
        if self.sizes.dim() != 1 or self.sizes.dtype != torch.int64:
            raise ValueError(f"sizes must be (N,) int64, got {tuple(self.sizes.shape)} {self.sizes.dtype}")
        most = self.most_values()
        if self.sizes.numel() and (int(self.sizes.min()) < 0 or int(self.sizes.max()) > most):
            raise ValueError(f"sizes must lie in [0, {most}], got up to {int(self.sizes.max())}")

    def most_values(self) -> int:
        """The largest size a row may have."""
        return self.dim

    @property
    def width(self) -> int:
        return max(1, int(self.sizes.max()))

    def narrowed(self) -> Form:
        return Sizes(self.sizes, self.width)

    def row_sizes(self) -> Tensor:
        return self.sizes

    def mask(self) -> Tensor:
        """The first ``sizes[n]`` values of each row, (N, D) bool."""
        return torch.arange(self.dim, device=self.sizes.device)[None, :] < self.sizes[:, None]

    def facts(self) -> dict[str, Any]:
        return {"dim": self.dim}

    def tensors(self) -> dict[str, Tensor]:
        return {"sizes": self.sizes}

    @classmethod
    def of_tensors(cls, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> Sizes:
        return Sizes(tensors["sizes"].long(), facts["dim"])

    def without(self, rows: Tensor) -> Sizes:
        return Sizes(self.sizes.masked_fill(rows, 0), self.dim)

    def with_sizes(self, sizes: Tensor) -> Sizes:
        return dataclasses.replace(self, sizes=sizes)

    def snapped(self, classes: list[int]) -> Sizes:
        """Each size moved to the nearest of ``classes`` (ties upward), so that every class is one block.

        A row that kept something keeps at least the smallest non-zero class.
        """
        allowed = torch.tensor(sorted({0, *classes}), dtype=torch.int64)
        if int(allowed[-1]) > self.dim:
            raise UserError(f"size classes {classes}: the largest is above the table's dimension {self.dim}")
        distance = (self.sizes[:, None] - allowed[None, :]).abs() * 2 - (
            allowed[None, :] > self.sizes[:, None]
        ).long()
        nearest = allowed[distance.argmin(1)]
        smallest = int(allowed[1]) if allowed.numel() > 1 else 0
        return Sizes(torch.where(self.sizes > 0, nearest.clamp(min=smallest), 0), self.dim)

    def within(self, larger: Form) -> Form:
        """Row by row the smaller of two sizes."""
        return Sizes(torch.minimum(self.sizes, larger.row_sizes()), self.dim)

    def leading(self, limits: SizeLimits) -> Form:
        return proportional_sizes(self.sizes, self.dim, limits)

    def blocks(self, num_fields: int) -> Blocks:
        """The cut of the dimensions into columns of cells that takes the fewest bytes."""
        return choose_blocks(self.sizes.numpy(), num_fields)

    def layout(self, info: TableInfo) -> RowLayout:
        return RowLayout(self.blocks(info.num_fields).classes(self.sizes.numpy()))

    def pack(self, table: EmbeddingTable, ids: Tensor) -> PackedTable:
        blocks = self.blocks(table.info.num_fields)
        values = table.table().cpu()[ids, : blocks.dim]
        return StaircaseEmbedding(values, blocks, blocks.heights(self.sizes.numpy()))

    def padding(self, num_fields: int) -> int:
        return self.blocks(num_fields).padding(self.sizes.numpy())

    def estimate(self, num_fields: int, endpoints: Sequence[str]) -> int:
        blocks = self.blocks(num_fields)
        return blocks.num_values(self.sizes.numpy()) + columns_bytes(blocks, endpoints)


def full_sizes(table: EmbeddingTable) -> Sizes:
    """The form of a table of which everything is kept."""
    return Sizes(torch.full((table.num_embeddings,), table.embedding_dim), table.embedding_dim)


def proportional_sizes(counts: Tensor, dim: int, limits: SizeLimits) -> Sizes:
    """Sizes in proportion to the values that each row keeps, in steps: the most that leave no less than no room.

    Counts above the largest size are cut, and all are scaled by a common factor so that the budget is used; what the
    steps between sizes leave of it goes to the rows that the next larger factor would promote.

    Shape: counts (N,) int64.

    Raises: UserError: when the target leaves nothing for the embeddings.
    """
    step, room = limits.size_step, limits.room
    limit = min(limits.max_size or dim, dim)
    classes = sorted({*range(step, limit + 1, step), limit})

    def at(scale: float) -> Sizes:
        scaled = (counts * scale).round().long().clamp(max=limit)
        sizes = Sizes(torch.where(counts > 0, scaled.clamp(min=1), 0), dim)
        return sizes.snapped(classes) if step > 1 else sizes

    row = classes[0] + limits.per_row
    if room(at(0.0)) < 0:  # the smallest size for every row is too much: the rows of the smallest counts go
        rows = max(0, limits.target - limits.beside) // row
        largest = torch.argsort(counts, descending=True, stable=True)[:rows]
        counts = torch.zeros_like(counts).index_copy(0, largest, counts[largest])
    if int(counts.sum()) == 0:
        raise BudgetTooSmall(
            f"budget of {limits.target} values: nothing is left for the embeddings; allow more: the smallest is "
            f"{limits.beside + row}, {row} values for a first row beside {limits.beside} first-order weights that were "
            "found"
        )
    low, high = 0.0, float(limit)
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if room(at(middle)) >= 0 else (low, middle)
    fitting = at(low)
    steps = at(high).sizes - fitting.sizes
    candidates = (steps > 0).nonzero().squeeze(1)
    candidates = candidates[torch.argsort(counts[candidates], descending=True, stable=True)]
    promoted = candidates[steps[candidates].cumsum(0) <= room(fitting)]
    return Sizes(fitting.sizes.index_add(0, promoted, steps[promoted]), dim)
