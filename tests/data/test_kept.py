"""A data set under a smaller vocabulary: what was kept reads the same values, the rest is unknown."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from ondevice.data import load_dataset
from ondevice.data.kept import keep_ids, kept_id_map, with_unknown
from ondevice.training.batches import Batches


def test_ids_and_their_places() -> None:
    offsets = np.array([0, 3, 5, 9])
    ids = with_unknown(offsets, np.array([2, 6, 8]))
    assert ids.tolist() == [0, 2, 3, 5, 6, 8]
    assert kept_id_map(offsets, ids).tolist() == [0, 0, 1, 2, 2, 3, 4, 3, 5]


def test_a_data_set_of_some_ids(tiny_config: Callable[..., dict[str, Any]]) -> None:
    whole = load_dataset(**tiny_config()["data"])
    offsets = whole.vocabulary.field_offsets
    random = np.random.default_rng(0)
    chosen = np.flatnonzero(random.random(int(offsets[-1])) < 0.5)
    ids = with_unknown(offsets, chosen)
    kept = keep_ids(whole, ids)
    texts = whole.vocabulary.key_texts()
    assert kept.vocabulary.key_texts() == [texts[i] for i in ids]
    assert np.array_equal(kept.counts, whole.counts[ids])
    known = set(ids.tolist())
    rows = whole.raw_rows("test", range(50))
    encoded = np.asarray(whole.test.ids[:50])
    for before, after, row in zip(rows, kept.raw_rows("test", range(50)), encoded, strict=True):
        expected = {
            name: value if i in known else None for (name, value), i in zip(before.items(), row, strict=True)
        }
        assert after == expected
    assert kept.catalog is not None
    assert whole.catalog is not None
    assert np.array_equal(kept.catalog.ids, kept_id_map(offsets, ids)[whole.catalog.ids])
    batches = Batches(kept.valid, 32, torch.device("cpu"))
    first = next(batches.in_order(32))[0]
    assert torch.equal(first, torch.from_numpy(np.asarray(kept.valid.ids[:32])).long())
