"""An exponential moving average of a model's weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from ondevice.training.optimizers.table_adam import TableAdam


class WeightAverage:
    """Keeps averaged copies of all parameters and floating buffers (batch norm's statistics).

    avg ← d·avg + (1 − d)·w, with d = min(decay, (1 + n) / (10 + n)) after n updates, so that the first
    steps do not linger. Polyak averaging; the ramp is the usual one.

    Args:
        module: whose weights are averaged.
        decay: d in [0, 1).
        every: steps between updates.
        optimizers: of the module; those that leave rows alone average them, and must be flushed before the
            average is used.
    """

    def __init__(
        self,
        module: nn.Module,
        decay: float,
        every: int,
        optimizers: Sequence[torch.optim.Optimizer] = (),
    ) -> None:
        self.decay = decay
        self.every = every
        self.updates = 0
        self._live = self.tensors(module)
        self._lazy = [o for o in optimizers if isinstance(o, TableAdam) and o.lazy]
        kept = {p: average for optimizer in self._lazy for p, average in optimizer.averages.items()}
        parameters = list(module.parameters())
        by_optimizer = [kept.get(p) for p in parameters] + [None] * (len(self._live) - len(parameters))
        self.average = [
            t.detach().clone() if average is None else average
            for t, average in zip(self._live, by_optimizer, strict=True)
        ]
        separate = [place for place, average in enumerate(by_optimizer) if average is None]
        self._separate = (
            [self.average[place] for place in separate],
            [self._live[place] for place in separate],
        )

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
            torch._foreach_lerp_(*self._separate, 1 - decay)
            for optimizer in self._lazy:
                optimizer.average(decay)
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
        live = [t.clone() for t in self._live]
        torch._foreach_copy_(self._live, self.average)
        try:
            yield
        finally:
            torch._foreach_copy_(self._live, live)
