"""Thresholds that move by plain descent, divided by one running RMS over all gradients of all processes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ondevice.training.processes import Processes

BUCKETS = 1024
_MIX = (0x9E3779B97F4A7C15 - (1 << 64), 0xBF58476D1CE4E5B9 - (1 << 64))  # odd numbers that scatter bits


class _Scaled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, rows: Tensor, descent: ScaledDescent) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(rows)
        ctx.descent = descent
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        (rows,) = ctx.saved_tensors
        return ctx.descent.divided(gradient, rows), None, None


class ScaledDescent:
    """Divides the gradients of looked-up rows, on their way to a table's fused SGD, by their running RMS.

    The rule of `JointlyScaledSGD`. A row's gradient is the sum over the processes that looked it up, which none of
    them knows; the norm of that sum is estimated from a count sketch S of 1024 buckets, which is linear:
    E‖S(Σ_r g_r)‖² = ‖Σ_r g_r‖², with a relative deviation of about √(2 / 1024) a step, averaged over some hundred
    steps (Charikar et al. 2002; Thorup and Zhang 2004). It costs a sum of 1024 rows over the processes, whatever
    the table's size, and does not depend on how many processes there are.

    Args:
        count: values of the table, over which the square is averaged.
        processes: that share a batch.
        decay: of the running mean of squares, in [0, 1).
    """

    def __init__(self, count: int, processes: Processes, decay: float = 0.99) -> None:
        self.count, self.processes, self.decay = count, processes, decay
        self.step, self.mean_square = 0, 0.0

    def __call__(self, values: Tensor, rows: Tensor) -> Tensor:
        """``values`` (U, C) of ``rows`` (U,), unchanged; their gradient will be divided."""
        result: Tensor = _Scaled.apply(values, rows, self)
        return result

    def divided(self, gradient: Tensor, rows: Tensor) -> Tensor:
        """``gradient`` over the root of the corrected mean square, this step's included."""
        self.step += 1
        square = self.square(gradient, rows) / self.count
        self.mean_square += (1 - self.decay) * (square - self.mean_square)
        corrected = self.mean_square / (1 - self.decay**self.step)
        return gradient / max(corrected**0.5, 1e-30)

    def square(self, gradient: Tensor, rows: Tensor) -> float:
        """Estimate of the squared norm of the gradient averaged over the processes."""
        mixed = (rows + self.step * 0x632BE59B) * _MIX[0]
        mixed = (mixed ^ (mixed >> 29)) * _MIX[1]
        sign = ((mixed >> 20) & 1).to(gradient.dtype) * 2 - 1
        sketch = gradient.new_zeros(BUCKETS, gradient.shape[1])
        sketch.index_add_(0, (mixed >> 40) & (BUCKETS - 1), gradient * sign[:, None])
        return float(self.processes.total(sketch).div_(self.processes.size).double().square().sum())

    def state_dict(self) -> dict[str, float]:
        """What a resume needs."""
        return {"step": self.step, "mean_square": self.mean_square}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Go on from `state_dict`."""
        self.step, self.mean_square = int(state["step"]), state["mean_square"]
