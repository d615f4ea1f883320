"""The rows of a chunk as ids, written at their place in the store."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from ondevice.data.preparation.arrays import ArrayFile
from ondevice.data.preparation.chunk import ChunkId
from ondevice.data.preparation.plan import Plan, open_chunk
from ondevice.data.splits import SPLITS

ALL_IDS = "ids.npy"


def encode_chunk(
    plan: Plan, which: ChunkId, places: list[int], rows: list[int], offsets: list[int], first: int
) -> dict[str, Any]:
    """Write a chunk's ids and labels into the files of the splits, which `allocate` has made.

    Where all rows are divided at once, all ids go into one file, from which `write_splits` takes them.

    Args:
        plan: the preparation.
        which: the chunk.
        places: per field, where the numbers of this chunk's keys begin in the field's file.
        rows: per split, how many rows of it come before.
        offsets: first id of each field.
        first: number of the chunk's first row.
    """
    chunk = open_chunk(plan, which)
    slots = plan.schema.slots
    ids = np.empty((chunk.num_rows, slots.total), dtype=np.int32)
    for f in range(len(plan.schema.fields)):
        place, known = places[f], chunk.num_keys[f]
        numbers = np.zeros(known + 1, dtype=np.int32)
        numbers[1:] = np.fromfile(plan.field_path(f, "ids"), dtype=np.int32, count=known, offset=4 * place)
        width = 1 if plan.schema.fields[f].is_history else slots.widths[f]  # `write_splits` fills the others
        codes = chunk.codes(f).reshape(chunk.num_rows, width)
        ids[:, slots.starts[f] : slots.starts[f + 1]] = (numbers + np.int32(offsets[f]))[codes]
    if plan.is_ordered:
        _write_at(plan.folder / ALL_IDS, ids, first)
        return {}
    split = ArrayFile(plan.counts_path(which)).read("split")
    labels, weights = chunk.labels(), chunk.weights()
    for s, name in enumerate(SPLITS):
        chosen = split == s
        _write_at(plan.store / f"{name}.ids.npy", ids[chosen], rows[s])
        _write_at(plan.store / f"{name}.labels.npy", labels[chosen], rows[s])
        if weights is not None:
            _write_at(plan.store / f"{name}.weights.npy", weights[chosen], rows[s])
    return {}


def allocate(folder: Path, name: str, num_rows: int, num_slots: int, weighted: bool) -> None:
    """Make the files of a split at their full size, empty."""
    parts: list[tuple[str, tuple[int, ...], Any]] = [
        ("ids", (num_rows, num_slots), np.int32),
        ("labels", (num_rows,), np.uint8),
    ]
    if weighted:
        parts.append(("weights", (num_rows,), np.float32))
    for part, shape, dtype in parts:
        path = folder / f"{name}.{part}.npy"
        np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape).flush()


def _write_at(path: Path, rows: np.ndarray, place: int) -> None:
    mapped = np.load(path, mmap_mode="r", allow_pickle=False)
    offset = mapped.offset + place * mapped[:1].nbytes
    content = memoryview(rows.tobytes())
    handle = os.open(path, os.O_WRONLY)
    try:
        while len(content):
            written = os.pwrite(handle, content, offset)
            content, offset = content[written:], offset + written
    finally:
        os.close(handle)
