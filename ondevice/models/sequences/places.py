"""A place of a history as one number: an item, and above its 32 bits a time, or the bucket of a gap."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ondevice.data.gaps import NUM_BUCKETS

BITS = 32
ITEM = (1 << BITS) - 1


def items_of(places: Tensor) -> Tensor:
    """The items, 0 where there is none; of the same shape, int64."""
    return places & ITEM


def gaps_of(places: Tensor) -> Tensor:
    """The buckets of the gaps, 0 where there is none; of the same shape, int64."""
    return places >> BITS


def with_seconds(items: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """Items with whole seconds since the first of all, up to 68 years. Shape: both (n,) -> (n,) int64."""
    whole = np.floor(seconds - seconds.min()) if len(seconds) else seconds
    return items + (np.minimum(whole, 2.0 ** (BITS - 1) - 1).astype(np.int64) << BITS)


def with_gaps(windows: Tensor, gaps: str | None) -> Tensor:
    """Windows of items with the buckets of their gaps, from those of items with seconds.

    Where the seconds fall, as between the parts of a spliced window, there is no gap.

    Args:
        windows: items at the end, 0 before them.
        gaps: since or until; None where windows are items alone.

    Shape: (B, W) int64 -> (B, W) int64; ``until`` the last place has no gap.
    """
    if gaps is None:
        return windows
    seconds, there = windows >> BITS, windows != 0
    steps = seconds.diff(dim=1)
    known = there[:, :-1] & (steps >= 0)
    _, bits = torch.frexp((1 + steps.clamp(min=0)).double())
    buckets = torch.where(known, bits.long().clamp(max=NUM_BUCKETS - 1), 0)
    first, last = (1, 0) if gaps == "since" else (0, 1)
    buckets = torch.nn.functional.pad(buckets, (first, last))
    return items_of(windows) + (buckets * there << BITS)
