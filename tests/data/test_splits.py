"""Splits are disjoint, complete, in proportion, and the same everywhere."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ondevice.data.splits import check_options, row_hashes, sample_rows, split_rows
from ondevice.errors import UserError

THIRDS = (0.8, 0.1, 0.1)


@given(
    st.integers(10, 500),
    st.sampled_from(["random", "temporal"]),
    st.integers(0, 2**32),
    st.sampled_from([THIRDS, (0.5, 0.25, 0.25)]),
)
def test_disjoint_complete_and_in_proportion(
    num_rows: int, kind: str, seed: int, fractions: tuple[float, float, float]
) -> None:
    time = np.arange(num_rows)[::-1] // 3
    rows = split_rows(num_rows, kind, seed, fractions, (time,))
    assert sorted(np.concatenate(list(rows.values())).tolist()) == list(range(num_rows))
    for name, fraction in zip(("train", "valid", "test"), fractions, strict=True):
        assert abs(len(rows[name]) - fraction * num_rows) <= 1
    if kind == "temporal":
        assert time[rows["train"]].max() <= time[rows["valid"]].min()
        assert time[rows["valid"]].max() <= time[rows["test"]].min()


def test_published_sizes() -> None:
    rows = split_rows(739_012, "random", 0, THIRDS)
    assert [len(chosen) for chosen in rows.values()] == [591_210, 73_901, 73_901]


def test_the_seed_decides() -> None:
    first, again, other = (split_rows(1000, "random", seed, THIRDS)["test"].tolist() for seed in (0, 0, 1))
    assert first == again
    assert len(set(first) & set(other)) < 30  # about 10 by chance


def test_hashes_are_splitmix64() -> None:
    # The published generator (Steele, Lea and Flood 2014) from a state of 0 gives these first values.
    assert row_hashes(3, 0, 0).tolist() == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]


def test_temporal_ties_follow_the_further_keys() -> None:
    time, user = np.array([5, 1, 1, 1, 9, 7]), np.array([0, 3, 2, 2, 0, 0])
    rows = split_rows(6, "temporal", 0, (0.5, 0.25, 0.25), (time, user))
    assert rows["train"].tolist() == [2, 3, 1]
    assert np.concatenate([rows["valid"], rows["test"]]).tolist() == [0, 5, 4]


def test_sample_is_reproducible_and_in_order() -> None:
    chosen = sample_rows(1000, 100, 3)
    assert chosen is not None
    assert len(set(chosen.tolist())) == 100
    assert (np.diff(chosen) > 0).all()
    assert np.array_equal(chosen, sample_rows(1000, 100, 3))
    assert not np.array_equal(chosen, sample_rows(1000, 100, 4))
    assert sample_rows(1000, 1000, 3) is None
    assert sample_rows(1000, None, 3) is None


def test_too_few_rows_and_no_time() -> None:
    with pytest.raises(UserError, match=r"3 rows are too few.*is empty"):
        split_rows(3, "random", 0, THIRDS)
    with pytest.raises(UserError, match="needs a time"):
        split_rows(100, "temporal", 0, THIRDS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("randm", 0, THIRDS, None), "data.split.*did you mean 'random'"),
        (("random", -1, THIRDS, None), "data.seed"),
        (("random", 0.5, THIRDS, None), "data.seed"),
        (("random", 0, (0.9, 0.1), None), "three numbers"),
        (("random", 0, (0.9, 0.1, 0), None), "three numbers"),
        (("random", 0, (0.9, 0.1, 0.1), None), "must sum to 1"),
        (("random", 0, 0.8, None), "three numbers"),
        (("random", 0, THIRDS, 0), "data.max_rows"),
        (("random", 0, THIRDS, True), "data.max_rows"),
    ],
)
def test_options_are_checked(options: tuple[object, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_options(*options)


def test_fractions_of_a_yaml_list() -> None:
    assert check_options("random", 0, [0.7, 0.2, 0.1], 5) == (0.7, 0.2, 0.1)
