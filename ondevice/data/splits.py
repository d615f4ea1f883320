"""Which rows are trained on, validated on and tested on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ondevice.data.field import is_number, is_whole
from ondevice.errors import ConfigError, DataError, nearest

SPLITS = ("train", "valid", "test")
KINDS = ("random", "temporal", "leave_last_out")
TIMED = ("temporal", "leave_last_out")  # those that need times
GIVEN = "files"  # the source says which rows are in which split

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
    *,
    groups: Sequence[np.ndarray] = (),
    users: np.ndarray | None = None,
    division: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Rows of each split: disjoint, together all rows.

    Args:
        kind: ``random`` (an order drawn from ``seed``), ``temporal`` (by time; the oldest train),
            ``leave_last_out`` (a user's last row tests, the one before it validates; of equal times the later row
            is the later one; users with fewer than three rows only train) or ``files`` (as ``division`` says).
        order: arrays that sort the rows in time, the most significant first.
        groups: codes (n,); rows that are equal in all of them stay together in a random split.
        users: codes (n,) of whose rows ``leave_last_out`` divides.
        division: (n,) 0 train, 1 valid, 2 test.

    Raises: UserError: when rows lack what the kind needs, or a split would be empty.
    """
    if kind in TIMED and not order:
        raise DataError(f"split '{kind}' needs a time for every row; name the time column (split.time)")
    if groups and kind != "random":
        raise DataError(
            f"split.group keeps rows together in a random split; remove it, or write no {kind} one"
        )
    if kind == "leave_last_out":
        division = _last_out(order[0], users)
    if division is not None:
        rows = {name: np.flatnonzero(division == number) for number, name in enumerate(SPLITS)}
    else:
        if kind == "temporal":
            ranked = np.lexsort(tuple(reversed(order)))
        else:
            first = _first_of_group(groups) if groups else np.arange(num_rows)
            ranked = np.argsort(hash_rows(first.astype(np.uint64), seed, SPLIT_STREAM), kind="stable")
        # Bounds come from sums of fractions, so that no row is lost to rounding.
        bounds = [0, *(round(num_rows * sum(fractions[:i])) for i in (1, 2)), num_rows]
        if groups:
            bounds = [_group_end(first[ranked], bound) for bound in bounds]
        rows = {name: ranked[a:b] for name, a, b in zip(SPLITS, bounds, bounds[1:], strict=False)}
    for name, chosen in rows.items():
        if len(chosen) == 0:
            reason = f"rows are too few for the fractions {list(fractions)}" if division is None else "rows"
            raise DataError(f"{num_rows} {reason}: {name} is empty")
    return rows


def _first_of_group(groups: Sequence[np.ndarray]) -> np.ndarray:
    """For each row the first row that is equal to it in all codes."""
    _, first, places = np.unique(same_in_all(groups), return_index=True, return_inverse=True)
    return np.asarray(first[places])


def same_in_all(columns: Sequence[np.ndarray]) -> np.ndarray:
    """(n,) numbers that are equal where rows are equal in all columns of numbers from 0."""
    combined = np.zeros(len(columns[0]), dtype=np.int64)
    for codes in columns:
        _, combined = np.unique(combined * (int(codes.max()) + 1) + codes, return_inverse=True)
    return combined


def _group_end(ranked: np.ndarray, bound: int) -> int:
    """The end of the group that a bound would cut; ``ranked`` has the rows of a group beside one another."""
    while 0 < bound < len(ranked) and ranked[bound] == ranked[bound - 1]:
        bound += 1
    return bound


def _last_out(times: np.ndarray, users: np.ndarray | None) -> np.ndarray:
    if users is None:
        raise DataError("split 'leave_last_out' needs the field of the user; add split: {user: FIELD}")
    ranked = np.lexsort((times, users))  # stable
    owners = users[ranked]
    ends = np.flatnonzero(np.append(owners[1:] != owners[:-1], True))
    lengths = np.diff(np.append(-1, ends))
    ends = ends[lengths >= 3]
    division = np.zeros(len(users), dtype=np.uint8)
    division[ranked[ends]], division[ranked[ends - 1]] = 2, 1
    return division


def check_options(split: Any, seed: Any, fractions: Any, max_rows: Any) -> tuple[float, float, float]:
    """The fractions as a tuple. Raises UserError for an option out of its range, naming it."""
    if split not in KINDS:
        raise ConfigError(f"data.split: '{split}' is unknown {nearest(str(split), KINDS)}")
    if not is_whole(seed) or seed < 0:
        raise ConfigError(f"data.seed: must be a whole number of at least 0, got {seed!r}")
    if max_rows is not None and (not is_whole(max_rows) or max_rows < 1):
        raise ConfigError(f"data.max_rows: must be a whole number of at least 1 or null, got {max_rows!r}")
    good = isinstance(fractions, Sequence) and not isinstance(fractions, str) and len(fractions) == 3
    if not good or not all(is_number(f) and f > 0 for f in fractions):
        raise ConfigError(
            f"data.fractions: must be three numbers above 0 (train, valid, test), got {fractions!r}"
        )
    if abs(sum(fractions) - 1) > 1e-6:
        raise ConfigError(f"data.fractions: must sum to 1, got {fractions!r} (sum {sum(fractions):g})")
    train, valid, test = (float(f) for f in fractions)
    return train, valid, test
