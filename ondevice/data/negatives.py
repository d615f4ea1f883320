"""Sampled negatives for data in which every row is an interaction that happened."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ondevice.data.schema import Schema
from ondevice.data.sources import say
from ondevice.errors import DataError

ROUNDS = 20


@dataclass(frozen=True)
class Pairs:
    """Rows to encode: context-side values of one source row with item-side values of another."""

    context_rows: np.ndarray
    item_rows: np.ndarray
    labels: np.ndarray
    weights: np.ndarray | None = None


def sample_negatives(
    schema: Schema, items: np.ndarray, contexts: np.ndarray, rows: dict[str, np.ndarray], seed: int
) -> dict[str, Pairs]:
    """Each split's rows, every positive followed by its sampled negatives.

    A negative has the context-side values of its positive and the item-side values of another item: one that
    the training split holds, drawn uniformly or by its number of training rows. Never drawn is an item that
    the same ``label.context_key`` value has as a positive in any split, so the test split's positives are
    known to the sampler (only as pairs not to draw). A context that has every item as a positive gets none.

    Args:
        schema: its label says how many negatives a positive has, and how they are drawn.
        items: (n,) number of each row's item, from 0.
        contexts: (n,) number of what `Label.context_key` has there.
        rows: of each split.
        seed: of the draws.

    Raises: DataError: when not one negative can be drawn.
    """
    label = schema.label
    num_items = int(items.max()) + 1
    every = np.concatenate(list(rows.values()))
    positives = np.unique(contexts[every] * num_items + items[every])
    train_items, first_rows, occurrences = np.unique(
        items[rows["train"]], return_index=True, return_counts=True
    )
    weights = occurrences if label.sampling == "popularity" else np.ones_like(occurrences)
    ends = np.cumsum(weights)
    row_of_item = rows["train"][first_rows]
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, 3])))
    pairs, missing = {}, 0
    for name, split_rows in rows.items():
        owners = np.repeat(contexts[split_rows], label.negatives)
        drawn = np.full(len(owners), -1, dtype=np.int64)  # position in train_items
        open_slots = np.arange(len(owners))
        for _ in range(ROUNDS):
            draw = np.searchsorted(ends, generator.integers(0, ends[-1], size=len(open_slots)), side="right")
            taken = _contains(positives, owners[open_slots] * num_items + train_items[draw])
            drawn[open_slots[~taken]] = draw[~taken]
            open_slots = open_slots[taken]
            if len(open_slots) == 0:
                break
        for slot in open_slots.tolist():  # contexts that have nearly every item: draw among what is left
            free = np.flatnonzero(~_contains(positives, owners[slot] * num_items + train_items))
            if len(free):
                left = np.cumsum(weights[free])
                drawn[slot] = free[np.searchsorted(left, generator.integers(0, left[-1]), side="right")]
        of_row = drawn.reshape(len(split_rows), label.negatives)
        is_drawn = np.concatenate([np.ones((len(split_rows), 1), dtype=bool), of_row >= 0], axis=1)
        item_rows = np.concatenate([split_rows[:, None], row_of_item[of_row]], axis=1)[is_drawn]
        context_rows = np.broadcast_to(split_rows[:, None], is_drawn.shape)[is_drawn]
        labels = np.broadcast_to(np.arange(label.negatives + 1) == 0, is_drawn.shape)[is_drawn]
        pairs[name] = Pairs(context_rows, item_rows, labels.astype(np.uint8))
        missing += int((drawn < 0).sum())
        if not (drawn >= 0).any():
            raise DataError(
                f"data set '{schema.name}': no negative can be drawn for {name}; every pair is a positive"
            )
    if missing:
        say(f"{schema.name}: {missing} negatives left out, of contexts that have every item as a positive")
    return pairs


def _contains(ascending: np.ndarray, values: np.ndarray) -> np.ndarray:
    place = np.minimum(np.searchsorted(ascending, values), len(ascending) - 1)
    is_present: np.ndarray = ascending[place] == values
    return is_present
