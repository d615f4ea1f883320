"""Chains of small operations on the rows of a batch: one kernel on a GPU, and plain PyTorch everywhere else."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from typing import Any, TypeVar

import torch

F = TypeVar("F", bound=Callable[..., Any])

LEAST_VALUES = 1 << 20
"""Values of the first argument from which on a kernel is worth the seconds that compiling it takes."""


def fused(function: F) -> F:
    """The same function, run as one kernel that ``torch.compile`` makes when its first argument is large and on a GPU.

    Compiling needs Triton, which PyTorch's CUDA builds bring, and happens at the first such call; the environment
    variable ``TORCHDYNAMO_DISABLE=1`` turns it off. Results are those of the plain function but for rounding.
    """
    kernels: list[Any] = []

    @functools.wraps(function)
    def call(*arguments: Any) -> Any:
        first = arguments[0]
        if first.device.type != "cuda" or first.numel() < LEAST_VALUES or not _has_triton():
            return function(*arguments)
        if not kernels:
            kernels.append(torch.compile(function, dynamic=True))
        return kernels[0](*arguments)

    return call  # type: ignore[return-value]


@functools.cache
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None
