"""Metrics of a ranking of the whole catalogue: HR@K, NDCG@K, Recall@K, MRR and coverage, over all and by group.

Nothing is sampled. Items that a user has seen are left out of the ranking, and ties count against us: an item
stands behind every other one that has its score.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ondevice.errors import UserError

KS = (10, 20)
"""List lengths K that are reported by default."""
CHUNK_BYTES = 32 << 20  # of scores that are computed together
UNRANKED = torch.iinfo(torch.int64).max
"""Rank of a target that is no candidate: one that the user has seen, or that the model does not know."""


@dataclass(frozen=True)
class Lists:
    """A list of items for each of U users, one after the other: what is wanted, or what was seen.

    Args:
        items: places in the catalogue; what is outside of it is in no ranking.
        offsets: where each user's list begins, and the end.

    Shape: items (T,) int64, offsets (U + 1,) int64.
    """

    items: Tensor
    offsets: Tensor

    @classmethod
    def single(cls, items: Tensor) -> Lists:
        """One item for each user (U,)."""
        return cls(items.long(), torch.arange(len(items) + 1))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def users(self) -> Tensor:
        """The user of each entry, (T,) int64."""
        return torch.repeat_interleave(torch.arange(len(self)), self.offsets.diff())

    def of(self, begin: int, end: int) -> tuple[Tensor, Tensor]:
        """Users, counted from ``begin``, and items of the lists ``begin`` … ``end`` − 1."""
        first, last = int(self.offsets[begin]), int(self.offsets[end])
        lengths = self.offsets[begin : end + 1].diff()
        return torch.repeat_interleave(torch.arange(end - begin), lengths), self.items[first:last]


@dataclass(frozen=True)
class Ranking:
    """Where every user's targets stand among all items.

    Args:
        ranks: of each target, from 1; `UNRANKED` where it is no candidate.
        targets: the targets, in the order of ``ranks``.
        top: places of the best items of each user, the best first; −1 where no candidate is left.
        num_items: items of the catalogue.

    Shape: ranks (T,) int64, top (U, K) int64.
    """

    ranks: Tensor
    targets: Lists
    top: Tensor
    num_items: int


@torch.no_grad()
def rank_all(
    scores_of: Callable[[int, int], Tensor],
    targets: Lists,
    seen: Lists,
    num_items: int,
    *,
    largest_k: int = max(KS),
) -> Ranking:
    """Rank the whole catalogue for every user, some users at a time.

    rank(t) = 1 + #{j ≠ t : j not seen, s_j ≥ s_t}.

    Args:
        scores_of: gives the scores of the users ``begin`` … ``end`` − 1; it may be changed in place.
        targets: what should come first for each user.
        seen: what is left out for each user.
        num_items: items of the catalogue.
        largest_k: length of the lists that `Ranking.top` has.

    Shape: scores (end − begin, I) float32.

    Raises: UserError: when a score is not finite.
    """
    assert len(targets) == len(seen), "the same users"
    depth = min(largest_k, num_items)
    chunk = max(1, CHUNK_BYTES // (4 * num_items))
    ranks, top = [], []
    for begin in range(0, len(targets), chunk):
        end = min(begin + chunk, len(targets))
        scores = scores_of(begin, end).cpu()
        # whatever is no number, or infinite, makes the sum so: one pass in place of three
        if not bool(torch.isfinite(scores.sum())):
            raise UserError(
                "the training has diverged: scores are not finite; lower the learning rate (train.learning_rate)"
            )
        users, items = seen.of(begin, end)
        known = (items >= 0) & (items < num_items)
        scores[users[known], items[known]] = -torch.inf
        best, places = scores.topk(depth, dim=1)
        top.append(torch.where(best > -torch.inf, places, -1))
        users, items = targets.of(begin, end)
        known = (items >= 0) & (items < num_items)
        target_scores = torch.full(items.shape, -torch.inf)
        target_scores[known] = scores[users[known], items[known]]
        beaten = (scores[users] if len(users) != end - begin else scores) >= target_scores[:, None]
        ranks.append(torch.where(target_scores > -torch.inf, beaten.sum(1), UNRANKED))
    return Ranking(torch.cat(ranks), targets, torch.cat(top), num_items)


def dot_scores(users: Tensor, items: Tensor, bias: Tensor | None = None) -> Callable[[int, int], Tensor]:
    """What `rank_all` takes for scores u·e + b.

    Shape: users (U, D), items (I, D), bias (I,).
    """

    def scores_of(begin: int, end: int) -> Tensor:
        product = users[begin:end] @ items.T
        return product if bias is None else product.add_(bias)

    return scores_of


def per_user(ranking: Ranking, ks: Sequence[int] = KS) -> dict[str, Tensor]:
    """Each metric of each user (U,), NaN for users without a target.

    HR@K = [some target is among the first K]; Recall@K = their share that is; MRR = 1 / (the best rank);
    NDCG@K = Σ_{ranks r ≤ K} 1 / log₂(1 + r) over the most that the user's number of targets could give
    (Järvelin and Kekäläinen 2002). With one target HR and Recall are the same.
    """
    users, num_users = ranking.targets.users, len(ranking.targets)
    ranks = ranking.ranks.double()
    ranks = torch.where(ranking.ranks == UNRANKED, torch.inf, ranks)
    counts = ranking.targets.offsets.diff()
    none = counts == 0

    def summed(values: Tensor) -> Tensor:
        return torch.zeros(num_users, dtype=torch.float64).index_add_(0, users, values)

    best = torch.full((num_users,), torch.inf, dtype=torch.float64)
    best = best.scatter_reduce(0, users, ranks, "amin")
    result = {}
    for k in ks:
        hits = (ranks <= k).double()
        discounts = 1 / torch.log2(1 + torch.arange(1, k + 1, dtype=torch.float64))
        ideal = torch.cat([torch.zeros(1, dtype=torch.float64), discounts.cumsum(0)])[counts.clamp(max=k)]
        result[f"hr@{k}"] = (best <= k).double()
        result[f"ndcg@{k}"] = summed(hits / torch.log2(1 + ranks)) / ideal
        result[f"recall@{k}"] = summed(hits) / counts
    result["mrr"] = 1 / best
    return {name: torch.where(none, torch.nan, value) for name, value in result.items()}


def coverage(top: Tensor, num_items: int) -> float:
    """Share of the catalogue that is in at least one user's list.

    Shape: top (U, K) int64, −1 where a list is shorter.
    """
    return len(torch.unique(top[top >= 0])) / num_items if num_items else 0.0


def summary(ranking: Ranking, ks: Sequence[int] = KS) -> dict[str, float]:
    """Means over the users who have a target, and ``coverage@K``."""
    means = {name: float(values.nanmean()) for name, values in per_user(ranking, ks).items()}
    return means | {f"coverage@{k}": coverage(ranking.top[:, :k], ranking.num_items) for k in ks}


def by_group(
    ranking: Ranking, groups: Mapping[str, Tensor], ks: Sequence[int] = KS
) -> dict[str, dict[str, float]]:
    """`summary` of some users alone, and how many they are (``users``).

    Args:
        groups: for each name, which users belong to it, (U,) bool; a user may be in several.
    """
    each = per_user(ranking, ks)
    result = {}
    for name, chosen in groups.items():
        figures = {metric: float(values[chosen].nanmean()) for metric, values in each.items()}
        figures |= {f"coverage@{k}": coverage(ranking.top[chosen][:, :k], ranking.num_items) for k in ks}
        result[name] = {"users": int(chosen.sum()), **figures}
    return {name: figures for name, figures in result.items() if figures["users"]}


def user_groups(history_lengths: Tensor, target_counts: Tensor) -> dict[str, Tensor]:
    """Groups of users with one target each: by what they have done, and by how popular their target is.

    Args:
        history_lengths: interactions that the model may see of each user.
        target_counts: how often training saw each user's target.

    Shape: both (U,) int64.
    """
    groups = {"new users": history_lengths == 0}
    for low, high in ((1, 19), (20, 49), (50, 199), (200, None)):
        inside = history_lengths >= low
        if high is not None:
            inside &= history_lengths <= high
        groups[f"history {low}–{high}" if high else f"history {low} and more"] = inside
    third, two_thirds = (
        np.quantile(target_counts.double().numpy(), (1 / 3, 2 / 3)) if len(target_counts) else (0, 0)
    )
    groups["rare items (a third of targets)"] = target_counts <= third
    groups["other items"] = (target_counts > third) & (target_counts <= two_thirds)
    groups["popular items (a third of targets)"] = target_counts > two_thirds
    return groups
