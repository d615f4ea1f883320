"""The largest of many possible bundles that fits a budget, found by making few of them."""

from __future__ import annotations

from collections.abc import Callable

# Most bundles that are made for one budget; two or three mostly do.
MAX_EXPORTS = 12
CLOSE = 0.001
"""Share of a budget that is not worth another export."""


def largest_fitting(
    limit: int, targets: range, estimated: Callable[[int], int], measured: Callable[[int], int]
) -> int | None:
    """The largest target whose measured bytes are at most ``limit``, or one that leaves less than `CLOSE` of it.

    What a measurement differs from its estimate is taken to hold for targets nearby, so that a few measurements do.

    Args:
        limit: most bytes.
        targets: to choose from.
        estimated: bytes, quickly, all but rising with the target.
        measured: bytes, exactly, slowly.

    Returns: the target; None when no target fits.
    """
    low, high, offset = targets.start - 1, targets.stop, 0  # all up to low fit, high and beyond do not
    for _ in range(MAX_EXPORTS):
        guess, beyond = low, high
        while beyond - guess > 1:
            middle = (guess + beyond) // 2
            fits = estimated(middle) + offset <= limit
            guess, beyond = (middle, beyond) if fits else (guess, middle)
        if guess == low:
            if low >= targets.start or high == targets.start:
                break
            guess = targets.start  # the last that may fit, whatever the estimate says
        needed = measured(guess)
        offset = needed - estimated(guess)
        low, high = (guess, high) if needed <= limit else (low, guess)
        if 0 <= limit - needed < CLOSE * limit:
            break
    return low if low >= targets.start else None
