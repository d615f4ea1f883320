"""The loss's own units for the thresholds of PEP: axes of each field's own, and the curvature of every value."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from ondevice.forms.rows import lookup, sum_rows
from ondevice.forms.soft_threshold import soft_threshold
from ondevice.forms.table import TableInfo

MEMORY = 0.995
"""Decay of the running mean of a value's squared gradients, at each lookup of its row."""


class LossUnits(nn.Module):
    """Values z (N, K) along K axes of each field, thresholded by what they are worth to the loss.

    Leaving z out costs about ½·ĥ·z², ĥ the Fisher diagonal: the mean of the squared gradients of the log loss for z
    over the row's lookups, times their number. So z is compared with g(s)·u/√ĥ, u one unit for all tables:
    ẑ = sign(z)·ReLU(|z| − g(s)·u/√ĥ), and an embedding is Σ_k ẑ_k·b_k with its field's axes b_k, the leading ones
    first. ĥ begins with that of the trained model and runs along with the search.

    Args:
        info: field offsets, counts and slots.
        num_axes: K.
        dim: of embeddings, D.
        prefix_dropout: share of the rows of a step that are read at some of their leading values alone, a number
            drawn from 1 to K, so that leading values learn to do without the others.
    """

    axes: Tensor
    curvature: Tensor
    unit: Tensor
    counts: Tensor
    owners: Tensor

    def __init__(self, info: TableInfo, num_axes: int, dim: int, prefix_dropout: float) -> None:
        super().__init__()
        self.info, self.prefix_dropout = info, prefix_dropout
        self.register_buffer("axes", torch.eye(num_axes, dim).repeat(info.num_fields, 1, 1))  # (F, K, D)
        self.register_buffer("curvature", torch.ones(info.num_embeddings, num_axes))
        self.register_buffer("unit", torch.ones(()))
        self.register_buffer("counts", info.counts.float(), persistent=False)
        self.register_buffer("owners", torch.tensor(info.slots.owners), persistent=False)

    @torch.no_grad()
    def begin(self, directions: Tensor, curvature: Tensor, lookups: Tensor) -> None:
        """Take over axes (F, D, K), and what `Axes` says of every row's curvature (N, K) and its lookups (N,)."""
        self.axes.copy_(directions.mT)
        self.curvature.copy_(curvature / lookups.clamp(min=1)[:, None])

    @torch.no_grad()
    def worth(self, rows: Tensor, weight: Tensor) -> Tensor:
        """√ĥ·|z|: the root of twice the loss that leaving a value out would cost, over the training split.

        Shape: rows (U,) int64, weight (U, K) -> (U, K).
        """
        return weight.abs() * (self.curvature[rows] * self.counts[rows, None]).sqrt()

    @torch.no_grad()
    def per_unit(self, rows: Tensor) -> Tensor:
        """√ĥ/u of rows (U,), a little above 0 where training has none, (U, K)."""
        return (self.curvature[rows] * self.counts[rows, None]).sqrt().clamp(min=1e-12) / self.unit

    @torch.no_grad()
    def table(self, pruned: Tensor) -> Tensor:
        """Embeddings (N, D) of all rows' values (N, K) in units."""
        values = pruned / self.per_unit(torch.arange(len(pruned), device=pruned.device))
        parts = values.split(self.info.field_offsets.diff().tolist())
        return torch.cat([part @ axes for part, axes in zip(parts, self.axes, strict=True)])

    def embeddings(self, rows: Tensor, inverse: Tensor, weight: Tensor, s: Tensor, training: bool) -> Tensor:
        """Embeddings (B, S, D) of a batch; arguments as of `PEP.of_rows`, s broadcastable to weight (U, K)."""
        per_unit = self.per_unit(rows)
        values = soft_threshold(weight * per_unit, s) / per_unit
        if training and self.prefix_dropout:
            values = values * self._prefixes(values)
        read = lookup(values, inverse)
        if training and read.requires_grad:
            read.register_hook(partial(self._note, rows, inverse))
        return torch.einsum("bsk,skd->bsd", read, self.axes[self.owners])

    def _prefixes(self, values: Tensor) -> Tensor:
        """Ones (U, K) but for the values that a step leaves out."""
        (num_rows, num_axes), device = values.shape, values.device
        lengths = torch.randint(1, num_axes + 1, (num_rows, 1), device=device)
        lengths.masked_fill_(torch.rand(num_rows, 1, device=device) >= self.prefix_dropout, num_axes)
        return (torch.arange(num_axes, device=device) < lengths).float()

    @torch.no_grad()
    def _note(self, rows: Tensor, inverse: Tensor, gradient: Tensor) -> None:
        """Take the squared gradients of a batch's mean loss for what each lookup read into the running means."""
        lookups = torch.bincount(inverse.flatten(), minlength=len(rows))[:, None]
        squares = sum_rows(
            (gradient * len(gradient)).square(), inverse, torch.Size([len(rows), gradient.shape[2]])
        )
        kept = MEMORY**lookups
        self.curvature[rows] = kept * self.curvature[rows] + (1 - kept) * squares / lookups
