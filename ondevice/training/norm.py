"""Batch normalization over the batch of all processes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ondevice.training.processes import Processes


class _Normalize(torch.autograd.Function):
    """x̂ = (x − μ) / √(σ² + ε) with μ and σ² over the rows of every process, and its gradient.

    ∂L/∂x = (w / √(σ² + ε)) · (g − Σg / n − x̂ · Σ(g x̂) / n), the sums over the rows of every process.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, mean: Tensor, scale: Tensor, count: Tensor, processes: Processes
    ) -> Tensor:  # type: ignore[override]
        normed = (x - mean) * scale
        ctx.save_for_backward(normed, scale, count)
        ctx.processes = processes
        return normed

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:  # type: ignore[override]
        normed, scale, count = ctx.saved_tensors
        sums = torch.stack([gradient.double().sum(0), (gradient * normed).double().sum(0)])
        means = (ctx.processes.total(sums) / count).to(gradient.dtype)
        return scale * (gradient - means[0] - normed * means[1]), None, None, None, None


class SyncedBatchNorm(nn.BatchNorm1d):
    """`torch.nn.BatchNorm1d` whose statistics are those of the whole batch, however it is shared.

    PyTorch's own SyncBatchNorm needs a GPU; this one does not, and takes shares of any size, even none.

    Args:
        norm: the layer it stands for; parameters and buffers are shared with it.
        processes: that share a batch.

    Shape: (B, C) -> (B, C).
    """

    def __init__(self, norm: nn.BatchNorm1d, processes: Processes) -> None:
        super().__init__(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        self._parameters, self._buffers = norm._parameters, norm._buffers
        self.processes = processes
        self.train(norm.training)

    def forward(self, inputs: Tensor) -> Tensor:
        if not self.training:
            return super().forward(inputs)
        with torch.no_grad():
            wide = inputs.double()
            count = wide.new_full((1, self.num_features), len(wide))
            sums = self.processes.total(torch.cat([wide.sum(0)[None], wide.square().sum(0)[None], count]))
            count = sums[2, 0]
            mean = sums[0] / count
            variance = (sums[1] / count - mean.square()).clamp(min=0)
            self._update(mean, variance * count / (count - 1))
            scale = torch.rsqrt(variance + self.eps).to(inputs.dtype)
        normed: Tensor = _Normalize.apply(inputs, mean.to(inputs.dtype), scale, count, self.processes)
        return normed * self.weight + self.bias if self.affine else normed

    def _update(self, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked += 1
        rate = self.momentum if self.momentum is not None else 1 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), rate)
        self.running_var.lerp_(variance.to(self.running_var.dtype), rate)


def synced(module: nn.Module, processes: Processes) -> None:
    """Let every batch norm within a module see the batch of all processes."""
    if processes.size == 1:
        return
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm1d) and not isinstance(child, SyncedBatchNorm):
            setattr(module, name, SyncedBatchNorm(child, processes))
        else:
            synced(child, processes)
