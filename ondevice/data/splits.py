"""Which rows are trained on, validated on and tested on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ondevice.errors import ConfigError, DataError, nearest

SPLITS = ("train", "valid", "test")
KINDS = ("random", "temporal")

SPLIT_STREAM, SAMPLE_STREAM = 1, 2


def row_hashes(num_rows: int, seed: int, stream: int) -> np.ndarray:
    """A pseudo-random uint64 per row: the SplitMix64 finalizer of the row number, the seed and the stream.

    Unlike a generator's permutation it is the same with every version of every library.
    """
    return hash_rows(np.arange(num_rows, dtype=np.uint64), seed, stream)


def hash_rows(rows: np.ndarray, seed: int, stream: int) -> np.ndarray:
    """What `row_hashes` gives to these row numbers (uint64)."""
    with np.errstate(over="ignore"):
        start = _mix(np.uint64(seed % 2**64) + np.uint64(0x9E3779B97F4A7C15) * np.uint64(stream))
        hashes: np.ndarray = _mix(start + (rows + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15))
    return hashes


def _mix(value: Any) -> Any:
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


def sample_rows(num_rows: int, max_rows: int | None, seed: int) -> np.ndarray | None:
    """Ascending rows of a reproducible subsample, or None to keep all."""
    if max_rows is None or max_rows >= num_rows:
        return None
    chosen = np.argsort(row_hashes(num_rows, seed, SAMPLE_STREAM), kind="stable")[:max_rows]
    return np.sort(chosen)


def split_rows(
    num_rows: int,
    kind: str,
    seed: int,
    fractions: Sequence[float],
    order: tuple[np.ndarray, ...] = (),
) -> dict[str, np.ndarray]:
    """Rows of each split: disjoint, together all rows.

    Args:
        kind: ``random`` (an order drawn from ``seed``) or ``temporal`` (by time; the oldest train).
        order: arrays that sort the rows in time, the most significant first.

    Raises: UserError: when rows have no time for ``temporal``, or a split would be empty.
    """
    if kind == "random":
        ranked = np.argsort(row_hashes(num_rows, seed, SPLIT_STREAM), kind="stable")
    elif order:
        ranked = np.lexsort(tuple(reversed(order)))
    else:
        raise DataError("split 'temporal' needs a time for every row; name the time column (split.time)")
    # Bounds come from sums of fractions, so that no row is lost to rounding.
    bounds = [0, *(round(num_rows * sum(fractions[:i])) for i in (1, 2)), num_rows]
    rows = {name: ranked[a:b] for name, a, b in zip(SPLITS, bounds, bounds[1:], strict=False)}
    for name, own in rows.items():
        if len(own) == 0:
            raise DataError(
                f"{num_rows} rows are too few for the fractions {list(fractions)}: {name} is empty"
            )
    return rows


def check_options(split: Any, seed: Any, fractions: Any, max_rows: Any) -> tuple[float, float, float]:
    """The fractions as a tuple. Raises UserError for an option out of its range, naming it."""
    if split not in KINDS:
        raise ConfigError(f"data.split: '{split}' is unknown {nearest(str(split), KINDS)}")
    if not _whole(seed) or seed < 0:
        raise ConfigError(f"data.seed: must be a whole number of at least 0, got {seed!r}")
    if max_rows is not None and (not _whole(max_rows) or max_rows < 1):
        raise ConfigError(f"data.max_rows: must be a whole number of at least 1 or null, got {max_rows!r}")
    good = isinstance(fractions, Sequence) and not isinstance(fractions, str) and len(fractions) == 3
    if not good or not all(
        isinstance(f, (int, float)) and not isinstance(f, bool) and f > 0 for f in fractions
    ):
        raise ConfigError(
            f"data.fractions: must be three numbers above 0 (train, valid, test), got {fractions!r}"
        )
    if abs(sum(fractions) - 1) > 1e-6:
        raise ConfigError(f"data.fractions: must sum to 1, got {fractions!r} (sum {sum(fractions):g})")
    train, valid, test = (float(f) for f in fractions)
    return train, valid, test


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
