"""Which rows train: by a hash of the row's number, by the order of rows, or by time; nothing is shuffled or sorted."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from ondevice.data.preparation.arrays import write_arrays
from ondevice.data.preparation.chunk import Chunk, ChunkId
from ondevice.data.preparation.columns import number_keys
from ondevice.data.preparation.plan import Plan, open_chunk, starts_of
from ondevice.data.splits import GIVEN, SPLIT_STREAM, SPLITS, hash_rows
from ondevice.errors import DataError

DIVISION = "division.npy"  # the split of every row, where all are divided at once
FILE_ROWS = 1 << 40  # numbers that each file's rows may have: a file added at the end moves no other's rows


def count_chunk(plan: Plan, which: ChunkId, given: list[Any]) -> dict[str, Any]:
    """Write which split each row of a chunk is in, and how often each key occurs in training rows.

    Args:
        plan: the preparation.
        which: the chunk.
        given: what `division_of` says of it.

    Returns: {"rows"}: rows of each split.
    """
    chunk = open_chunk(plan, which)
    split = _splits(plan, chunk, which, given)
    train = split == 0
    counts = [
        np.bincount(chunk.codes(f)[train].ravel(), minlength=known + 1)[1:]
        for f, known in enumerate(chunk.num_keys)
    ]
    rows = np.bincount(split, minlength=len(SPLITS))[: len(SPLITS)].tolist()
    arrays = {"split": split, "counts": np.concatenate(counts).astype(np.int32)}
    missing = [
        0 if field.is_history else int((chunk.codes(f)[train].reshape(-1, field.slots) == 0).all(1).sum())
        for f, field in enumerate(plan.schema.fields)
    ]
    write_arrays(plan.counts_path(which), arrays, rows=rows, missing=missing)
    return {"rows": rows}


def _splits(plan: Plan, chunk: Chunk, which: ChunkId, given: list[Any]) -> np.ndarray:
    """(n,) uint8: 0 train, 1 valid, 2 test, 3 none."""
    if plan.is_ordered:
        division = np.load(plan.folder / DIVISION, mmap_mode="r", allow_pickle=False)
        return np.array(division[given[0] : given[0] + chunk.num_rows])
    return split_of_rows(plan, chunk, which, given)


def split_of_rows(plan: Plan, chunk: Chunk, which: ChunkId, given: list[Any]) -> np.ndarray:
    """(n,) uint8: 0 train, 1 valid, 2 test, each row by itself."""
    if plan.split == GIVEN:
        return np.full(chunk.num_rows, plan.source["given"][which.file], dtype=np.uint8)
    if plan.split == "random":
        numbers = chunk.lines().astype(np.uint64) + np.uint64(which.file * FILE_ROWS)
        if plan.group:
            numbers = _group_numbers(plan, chunk)
        hashes = hash_rows(numbers, plan.seed, SPLIT_STREAM)
        bounds = np.array([round(sum(plan.fractions[:i]) * 2.0**64) for i in (1, 2)], dtype=np.uint64)
        return np.searchsorted(bounds, hashes, side="right").astype(np.uint8)
    split = np.zeros(chunk.num_rows, dtype=np.uint8)
    if not plan.times:
        places = given[0] + np.arange(chunk.num_rows)
        for bound in given[1:]:
            split += places >= bound
        return split
    times = ascending_bits(chunk.order()[0])
    for bound, first_ties in given:
        ties = times == np.uint64(bound)
        split += (times > np.uint64(bound)) | (ties & (np.cumsum(ties) > first_ties))
    return split


def _group_numbers(plan: Plan, chunk: Chunk) -> np.ndarray:
    """(n,) uint64 that is the same for rows with equal keys of the group, in whatever chunk they are."""
    numbers = np.zeros(chunk.num_rows, dtype=np.uint64)
    for name in plan.group:
        f = plan.schema.names.index(name)
        texts = [b"", *(str(key).encode() for key in chunk.keys(f).to_pylist())]
        digests = b"".join(hashlib.blake2b(text, digest_size=8).digest() for text in texts)
        hashes = np.frombuffer(digests, dtype="<u8")[chunk.codes(f)]
        numbers = hash_rows(numbers ^ hashes, 0, SPLIT_STREAM)
    return numbers


def division_of(plan: Plan) -> list[list[Any]]:
    """For each chunk what `count_chunk` must be given.

    Raises: UserError: when the rows are too few for the fractions.
    """
    parsed = plan.parsed
    total = parsed.num_rows
    if plan.split == GIVEN:
        return [[] for _ in parsed.ids]
    bounds = [round(total * sum(plan.fractions[:i])) for i in (1, 2)]
    if not 0 < bounds[0] < bounds[1] < total:
        raise DataError(
            f"data set '{plan.schema.name}': {total} rows are too few for the fractions {list(plan.fractions)}"
        )
    if plan.split == "random":
        return [[] for _ in parsed.ids]
    if not plan.times:
        return [[first, *bounds] for first in starts_of(parsed.rows)[:-1].tolist()]
    given: list[list[Any]] = [[] for _ in parsed.ids]
    for rows_before in bounds:
        bound, ties_left = _nth(plan, rows_before)
        for c, which in enumerate(parsed.ids):
            ties = int((ascending_bits(open_chunk(plan, which).order()[0]) == np.uint64(bound)).sum())
            given[c].append([bound, min(ties, ties_left)])
            ties_left -= min(ties, ties_left)
    return given


def ascending_bits(values: np.ndarray) -> np.ndarray:
    """uint64 in the same order as these float64 values (without NaN), equal where they are."""
    return number_keys(values).view(np.uint64) ^ np.uint64(1 << 63)


def _nth(plan: Plan, rows_before: int) -> tuple[int, int]:
    """The time of the last of the first rows in the order of time, and how many of that time belong to them.

    A histogram of the 16 highest bits says which bin it is in, one of the next 16 bits which part of it, …
    """
    prefix, left = 0, rows_before
    for shift in (48, 32, 16, 0):
        histogram = np.zeros(1 << 16, dtype=np.int64)
        for which in plan.parsed.ids:
            bits = ascending_bits(open_chunk(plan, which).order()[0])
            if shift < 48:
                bits = bits[(bits >> np.uint64(shift + 16)) == np.uint64(prefix)]
            histogram += np.bincount(
                ((bits >> np.uint64(shift)) & np.uint64(0xFFFF)).astype(np.int64), minlength=1 << 16
            )
        upto = np.cumsum(histogram)
        place = int(np.searchsorted(upto, left))
        left -= int(upto[place - 1]) if place else 0
        prefix = (prefix << 16) | place
    return prefix, left
