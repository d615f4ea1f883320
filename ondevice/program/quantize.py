"""int8 weights, with torchao's primitives and configurations."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import TypeVar, cast

import torch
from torch import Tensor, nn

from ondevice.errors import ConfigError, UserError, nearest
from ondevice.forms.packed import CLIPPINGS, PackedTable
from ondevice.models.layers import hidden_linears
from ondevice.program.pack import Packed
from ondevice.quiet import quiet

with quiet():
    from torchao.quantization import (
        Int8DynamicActivationIntxWeightConfig,
        IntxUnpackedToInt8Tensor,
        quantize_,
    )
    from torchao.quantization.granularity import PerAxis
    from torchao.quantization.quant_primitives import MappingType, choose_qparams_affine, quantize_affine
    from torchao.utils import unwrap_tensor_subclass

QUANTIZATIONS = ("int8", "none")
SMALLEST = 1e-30
"""Magnitudes of a row of a layer up to this are zeros."""
P = TypeVar("P", bound=Packed)


def quantize(packed: P, method: str = "int8") -> P:
    """A quantized copy: tables int8 with a scale per dimension, linears int8 with dynamic activations.

    Args:
        packed: what `pack.pack` or `next_item.pack` made.
        method: ``int8``, or ``none`` for a float32 program.

    Raises: UserError: when int8 was asked for and nothing changed.
    """
    if method not in QUANTIZATIONS:
        raise ConfigError(f"unknown quantization '{method}' {nearest(method, QUANTIZATIONS)}")
    result = copy.deepcopy(packed)
    if method == "none":
        return result
    num_tables = quantize_tables(result)
    has_linears = any(isinstance(module, nn.Linear) for module in result.modules())
    num_linears = quantize_linears(result) if has_linears else 0
    if num_tables == 0 or (has_linears and num_linears == 0):
        raise UserError(
            f"int8 quantization was asked for but changed {num_tables} tables and {num_linears} linears: "
            "the model is quantized already"
        )
    return result


def quantize_tables(packed: Packed) -> int:
    """Quantize every float table in place; the number of those."""
    changed = 0
    for table in packed.tables():
        if table.values.dtype == torch.int8:
            continue
        values, scale = quantized_values(table)
        table.quantize(values, scale)
        changed += 1
    packed.fold_first_order_scale()
    return changed


def quantized_values(table: PackedTable) -> tuple[Tensor, Tensor]:
    """int8 values and the scale of each dimension: symmetric, best of `CLIPPINGS` by squared error.

    Shape: values as stored, scale (D,) float32.
    """
    flat, dims = table.values.flatten(), table.dimensions().flatten()
    values = torch.zeros(flat.shape, dtype=torch.int8)
    scale = torch.ones(table.dim)
    for d in range(table.dim):
        at_dim = dims == d
        column = flat[at_dim]
        if column.numel() and bool(column.any()):
            values[at_dim], scale[d] = _quantized_column(column)
    return values.view(table.values.shape), scale


def _quantized_column(column: Tensor) -> tuple[Tensor, Tensor]:
    best: tuple[float, Tensor, Tensor] | None = None
    largest = column.abs().max()
    for clipping in CLIPPINGS:
        limits = torch.stack([-largest, largest]) * clipping
        block = (2,)
        scale, zero_point = choose_qparams_affine(
            limits, MappingType.SYMMETRIC, block, torch.int8, -127, 127, eps=torch.finfo(torch.float32).tiny
        )
        integers = quantize_affine(column, (column.numel(),), scale, zero_point, torch.int8, -127, 127)
        error = float((integers.float() * scale - column).square().sum())
        if best is None or error < best[0]:
            best = error, integers, scale.reshape(())
    assert best is not None
    return best[1], best[2]


def is_float_linear(module: nn.Module) -> bool:
    """Whether it is a linear layer that is not quantized: its weight a plain parameter."""
    return (
        isinstance(module, nn.Linear)
        and not hasattr(module, "parametrizations")
        and type(module.weight.data) is Tensor
    )


def quantize_linears(packed: Packed) -> int:
    """Quantize every linear layer in place to integer weights and dynamic int8 activations; the number of those.

    The weights have a scale for each output, and `BaseModel.linear_bits` bits; 8 where there is one output.
    """
    linears = [module for module in packed.modules() if is_float_linear(module)]
    if packed.model.linear_bits == 4:
        hidden = [module for module in hidden_linears(packed.model) if is_float_linear(module)]
        grids = [rounded(module.weight.data, 4) for module in hidden]
        _quantize_linears(packed, 4, hidden)
        for module, (values, scale) in zip(hidden, grids, strict=True):
            _keep_grid(module, values, scale)
    _quantize_linears(packed, 8, [module for module in linears if is_float_linear(module)])
    changed = sum(not is_float_linear(module) for module in linears)
    unwrap_tensor_subclass(packed)
    return changed


def _quantize_linears(packed: Packed, bits: int, linears: Sequence[nn.Module]) -> None:
    config = Int8DynamicActivationIntxWeightConfig(
        weight_dtype=getattr(torch, f"int{bits}"), weight_granularity=PerAxis(0)
    )
    quantize_(packed, config, filter_fn=lambda module, name: module in linears)


def _keep_grid(linear: nn.Module, values: Tensor, scale: Tensor) -> None:
    """Give a quantized layer values that are on a grid already, each row with its own scale.

    torchao works out a scale from a row's extremes, and takes that of another grid where they are none of its ends.

    Shape: values (out, in), scale (out, 1).
    """
    made = cast(IntxUnpackedToInt8Tensor, linear.weight.data)
    exact = IntxUnpackedToInt8Tensor.from_hp(
        values,
        made.block_size,
        made.target_dtype,
        activation_quantization=made.activation_quantization,
        intx_choose_qparams_algorithm=None,
        custom_scale=scale,
        custom_zero_point=torch.zeros_like(scale, dtype=torch.int8),
    )
    linear.weight = nn.Parameter(exact, requires_grad=False)


def rounded(weight: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Each row's values on a grid of 2^bits integers, with the scale that makes the least squared error.

    Scales tried are those that map the row's largest magnitude, times one of `CLIPPINGS`, to either end of the
    grid: rows that lie on such a grid are left as they are.

    Shape: (out, in) -> (out, in), and the scale of each row (out, 1).
    """
    low, high = -(1 << bits - 1), (1 << bits - 1) - 1
    best, least = torch.zeros_like(weight), torch.full((len(weight), 1), math.inf)
    chosen = torch.ones_like(least)
    largest = weight.abs().amax(1, keepdim=True)
    largest = torch.where(
        largest > SMALLEST, largest, 1.0
    )  # a row of zeros has any scale, but a normal number
    for scale in (largest * clipping / end for clipping in CLIPPINGS for end in (high, -low)):
        candidate = (weight / scale).round().clamp(low, high) * scale
        error = (candidate - weight).square().sum(1, keepdim=True)
        best = torch.where(error < least, candidate, best)
        chosen = torch.where(error < least, scale, chosen)
        least = torch.minimum(error, least)
    return best, chosen


def sqnr_db(reference: Tensor, other: Tensor) -> float:
    """Signal to quantization noise in decibels: 10·log10(Σ reference² / Σ (reference − other)²)."""
    noise = float((reference - other).double().square().sum())
    signal = float(reference.double().square().sum())
    return math.inf if noise == 0 else 10 * math.log10(signal / noise) if signal else -math.inf
