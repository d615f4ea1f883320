from __future__ import annotations

from benchmarks.genres import summary


def test_mean_and_spread_of_each_field_set() -> None:
    runs = {"full-0": {"bytes": 10.0}, "rich-0": {"bytes": 7.0}, "full-1": {"bytes": 12.0}}
    assert summary(runs) == {
        "full": {"bytes": {"mean": 11.0, "std": 2.0**0.5}},
        "rich": {"bytes": {"mean": 7.0, "std": 0.0}},
    }
