"""An encoded data set, as training and export see it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ondevice.data.schema import Schema
from ondevice.data.sequences import Sequences
from ondevice.data.splits import SPLITS
from ondevice.data.vocabulary import Vocabulary


@dataclass(frozen=True)
class EncodedSplit:
    """Rows of one split: global ids (n, S) int32, a column for each slot, labels (n,) uint8 and, where rows do not all
    count the same, their weights (n,) float32; mapped from disk and read-only.
    """

    ids: np.ndarray
    labels: np.ndarray
    weights: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Catalog:
    """Every item of the source, also those that no training row has.

    Args:
        ids: (I, Si) int32 global ids of the slots of the item-side fields in schema order.
        keys: canonical item key of each item.
        titles: title of each item; an empty text where the source has none.
        raw: raw values of the item-side fields of each item.
    """

    ids: np.ndarray
    keys: list[int | str]
    titles: list[str]
    raw: list[dict[str, Any]]

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True)
class Dataset:
    """A data set with its schema, vocabulary, encoded splits and catalog.

    Args:
        schema: fields with every origin known.
        vocabulary: fitted on the training split.
        counts: (N,) int64, occurrences of each global id in the training split.
        train: training rows.
        valid: validation rows.
        test: test rows.
        fingerprint: SHA-256 over the source, the options, the schema and the store's format.
        catalog: None where no field names an item.
        sequences: each user's rows in the order of time; None where the schema has no history.
        skipped_rows: rows left out because they could not be read.
        excerpt: whether the splits are a few rows each, kept where the rest is not.
    """

    schema: Schema
    vocabulary: Vocabulary
    counts: np.ndarray
    train: EncodedSplit
    valid: EncodedSplit
    test: EncodedSplit
    fingerprint: str
    catalog: Catalog | None
    sequences: Sequences | None = None
    skipped_rows: int = 0
    excerpt: bool = False

    def split(self, name: str) -> EncodedSplit:
        """The split called ``train``, ``valid`` or ``test``."""
        if name not in SPLITS:
            raise ValueError(f"no split '{name}': choose from {', '.join(SPLITS)}")
        encoded: EncodedSplit = getattr(self, name)
        return encoded

    def raw_rows(self, split: str, indices: Sequence[int] | np.ndarray) -> list[dict[str, Any]]:
        """Raw values by field name of some rows, decoded from their ids.

        A known id gives a value that is encoded as that id (for a bucket, some number inside it); an unknown
        id gives None, and so do several slots without a known one.
        """
        names, raw_of = self.schema.names, self.vocabulary.raw_of
        slots, offsets = self.schema.slots, self.vocabulary.field_offsets
        starts = slots.starts

        def raw(field: int, ids: list[int]) -> Any:
            if slots.poolings[field] is None:
                return raw_of(ids[0])
            return [raw_of(i) for i in ids if i != offsets[slots.sources[field]]] or None

        rows = np.asarray(self.split(split).ids[np.asarray(indices, dtype=np.int64)]).tolist()
        return [
            {name: raw(f, row[starts[f] : starts[f + 1]]) for f, name in enumerate(names)} for row in rows
        ]
