"""What histories hold, once every row is encoded: the one step that sorts all rows, by user and time, in memory."""

from __future__ import annotations

from typing import Any

import numpy as np

from ondevice.data.large.arrays import ArrayFile
from ondevice.data.large.plan import Plan, open_chunk, starts_of
from ondevice.data.sequences import Histories, Timeline, write_sequences
from ondevice.data.slots import BLOCK_ROWS
from ondevice.data.splits import SPLITS
from ondevice.errors import ConfigError

ROW_BYTES = 130  # of memory for each row


def write_histories(plan: Plan, rows: np.ndarray, unknown: int, memory: int) -> dict[int, Histories]:
    """Fill the slots of histories in the store, and write each user's rows as sequences beside it.

    Args:
        plan: the preparation, whose rows are all encoded.
        rows: by chunk and split (C, 3).
        unknown: id of the field that histories are of, for its unknown values.
        memory: bytes that may be taken.

    Returns: what each history holds, by the place of its field; rows are counted through all splits.

    Raises: ConfigError: where the rows take more memory.
    """
    schema = plan.schema
    if not schema.histories:
        return {}
    total = int(rows.sum())
    if total * ROW_BYTES > memory:
        raise ConfigError(
            f"data.memory: got {memory / 1e9:.2g}GB, but the histories of {total:,} rows are sorted in "
            f"{total * ROW_BYTES / 1e9:.2g}GB; allow that, or leave the history out"
        )
    source = schema.names.index(str(schema.histories[0].of))
    bounds = starts_of(rows.sum(axis=0))
    stored = [np.load(plan.store / f"{name}.ids.npy", mmap_mode="r+", allow_pickle=False) for name in SPLITS]
    items = np.concatenate([ids[:, schema.slots.starts[source]] for ids in stored])
    users, order, labels, division = _read(plan, rows, bounds)
    timeline = Timeline(users, order)
    histories = write_sequences(plan.store, schema, timeline, items, labels, division, unknown, None)
    for f, history in histories.items():
        columns = slice(schema.slots.starts[f], schema.slots.starts[f + 1])
        for ids, first in zip(stored, bounds.tolist(), strict=False):
            for start in range(0, len(ids), BLOCK_ROWS):
                block = ids[start : start + BLOCK_ROWS]
                block[:, columns] = history.ids(first + start + np.arange(len(block)))
            ids.flush()
    return histories


def _read(plan: Plan, rows: np.ndarray, bounds: np.ndarray) -> tuple[np.ndarray, Any, np.ndarray, np.ndarray]:
    """Of every row, in the order of the store: its user, what sorts it in time, its label and its split."""
    total = int(rows.sum())
    hashes, times = np.empty(total, dtype=np.uint64), np.empty(total, dtype=np.float64)
    numbers = np.empty(total, dtype=np.int64)
    labels, division = np.empty(total, dtype=np.uint8), np.empty(total, dtype=np.uint8)
    before = bounds[:-1].copy()  # rows of each split that were read, after those of the splits before it
    for which in plan.parsed.ids:
        chunk = open_chunk(plan, which)
        split = ArrayFile(plan.counts_path(which)).read("split")
        first = int(before.sum() - bounds[:-1].sum())
        places = np.empty(chunk.num_rows, dtype=np.int64)
        for s in range(len(SPLITS)):
            chosen = np.flatnonzero(split == s)
            places[chosen] = before[s] + np.arange(len(chosen))
            before[s] += len(chosen)
        hashes[places], times[places], labels[places] = chunk.users(), chunk.times(), chunk.labels()
        numbers[places], division[places] = first + np.arange(chunk.num_rows), split
    users = np.unique(hashes, return_inverse=True)[1].reshape(-1)
    users[hashes == 0] = -1
    return users, (times, numbers), labels, division
