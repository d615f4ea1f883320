"""Time gaps of a history: how long it was since the item before, or until the next one, in powers of two of seconds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

GAPS = ("since", "until")
"""``since``: from the item before to this one. ``until``: from this one to the next; from the newest to the moment of
asking."""
NUM_BUCKETS = 32
"""None, and 1 … 31; the last begins at 2³⁰ − 1 seconds, 34 years."""


def buckets(seconds: np.ndarray) -> np.ndarray:
    """The bucket of each gap: the bits of 1 + its whole seconds, at most 31; 0 where it is NaN or below 0.

    Shape: (…) float64 -> (…) int64.
    """
    known = seconds >= 0
    whole = 1 + np.floor(np.where(known, np.minimum(seconds, 2.0**32), 0))
    _, bits = np.frexp(whole)
    return np.where(known, np.minimum(bits, NUM_BUCKETS - 1), 0).astype(np.int64)


def history_buckets(times: Sequence[float | None] | np.ndarray, gaps: str, now: float | None) -> np.ndarray:
    """The bucket of each item of one history.

    Args:
        times: when each was, in seconds, the newest last; None or NaN where that is not known.
        gaps: since or until.
        now: the moment of asking; None where it is not known.

    Shape: (n,) int64.
    """
    moments = np.array([np.nan if time is None else time for time in times], dtype=np.float64)
    if gaps == "since":
        return buckets(np.diff(moments, prepend=np.nan))
    return buckets(np.diff(moments, append=np.nan if now is None else now))
