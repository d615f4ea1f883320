"""What a person sees while a training runs: lines, bars between them on a terminal, curves in TensorBoard."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tqdm import tqdm

OnEpoch = Callable[[str, int, dict[str, float]], None]


class Progress:
    """Bars and TensorBoard scalars of one run.

    Args:
        folder: run directory for TensorBoard events; None writes none.
        show: whether lines are printed, and bars where stderr is a terminal: in a file, a bar is a heap of lines.
        on_epoch: called with the phase, the epoch and its values whenever scalars are written.
    """

    def __init__(
        self, folder: Path | None = None, show: bool = True, on_epoch: OnEpoch | None = None
    ) -> None:
        self.show = show
        self.on_epoch = on_epoch
        self._writer: Any = None
        if folder is not None:
            try:
                from torch.utils.tensorboard import SummaryWriter

                self._writer = SummaryWriter(str(folder))
            except ImportError:
                self.say("TensorBoard is not installed: no event files are written (pip install tensorboard)")

    def say(self, text: str) -> None:
        """One line, above any bar."""
        if self.show:
            tqdm.write(text, file=sys.stderr)

    def bar(self, total: int, title: str) -> tqdm[Any]:
        """A bar over ``total`` rows, which only a terminal shows."""
        return tqdm(
            total=total,
            desc=title,
            unit="row",
            unit_scale=True,
            disable=not (self.show and sys.stderr.isatty()),
            file=sys.stderr,
            mininterval=0.5,
            leave=False,
            dynamic_ncols=True,
        )

    def scalars(self, phase: str, step: int, values: dict[str, float]) -> None:
        """Write ``values`` at ``step`` under ``phase/``."""
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(f"{phase}/{name}", value, step)
        if self.on_epoch is not None:
            self.on_epoch(phase, step, values)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
