"""The runtimes that programs are made for."""

from __future__ import annotations

from ondevice.program.executorch import ExecuTorch
from ondevice.program.target import TARGETS, Target

__all__ = ["TARGETS", "Target", "shipped"]


def shipped() -> Target:
    """The target of bundles; others stand beside it for comparison (`ondevice.bench.peers.targets`)."""
    return ExecuTorch()
