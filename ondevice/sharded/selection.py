"""The k-th smallest of values that no process holds all of."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
import torch.distributed as dist
from torch import Tensor

from ondevice.training.processes import Processes

DIGITS = (11, 11, 10)  # bits of a float32, decided from the highest on
Chunks = Callable[[], Iterable[Tensor]]


def _keys(values: Tensor) -> Tensor:
    """Integers in [0, 2³²) that are ordered as float32 values are."""
    bits = (values.float() + 0.0).view(torch.int32).long()  # −0 is 0
    return torch.where(bits < 0, ~bits, bits + (1 << 31)) & 0xFFFFFFFF


def _value(key: int) -> float:
    bits = key - (1 << 31) if key >= 1 << 31 else ~key
    return float(torch.tensor([bits], dtype=torch.int64).to(torch.int32).view(torch.float32))


def kth_smallest(chunks: Chunks, k: int, processes: Processes, device: torch.device) -> tuple[float, float]:
    """The k-th and the (k + 1)-th smallest of all processes' values, exactly.

    Radix selection: a pass over the own values and a sum of a histogram over the processes for each digit.

    Args:
        chunks: yields the own values, float32, in parts; called several times.
        k: from 1 to the number of values; past the last there is infinity.
        processes: that hold the values.
        device: where they are.
    """
    prefix, below, known = 0, 0, 32
    for digits in DIGITS:
        known -= digits
        counts = torch.zeros(1 << digits, dtype=torch.int64, device=device)
        for chunk in chunks():
            keys = _keys(chunk.reshape(-1))
            keys = keys[keys >> (known + digits) == prefix]
            counts += torch.bincount((keys >> known) & ((1 << digits) - 1), minlength=1 << digits)
        passed = below + processes.total(counts).cumsum(0)
        place = int((passed < k).sum())
        below = int(passed[place - 1]) if place else below
        upto = int(passed[place])
        prefix = (prefix << digits) | place
    value = _value(prefix)
    if upto > k:
        return value, value
    following = torch.full((1,), math.inf, device=device)
    for chunk in chunks():
        above = chunk[chunk > value]
        if above.numel():
            following = torch.minimum(following, above.min())
    if processes.size > 1:
        dist.all_reduce(following, dist.ReduceOp.MIN)
    return value, float(following)
