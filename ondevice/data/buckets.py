"""Buckets of a number: as many training rows in each, as far as equal numbers allow."""

from __future__ import annotations

import bisect
from collections.abc import Sequence

import numpy as np


def quantile_boundaries(values: np.ndarray, counts: np.ndarray, buckets: int) -> tuple[float, ...]:
    """The smallest number of every bucket but the first.

    With n training rows, boundary j is the number at place ⌊j·n / buckets⌋ of the sorted ones. Where there are no more
    distinct numbers than buckets, each has its own.

    Args:
        values: (V,) distinct numbers of the training rows, ascending.
        counts: (V,) rows that have each.
        buckets: how many are wanted; there are fewer where numbers repeat.
    """
    if len(values) <= buckets:
        return tuple(float(value) for value in values[1:])
    upto = np.cumsum(counts, dtype=np.int64)
    places = np.arange(1, buckets, dtype=np.int64) * int(upto[-1]) // buckets
    bounds = np.unique(np.searchsorted(upto, places, side="right"))
    return tuple(float(values[place]) for place in bounds if place > 0)


def bucket_of(number: float, boundaries: Sequence[float]) -> int:
    """How many boundaries are not above a number."""
    return bisect.bisect_right(boundaries, number)


def number_in(bucket: int, boundaries: Sequence[float]) -> int | float:
    """A number in a bucket: its smallest one, or one below all boundaries."""
    if not boundaries:
        return 0
    number = boundaries[bucket - 1] if bucket else float(np.nextafter(boundaries[0], -np.inf))
    if bucket == 0 and boundaries[0] - 1 < boundaries[0]:
        number = boundaries[0] - 1
    return int(number) if number.is_integer() else number
