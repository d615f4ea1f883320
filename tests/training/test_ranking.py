"""Metrics of a ranking of the whole catalogue, by hand and against a plain sort of Python's."""

from __future__ import annotations

import math
import time

import pytest
import torch
from torch import Tensor

from ondevice.errors import UserError
from ondevice.training.ranking import (
    UNRANKED,
    Lists,
    Ranking,
    by_group,
    coverage,
    dot_scores,
    per_user,
    rank_all,
    summary,
    user_groups,
)

NOTHING = -math.inf


def lists(*items: list[int]) -> Lists:
    lengths = torch.tensor([0, *map(len, items)])
    return Lists(torch.tensor([i for each in items for i in each], dtype=torch.int64), lengths.cumsum(0))


def ranked(scores: list[list[float]], targets: Lists, seen: Lists, k: int = 2) -> Ranking:
    table = torch.tensor(scores)
    return rank_all(lambda begin, end: table[begin:end].clone(), targets, seen, table.shape[1], largest_k=k)


def test_ranks_by_hand() -> None:
    scores = [[3.0, 1.0, 2.0, 0.0], [3.0, 1.0, 2.0, 0.0], [1.0, 1.0, 1.0, 1.0], [3.0, 2.0, 1.0, 0.0]]
    targets = lists([2], [2], [1], [0])
    seen = lists([], [0], [3], [0])
    ranking = ranked(scores, targets, seen)
    # second; first once the best is left out; last of three equal ones; seen itself, so never shown
    assert ranking.ranks.tolist() == [2, 1, 3, UNRANKED]
    assert ranking.top[:2].tolist() == [[0, 2], [2, 1]]
    each = per_user(ranking, (1, 2))
    assert each["hr@1"].tolist() == [0, 1, 0, 0]
    assert each["hr@2"].tolist() == [1, 1, 0, 0]
    assert each["ndcg@2"].tolist() == pytest.approx([1 / math.log2(3), 1, 0, 0])
    assert each["mrr"].tolist() == pytest.approx([1 / 2, 1, 1 / 3, 0])
    assert torch.equal(each["recall@2"], each["hr@2"])


def test_several_targets_by_hand() -> None:
    ranking = ranked([[4.0, 3.0, 2.0, 1.0]], lists([1, 3]), lists([]))
    assert ranking.ranks.tolist() == [2, 4]
    figures = summary(ranking, (2, 3))
    ideal = 1 + 1 / math.log2(3)
    assert figures["ndcg@2"] == pytest.approx(1 / math.log2(3) / ideal)
    assert figures["recall@3"] == 0.5
    assert figures["hr@3"] == 1
    assert figures["mrr"] == 0.5


def test_a_target_that_the_model_does_not_know_is_missed() -> None:
    ranking = ranked([[1.0, 2.0], [1.0, 2.0]], lists([-1], [2]), lists([], []))
    assert ranking.ranks.tolist() == [UNRANKED, UNRANKED]
    assert summary(ranking, (2,))["mrr"] == 0


def test_users_without_a_target_count_nowhere() -> None:
    ranking = ranked([[1.0, 2.0], [1.0, 2.0]], lists([1], []), lists([], []))
    assert summary(ranking, (1,))["hr@1"] == 1


def test_who_has_seen_everything_gets_nothing() -> None:
    ranking = ranked([[1.0, 2.0], [1.0, 2.0]], lists([1], [0]), lists([0, 1], []))
    assert ranking.top.tolist() == [[-1, -1], [1, 0]]
    assert coverage(ranking.top, 2) == 1
    assert coverage(ranking.top[:1], 2) == 0


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_scores_that_are_no_numbers(wrong: float) -> None:
    with pytest.raises(UserError, match=r"diverged.*train\.learning_rate"):
        ranked([[1.0, wrong]], lists([0]), lists([]))


