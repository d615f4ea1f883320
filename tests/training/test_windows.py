"""Which items a training of the next item reads, and when: never one that came later."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from ondevice.errors import DataError
from ondevice.models.sequences.places import gaps_of, items_of, with_gaps
from ondevice.training.windows import Log, Moments, Windows

CPU = torch.device("cpu")


def log(*users: list[int], num_items: int = 9, last_out: bool = True) -> Log:
    """Each user's last item tests, the one before it validates; users of fewer than three only train."""
    lengths = [len(each) for each in users]
    division = [[0] * (n - 2) + [1, 2] if n >= 3 and last_out else [0] * n for n in lengths]
    return Log(
        np.array([i for each in users for i in each], dtype=np.int64),
        np.cumsum([0, *lengths]),
        np.array([d for each in division for d in each], dtype=np.uint8),
        num_items,
    )


def windows(given: Log, last: int = 3, per_user: int = 1, seed: int = 0) -> dict[int, list[list[int]]]:
    """The windows of an epoch by user."""
    rows_of: dict[int, list[list[int]]] = {}
    for users, items, lengths in Windows(given, last, per_user, 2, CPU).epoch(seed):
        assert [int((row != 0).sum()) for row in items] == lengths.tolist()
        for user, row in zip(users.tolist(), items.tolist(), strict=True):
            rows_of.setdefault(user, []).append(row)
    return rows_of


def test_the_newest_window_by_hand() -> None:
    given = log([1, 2, 3, 4, 5, 6, 7], [8, 9, 1, 2])
    assert windows(given) == {0: [[2, 3, 4, 5]], 1: [[0, 0, 8, 9]]}


def test_half_of_the_windows_are_drawn_from_anywhere() -> None:
    given = log(list(range(1, 10)))
    seen = set()
    for seed in range(40):
        newest, drawn = sorted(windows(given, per_user=2, seed=seed)[0], reverse=True)
        assert newest == [4, 5, 6, 7]
        seen.add(tuple(drawn))
    assert seen == {tuple(range(begin, begin + 4)) for begin in range(1, 5)}


def test_an_epoch_depends_on_its_seed_alone() -> None:
    given = log(*(list(np.random.default_rng(u).permutation(9) + 1) for u in range(20)))
    assert windows(given, per_user=2, seed=3) == windows(given, per_user=2, seed=3)
    assert windows(given, per_user=2, seed=3) != windows(given, per_user=2, seed=4)


def test_what_validates_and_tests_is_in_no_window() -> None:
    given = log([1, 2, 3, 4, 5], [6, 1, 7, 8])
    assert not {4, 5, 7, 8} & {i for each in windows(given, last=9).values() for row in each for i in row}


def test_unknown_items_are_left_out() -> None:
    assert windows(log([1, 0, 2, 0, 3, 4, 5])) == {0: [[0, 1, 2, 3]]}


def test_users_of_one_item_teach_nothing() -> None:
    with pytest.raises(DataError, match="no user has two items in the training split"):
        Windows(log([1], [2, 3, 4]), 3, 1, 2, CPU)


def test_moments_by_hand() -> None:
    given = log([1, 2, 3, 4, 5], [6, 0, 7])
    valid, test = Moments.of(given, "valid", 2), Moments.of(given, "test", 2)
    assert valid.histories.tolist() == [[2, 3], [0, 6]]
    assert test.histories.tolist() == [[3, 4], [0, 6]]
    assert valid.targets.items.tolist() == [3, -1]  # the second one's item is unknown
    assert test.targets.items.tolist() == [4, 6]
    assert test.seen.items.tolist() == [0, 1, 2, 3, 5]
    assert test.seen.offsets.tolist() == [0, 4, 5]
    assert test.lengths.tolist() == [4, 1]


def test_a_moment_with_nothing_before_it() -> None:
    given = Log(np.array([1, 2, 0]), np.array([0, 1, 3]), np.array([2, 0, 2], dtype=np.uint8), 2)
    moments = Moments.of(given, "test", 2)
    assert moments.histories.tolist() == [[0, 0], [0, 2]]
    assert moments.lengths.tolist() == [0, 1]


def test_the_future_changes_no_moment() -> None:
    """Everything after a moment is shuffled, and the histories and what was seen stay."""
    draws = np.random.default_rng(0)
    users = [draws.permutation(9)[:6] + 1 for _ in range(5)]
    before = Moments.of(log(*map(list, users)), "valid", 3)
    changed = [np.append(each[:4], draws.permutation(each[4:])) for each in users]
    after = Moments.of(log(*map(list, changed)), "valid", 3)
    assert torch.equal(before.histories, after.histories)
    assert torch.equal(before.seen.items, after.seen.items)


def test_a_split_without_rows_is_refused() -> None:
    with pytest.raises(DataError, match="the valid split has no interaction to rank items for"):
        Moments.of(log([1, 2], [3, 4]), "valid", 3)


def test_counts_are_of_training() -> None:
    assert log([1, 1, 2, 3], [2, 2, 4, 5], num_items=5).counts().tolist() == [0, 2, 2, 0, 0, 0]


@pytest.mark.parametrize(
    ("kind", "expected"), [("until", [[0, 1, 3, 4], [4, 0, 7, 6]]), ("since", [[0, 0, 1, 3], [0, 4, 0, 7]])]
)
def test_gaps_of_the_moments_that_are_ranked_by_hand(kind: str, expected: list[list[int]]) -> None:
    """The times of each item, and of the moment itself; unknown items are passed over."""
    given = log([1, 2, 3, 4, 5], [6, 7, 0, 8, 9, 1, 2])
    times = np.array([0, 0, 3, 12.5, 1e4, 50, 58, 1, 50, 150, 182, 1e5])
    given = replace(given, times=times, gaps=kind)
    moments = Moments.of(given, "valid", 4)
    assert items_of(moments.histories).tolist() == [[0, 1, 2, 3], [6, 7, 8, 9]]
    assert gaps_of(moments.histories).tolist() == expected
    assert moments.targets.items.tolist() == [3, 0]


@pytest.mark.parametrize("kind", ["since", "until"])
def test_a_training_learns_from_the_gaps_that_a_ranking_reads(kind: str) -> None:
    """What a window says before its last item is what the moment of that item has."""
    generator = np.random.default_rng(0)
    users = [list(generator.integers(1, 10, n)) for n in (3, 4, 9)]
    given = log(*users, last_out=False)
    division = np.concatenate([[0] * len(each) for each in users])
    division[given.offsets[1:] - 1] = 1
    times = np.concatenate([np.cumsum(generator.integers(0, 9999, len(each))) for each in users])
    given = replace(given, times=times.astype(float), gaps=kind)
    (_, read, _), *_ = Windows(given, 9, 1, 3, CPU).epoch(0)
    order = read.ne(0).sum(1).argsort()
    learnt = with_gaps(read, kind)[order, :-1]
    ranked = Moments.of(replace(given, division=division.astype(np.uint8)), "valid", 9).histories
    assert learnt.tolist() == ranked.tolist()
