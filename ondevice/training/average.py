"""An exponential moving average of a model's weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ondevice.training.table_adam import TableAdam


class WeightAverage:
    """Keeps averaged copies of all parameters and floating buffers (batch norm's statistics).

    avg ← d·avg + (1 − d)·w, with d = min(decay, (1 + n) / (10 + n)) after n updates, so that the first
    steps do not linger. Polyak averaging; the ramp is the usual one.

    Args:
        module: whose weights are averaged.
        decay: d in [0, 1).
        every: steps between updates.
        optimizer: whose rows are averaged by it if it leaves rows alone; flush it before the average is used.
    """

    def __init__(
        self, module: nn.Module, decay: float, every: int, optimizer: TableAdam | None = None
    ) -> None:
        self.decay = decay
        self.every = every
        self.updates = 0
        self._live = self.tensors(module)
        self.average = [t.detach().clone() for t in self._live]
        by_rows: set[nn.Parameter] = set()
        self._rows = optimizer if optimizer is not None and optimizer.lazy else None
        if self._rows is not None:
            parameters = dict(zip(module.parameters(), self.average, strict=False))
            by_rows = self._rows.keep_averages(parameters)
        left = [True] * len(self._live)
        left[: len(list(module.parameters()))] = [p not in by_rows for p in module.parameters()]
        self._whole_live = [t for t, whole in zip(self._live, left, strict=True) if whole]
        self._whole_average = [t for t, whole in zip(self.average, left, strict=True) if whole]

    @staticmethod
    def tensors(module: nn.Module) -> list[Tensor]:
        """What is averaged, in a fixed order."""
        buffers = [b for b in module.buffers() if b.is_floating_point()]
        return [*(p.data for p in module.parameters()), *buffers]

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Update when ``step`` (from 1) is due."""
        if step % self.every == 0:
            decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
            torch._foreach_lerp_(self._whole_average, self._whole_live, 1 - decay)
            if self._rows is not None:
                self._rows.average(decay)
            self.updates += 1

    @torch.no_grad()
    def adopt(self) -> None:
        """The module takes over the averaged weights."""
        torch._foreach_copy_(self._live, self.average)

    @torch.no_grad()
    def restart(self) -> None:
        """Forget the past: the average is what the module carries now."""
        torch._foreach_copy_(self.average, self._live)
        self.updates = 0

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """The module carries the averaged weights within the block."""
        own = [t.clone() for t in self._live]
        torch._foreach_copy_(self._live, self.average)
        try:
            yield
        finally:
            torch._foreach_copy_(self._live, own)
