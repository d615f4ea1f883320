"""Windows with gaps are those that a reader works out of the same times."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ondevice.data.gaps import history_buckets
from ondevice.models.sequences.places import gaps_of, items_of, with_gaps, with_seconds


def windows(generator: np.random.Generator) -> tuple[torch.Tensor, list[np.ndarray], np.ndarray]:
    """Windows of 9 places, of 1 to 9 items, with the times of each one's items; and these items."""
    times = [np.cumsum(2.0 ** generator.uniform(-2, 29, n)).round() for n in range(1, 10)]
    items = generator.integers(1, 2**31, sum(map(len, times)))
    stamped = np.split(with_seconds(items, np.concatenate(times)), np.cumsum([len(t) for t in times])[:-1])
    rows = [np.pad(each, (9 - len(each), 0)) for each in stamped]
    return torch.from_numpy(np.stack(rows)), times, items


@pytest.mark.parametrize("kind", ["since", "until"])
def test_gaps_are_those_of_a_reader(kind: str) -> None:
    given, times, items = windows(np.random.default_rng(0))
    made = with_gaps(given, kind)
    assert items_of(made)[items_of(made) != 0].tolist() == items.tolist()
    assert torch.equal(items_of(made), items_of(given))
    for row, moments in zip(gaps_of(made), times, strict=True):
        expected = np.pad(history_buckets(moments, kind, None), (9 - len(moments), 0))
        assert row.tolist() == expected.tolist()


def test_what_is_left_out_of_a_window_makes_the_gap_longer_and_a_seam_has_none() -> None:
    given = torch.from_numpy(with_seconds(np.array([5, 6, 7, 8]), np.array([100.0, 101.0, 107.0, 90.0])))
    assert gaps_of(with_gaps(given[None], "until")).tolist() == [[2, 3, 0, 0]]
    assert gaps_of(with_gaps(given[[0, 2, 3]][None], "until")).tolist() == [[4, 0, 0]]
    assert gaps_of(with_gaps(given[None], "since")).tolist() == [[0, 2, 3, 0]]


def test_items_alone_have_no_gaps() -> None:
    given = torch.tensor([[0, 3, 4]])
    assert with_gaps(given, None) is given
    assert items_of(given).tolist() == given.tolist()
    assert not gaps_of(given).any()
