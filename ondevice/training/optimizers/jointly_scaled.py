"""Optimizers that PyTorch does not have."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import nn

from ondevice.forms.rows import FetchedRows
from ondevice.forms.table import EmbeddingTable


class JointlyScaledSGD(torch.optim.Optimizer):
    """Gradient descent whose step is divided by one running RMS over all gradients together.

    p ← p − lr · g / √(E[mean g²]), the mean running over every value of every parameter. Adam divides each
    value by its own RMS, so a row seen once an epoch moves as far as one seen at every step; here the ratios
    between rows survive, and what the data insists on most, by size and by number of visits, moves most.

    Args:
        params: parameters, scaled together.
        lr: step of a value whose gradient equals the RMS.
        decay: decay of the running mean of squares, in [0, 1).
        tables: of which rows may have been fetched; these are changed where they are, for `TableAdam.step`
            to write back, and other rows stay as they are.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float,
        decay: float = 0.99,
        tables: Sequence[EmbeddingTable] = (),
    ) -> None:
        super().__init__(params, {"lr": lr, "decay": decay})
        self.table_of = {p: table for table in tables for p in table.row_parameters()}

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update of every parameter that has a gradient, or whose rows have one."""
        for group in self.param_groups:
            fetched = {p: self._fetched(p) for p in group["params"]}
            gradients = {p: p.grad if f is None else f.values[p].grad for p, f in fetched.items()}
            given = {p: gradient for p, gradient in gradients.items() if gradient is not None}
            if not given:
                continue
            state = self.state[group["params"][0]]
            if not state:
                state.update(step=0, mean_square=0.0)
            count = sum(p.numel() for p in group["params"])
            square = sum(float(torch.linalg.vector_norm(g)) ** 2 for g in given.values()) / count
            state["step"] += 1
            state["mean_square"] += (1 - group["decay"]) * (square - state["mean_square"])
            corrected = state["mean_square"] / (1 - group["decay"] ** state["step"])
            rate = group["lr"] / max(corrected**0.5, 1e-30)
            for p, gradient in given.items():
                rows = fetched[p]
                (p if rows is None else rows.values[p].detach()).add_(gradient, alpha=-rate)

    def _fetched(self, p: nn.Parameter) -> FetchedRows | None:
        table = self.table_of.get(p)
        return table.fetched if table is not None else None
