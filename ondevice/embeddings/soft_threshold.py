"""The soft threshold of PEP, with the gradients of the paper written out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ondevice.embeddings.rows import copy_rows_


def _pruned(weight: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    """V̂ and g(s)."""
    threshold = torch.sigmoid(s)
    # v - clamp(v, -t, t) is sign(v)·relu(|v| - t) in fewer passes over the memory
    return weight - torch.clamp(weight, -threshold, threshold), threshold


def _gradients(gradient: Tensor, pruned: Tensor, threshold: Tensor) -> tuple[Tensor, Tensor]:
    """∂L/∂V and ∂L/∂s from ∂L/∂V̂."""
    sign = torch.sign(pruned)  # where V̂ ≠ 0 it has the sign of V, elsewhere it is 0
    signed = sign * gradient
    s_gradient = torch.ops.aten.sigmoid_backward(signed.sum_to_size(threshold.shape), threshold).neg_()
    return signed.mul_(sign), s_gradient


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
        return _gradients(gradient, *ctx.saved_tensors)


def soft_threshold(weight: Tensor, s: Tensor) -> Tensor:
    """Prune ``weight`` by the learnt ``s``: see `SoftThreshold`."""
    result: Tensor = SoftThreshold.apply(weight, s)
    return result


class SoftThresholdRows(torch.autograd.Function):
    """`SoftThreshold` of some rows of a table that has a row of s for each of its own.

    One node of the graph in place of three: the rows of both tables are fetched, and their gradients put back.
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor, s: Tensor, rows: Tensor, sparse_s: bool) -> Tensor:  # type: ignore[override]
        pruned, threshold = _pruned(weight.index_select(0, rows), s.index_select(0, rows))
        ctx.save_for_backward(pruned, threshold, rows)
        ctx.shapes, ctx.sparse_s = (weight.shape, s.shape), sparse_s
        return pruned

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:  # type: ignore[override]
        pruned, threshold, rows = ctx.saved_tensors
        weight_rows, s_rows = _gradients(gradient, pruned, threshold)
        weight_gradient = copy_rows_(gradient.new_zeros(ctx.shapes[0]), rows, weight_rows)
        if ctx.sparse_s:
            s_gradient = torch.sparse_coo_tensor(
                rows[None], s_rows, ctx.shapes[1], is_coalesced=True, check_invariants=False
            )
        else:
            s_gradient = copy_rows_(gradient.new_zeros(ctx.shapes[1]), rows, s_rows)
        return weight_gradient, s_gradient, None, None


def soft_threshold_rows(weight: Tensor, s: Tensor, rows: Tensor, *, sparse_s: bool = False) -> Tensor:
    """``soft_threshold(weight[rows], s[rows])`` at the cost of the rows.

    Args:
        weight: the table.
        s: one row of thresholds per row, of width D or 1.
        rows: which rows, all different.
        sparse_s: give the gradient of s as a sparse tensor of these rows.

    Shape: weight (N, D), s (N, D) or (N, 1), rows (U,) int64 -> (U, D).
    """
    result: Tensor = SoftThresholdRows.apply(weight, s, rows, sparse_s)
    return result
