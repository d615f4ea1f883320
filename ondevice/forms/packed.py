"""Tables as a program holds them: the kept values of each row, found by the row's number.

Modules here read program rows (`ondevice.bundle.rows.RowOrder`), not training ids.
"""

from __future__ import annotations

import importlib
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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
    takes_any_columns: ClassVar[bool] = True
    """Whether what a row's number reads is the same in whatever column it stands."""

    def __init__(self, values: Tensor, dim: int) -> None:
        super().__init__()
        importlib.import_module(
            "torch.ao.quantization.fx._decomposed"
        )  # registers quantized_decomposed's operators
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
        buffers = (buffer for name, buffer in self.named_buffers() if name not in ("scale", "sums"))
        return sum(buffer.nbytes for buffer in buffers)

    def describe(self) -> dict[str, list[int]]:
        """For the manifest: ``dims`` of the columns of cells, and the ``rows`` that have each."""
        raise NotImplementedError(f"{type(self).__name__} does not say which rows have which dimensions")

    def num_values(self) -> int:
        """Number of stored values, zeros that pad included."""
        return self.values.numel()


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
