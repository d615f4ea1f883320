"""Time gaps as powers of two of seconds: the same in training and on the device."""

from __future__ import annotations

import numpy as np
import pytest

from ondevice.data.gaps import NUM_BUCKETS, buckets, history_buckets
from ondevice.data.times import seconds


def test_a_bucket_has_the_bits_of_a_second_more() -> None:
    for power in range(34):
        for gap in (2.0**power - 1, 2.0**power - 0.5, 2.0 ** (power + 1) - 2, 2.0 ** (power + 1) - 1.001):
            expected = min((1 + int(gap)).bit_length(), NUM_BUCKETS - 1)
            assert buckets(np.array([gap]))[0] == expected, gap
    assert buckets(np.array([0, 1, 2, 3, 0.9, -0.1, np.nan, 1e300])).tolist() == [1, 2, 2, 3, 1, 0, 0, 31]


def test_gaps_of_a_history_by_hand() -> None:
    times = [100, 100, 103, None, 110, 105]
    assert history_buckets(times, "since", 106).tolist() == [0, 1, 3, 0, 0, 0]
    assert history_buckets(times, "until", 106).tolist() == [1, 3, 0, 0, 0, 2]
    assert history_buckets(times, "until", None).tolist() == [1, 3, 0, 0, 0, 0]
    assert history_buckets([], "until", 9.0).tolist() == history_buckets([], "since", 9.0).tolist() == []
    assert history_buckets([7.25], "until", 8.5).tolist() == [2]


def test_smaller_units_become_seconds() -> None:
    moments = np.array([978_300_000.0, 978_300_055.5])
    for factor in (1, 1e3, 1e6, 1e9):
        assert seconds(moments * factor) == pytest.approx(moments, abs=1e-3)
    counts = np.array([3.0, 70_000.0])
    assert seconds(counts) is counts  # no time since 1970: as it stands
    assert len(seconds(np.empty(0))) == 0