def reference(scores: Tensor, targets: Lists, seen: Lists, k: int) -> dict[str, float]:
    """The same by a sort of Python's, a user at a time."""
    sums = {"hr": 0.0, "ndcg": 0.0, "recall": 0.0, "mrr": 0.0}
    shown: set[int] = set()
    for user in range(len(targets)):
        wanted = targets.items[targets.offsets[user] : targets.offsets[user + 1]].tolist()
        gone = set(seen.items[seen.offsets[user] : seen.offsets[user + 1]].tolist())
        candidates = [i for i in range(scores.shape[1]) if i not in gone]
        places = []
        for target in wanted:
            others = [i for i in candidates if i != target]
            if target in candidates:
                target_score = float(scores[user, target])
                places.append(1 + sum(float(scores[user, i]) >= target_score for i in others))
        ideal = sum(1 / math.log2(1 + r) for r in range(1, min(k, len(wanted)) + 1))
        hits = [r for r in places if r <= k]
        sums["hr"] += bool(hits)
        sums["ndcg"] += sum(1 / math.log2(1 + r) for r in hits) / ideal
        sums["recall"] += len(hits) / len(wanted)
        sums["mrr"] += 1 / min(places) if places else 0
        shown.update(sorted(candidates, key=lambda i: -float(scores[user, i]))[:k])
    count = len(targets)
    return {
        **{f"{name}@{k}" if name != "mrr" else name: value / count for name, value in sums.items()},
        f"coverage@{k}": len(shown) / scores.shape[1],
    }


def test_equal_to_a_plain_sort(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ondevice.training.ranking.CHUNK_BYTES", 4 * 30 * 7)  # seven users at a time
    draws = torch.Generator().manual_seed(1)
    scores = torch.randn(40, 30, generator=draws)
    targets = lists(*(torch.randperm(30, generator=draws)[: 1 + u % 3].tolist() for u in range(40)))
    seen = lists(*(torch.randperm(30, generator=draws)[: u % 9].tolist() for u in range(40)))
    ranking = rank_all(lambda a, b: scores[a:b].clone(), targets, seen, 30, largest_k=5)
    assert summary(ranking, (5,)) == pytest.approx(reference(scores, targets, seen, 5))


def test_by_group() -> None:
    ranking = ranked([[2.0, 1.0], [2.0, 1.0], [2.0, 1.0]], lists([0], [1], [0]), lists([], [], []))
    groups = {"a": torch.tensor([True, True, False]), "b": torch.tensor([False, False, True])}
    grouped = by_group(ranking, {**groups, "none": torch.zeros(3, dtype=torch.bool)}, (1,))
    assert [(name, figures["users"], figures["hr@1"]) for name, figures in grouped.items()] == [
        ("a", 2, 0.5),
        ("b", 1, 1),
    ]


def test_user_groups_divide_the_users() -> None:
    lengths = torch.tensor([0, 1, 19, 20, 50, 200, 1000])
    groups = user_groups(lengths, torch.arange(7))
    by_length = torch.stack([is_member for name, is_member in groups.items() if "items" not in name])
    by_item = torch.stack([is_member for name, is_member in groups.items() if "items" in name])
    assert by_length.sum(0).tolist() == by_item.sum(0).tolist() == [1] * 7
    assert groups["new users"].tolist() == [True] + [False] * 6


def test_a_catalogue_of_movielens_takes_two_seconds() -> None:
    """6,040 users and 3,706 items, 165 of them seen by each; the time is the processor's, whatever else it does."""
    draws = torch.Generator().manual_seed(0)
    users, items = torch.randn(6040, 64, generator=draws), torch.randn(3706, 64, generator=draws)
    seen = Lists(torch.randint(3706, (6040 * 165,), generator=draws), torch.arange(6041) * 165)
    targets = Lists.single(torch.randint(3706, (6040,), generator=draws))
    began = time.process_time()
    summary(rank_all(dot_scores(users, items, torch.zeros(3706)), targets, seen, 3706))
    assert time.process_time() - began < 2
