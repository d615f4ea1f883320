"""The soft threshold of PEP, with the gradients of the paper written out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ondevice.forms.fused import fused
from ondevice.forms.rows import read_rows, sum_rows


@fused
def _pruned(weight: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    """V̂ and g(s)."""
    threshold = torch.sigmoid(s)
    return weight.abs().sub_(threshold).relu_().copysign_(weight), threshold


@fused
def _gradients_(gradient: Tensor, pruned: Tensor, threshold: Tensor) -> tuple[Tensor, Tensor]:
    """∂L/∂V and ∂L/∂s from ∂L/∂V̂, which is overwritten."""
    sign = torch.sign(pruned)  # where V̂ ≠ 0 it has the sign of V, elsewhere it is 0
    signed = gradient.mul_(sign).sum_to_size(threshold.shape)
    s_gradient = torch.ops.aten.sigmoid_backward(signed, threshold).neg_()
    return gradient.mul_(sign), s_gradient


class SoftThreshold(torch.autograd.Function):
    """V̂ = sign(V)·ReLU(|V| − g(s)), with g the sigmoid.

    Gradients: ∂L/∂V = ∂L/∂V̂ ⊙ 1{V̂≠0}; ∂L/∂s = −g′(s)·Σ ∂L/∂V̂ ⊙ sign(V) ⊙ 1{V̂≠0}, the sum running over
    the values that share an s. Source: PEP (ICLR 2021, arXiv 2101.07577), equations 4 and 6.

    Shape: weight (U, D), s broadcastable to it -> (U, D).
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor, s: Tensor) -> Tensor:  # type: ignore[override]
        pruned, threshold = _pruned(weight, s)
        ctx.save_for_backward(pruned, threshold)
        return pruned

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        return _gradients_(gradient.clone(), *ctx.saved_tensors)


def soft_threshold(weight: Tensor, s: Tensor) -> Tensor:
    """Prune ``weight`` by the learnt ``s``: see `SoftThreshold`."""
    result: Tensor = SoftThreshold.apply(weight, s)
    return result


class PrunedLookup(torch.autograd.Function):
    """`SoftThreshold` of a batch's rows, and their lookup, as one node of the graph."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, s: Tensor, inverse: Tensor) -> Tensor:  # type: ignore[override]
        pruned, threshold = _pruned(weight, s)
        ctx.save_for_backward(pruned, threshold, inverse)
        return read_rows(pruned, inverse)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:  # type: ignore[override]
        pruned, threshold, inverse = ctx.saved_tensors
        return *_gradients_(sum_rows(gradient, inverse, pruned.shape), pruned, threshold), None


def pruned_lookup(weight: Tensor, s: Tensor, inverse: Tensor) -> Tensor:
    """``soft_threshold(weight, s)[inverse]``.

    Shape: weight (U, D), s broadcastable to it, inverse (B, F) int64 -> (B, F, D).
    """
    result: Tensor = PrunedLookup.apply(weight, s, inverse)
    return result
