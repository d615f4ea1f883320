"""Optimizers that PyTorch does not have."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from ondevice.embeddings.rows import copy_rows_


class JointlyScaledSGD(torch.optim.Optimizer):
    """Gradient descent whose step is divided by one running RMS over all gradients together.

    p ← p − lr · g / √(E[mean g²]), the mean running over every value of every parameter. Adam divides each
    value by its own RMS, so a row seen once an epoch moves as far as one seen at every step; here the ratios
    between rows survive, and what the data insists on most, by size and by number of visits, moves most.

    Args:
        params: parameters, scaled together.
        lr: step of a value whose gradient equals the RMS.
        decay: decay of the running mean of squares, in [0, 1).
    """

    def __init__(self, params: Iterable[nn.Parameter], lr: float, decay: float = 0.99) -> None:
        super().__init__(params, {"lr": lr, "decay": decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update of every parameter that has a gradient; of a sparse one, only its rows (all different)."""
        for group in self.param_groups:
            given = [p for p in group["params"] if p.grad is not None]
            if not given:
                continue
            state = self.state[group["params"][0]]
            if not state:
                state.update(step=0, mean_square=0.0)
            values = [_values(p.grad) for p in given]  # type: ignore[arg-type]
            count = sum(p.numel() for p in group["params"])
            square = sum(float(torch.linalg.vector_norm(v)) ** 2 for v in values) / count
            state["step"] += 1
            state["mean_square"] += (1 - group["decay"]) * (square - state["mean_square"])
            corrected = state["mean_square"] / (1 - group["decay"] ** state["step"])
            rate = group["lr"] / max(corrected**0.5, 1e-30)
            for p, value in zip(given, values, strict=True):
                gradient = p.grad
                if gradient is not None and gradient.is_sparse:
                    rows = gradient._indices()[0]
                    copy_rows_(p, rows, torch.add(p.index_select(0, rows), value, alpha=-rate))
                else:
                    p.add_(value, alpha=-rate)


def _values(gradient: Tensor) -> Tensor:
    return gradient._values() if gradient.is_sparse else gradient
