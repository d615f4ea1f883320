"""Gains of dimensions: against the definition, against what leaving them out really costs, and into sizes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ondevice.errors import UserError
from ondevice.forms.table import TableInfo
from ondevice.methods import METHODS
from ondevice.methods.build import build
from ondevice.methods.gains import measure_gains
from ondevice.methods.ranking import Ranking, concave
from ondevice.methods.sizing import shipped_sizes
from ondevice.recommender import Recommender

from ..world import World

GAINS = st.lists(st.lists(st.floats(0, 100, width=32), min_size=4, max_size=4), min_size=1, max_size=12)


def fm(world: World, dim: int, scale: float) -> Recommender:
    torch.manual_seed(0)
    return build(
        world.info,
        model="fm",
        model_options={},
        method="uniform",
        method_options={"init_std": scale},
        embedding_dim=dim,
    )


def test_one_dimension_is_obd(world: World) -> None:
    """½·v²·Σ p(1 − p)·(∂logit/∂v)², over the interactions that look a row up; with one dimension nothing turns."""
    recommender = fm(world, 1, 0.3)
    gains = measure_gains(recommender, world.batches(batch_size=64), (), num_dims=1, pairs=0.0)
    ids = torch.as_tensor(world.train.ids).long()
    embeddings = recommender.embed(ids).detach().squeeze(2)
    gradients = embeddings.sum(1, keepdim=True) - embeddings  # of an FM
    p = torch.sigmoid(recommender(ids)).detach()
    summed = torch.zeros(world.info.num_embeddings)
    summed.index_add_(0, ids.flatten(), ((p * (1 - p))[:, None] * gradients.square()).flatten())
    expected = 0.5 * summed * recommender.embedding.weight.detach().squeeze(1).square()
    torch.testing.assert_close(gains.squeeze(1), expected, rtol=1e-4, atol=1e-7)
    assert not gains[world.info.counts == 0].any()


def test_made_up_pairs_are_measured_as_well(world: World) -> None:
    recommender = fm(world, 2, 0.3)
    batches = world.batches(batch_size=64)
    real = measure_gains(recommender, batches, (2,), num_dims=2, pairs=0.0)
    both = measure_gains(recommender, batches, (2,), num_dims=2, pairs=1.0)
    assert 1.5 < float(both.sum() / real.sum()) < 2.5
    assert torch.equal(both, measure_gains(recommender, batches, (2,), num_dims=2, pairs=1.0))
    unsided = measure_gains(recommender, batches, (), num_dims=2, pairs=1.0)
    torch.testing.assert_close(unsided, measure_gains(recommender, batches, (), num_dims=2, pairs=0.0))


def test_gains_order_what_leaving_rows_out_costs(world: World) -> None:
    """Rows of the largest gains cost more than those of the smallest when they are zeroed, one by one."""
    recommender = fm(world, 4, 0.3)
    gains = measure_gains(recommender, world.batches(batch_size=256), (), num_dims=4, pairs=0.0).sum(1)
    ids = torch.as_tensor(world.train.ids).long()

    def logits() -> torch.Tensor:
        with torch.no_grad():
            return recommender(ids)

    full = logits()
    p = torch.sigmoid(full)
    order = gains.argsort(descending=True)
    costs = []
    for row in [*order[:5].tolist(), *order[gains[order] > 0][-5:].tolist()]:
        weight = recommender.embedding.weight.data
        saved = weight[row].clone()
        weight[row] = 0.0
        costs.append(float((p * (1 - p) * (logits() - full).square()).sum()))
        weight[row] = saved
    assert min(costs[:5]) > max(costs[5:])


def test_sizes_by_hand() -> None:
    ranking = Ranking(torch.tensor([[9.0, 1, 4, 0], [3, 3, 0, 0], [0, 0, 0, 0], [0, 8, 0, 0]]), 6)
    assert ranking.row_sizes().tolist() == [3, 2, 0, 2]
    assert [ranking.staircase()(n).sizes.tolist() for n in (1, 3, 5, 7)] == [
        [1, 0, 0, 0],
        [1, 0, 0, 2],  # 8 behind 0 is worth 4 and 4
        [1, 2, 0, 2],
        [3, 2, 0, 2],  # 1 and 4 are worth 2.5 each
    ]
    by_two = ranking.staircase(step=2)
    assert [by_two(n).sizes.tolist() for n in (2, 3, 4, 100)] == [
        [2, 0, 0, 0],
        [2, 0, 0, 0],
        [2, 0, 0, 2],
        [4, 2, 0, 2],
    ]
    assert ranking.staircase(step=2, max_size=3)(100).sizes.tolist() == [2, 2, 0, 2]
    assert ranking.without(torch.tensor([True, False, False, False])).row_sizes().tolist() == [0, 2, 0, 2]
    keyed = Ranking(
        torch.tensor([[6.0, 0], [4, 3.5]]), 2, row_cost=1.0
    )  # 6/2; 7.5/3 for both, 4/2 and 3.5/1 pooled
    assert keyed.staircase()(1).sizes.tolist() == [1, 0]
    dear = Ranking(torch.tensor([[6.0, 0], [4, 3.5]]), 2, row_cost=9.0)  # 6/10; 7.5/11
    assert dear.staircase()(2).sizes.tolist() == [0, 2]
    with pytest.raises(ValueError, match="not negative"):
        Ranking(torch.tensor([[-1.0]]), 1)


@given(GAINS, st.sampled_from([1.0, 3.5]))
def test_pooled_gains_never_grow_and_keep_their_sum(rows: list[list[float]], first: float) -> None:
    gains = torch.tensor(rows)
    costs = torch.tensor([first, 1.0, 1.0, 1.0])
    pooled = concave(gains, costs)
    assert bool((pooled.diff(dim=1) <= 1e-9 * (1 + gains.sum())).all())
    torch.testing.assert_close((pooled * costs).sum(1), gains.double().sum(1), rtol=1e-9, atol=1e-9)
    cumulative = torch.nn.functional.pad((pooled * costs).cumsum(1), (1, 0)) - torch.nn.functional.pad(
        gains.double().cumsum(1), (1, 0)
    )
    assert bool((cumulative >= -1e-6).all())  # the hull lies above


@given(GAINS, st.integers(1, 40), st.integers(1, 3))
def test_smaller_budgets_are_nested(rows: list[list[float]], num_values: int, step: int) -> None:
    staircase = Ranking(torch.tensor(rows), 4).staircase(step)
    small, large = staircase(num_values).sizes, staircase(num_values + step).sizes
    assert int(small.sum()) <= num_values
    assert bool((small <= large).all())


def test_shipped_sizes_share_the_target_with_first_order_weights() -> None:
    ranking = Ranking(torch.tensor([[4.0, 3], [2, 1], [0, 0]]), 2)
    none = METHODS["uniform"](TableInfo(torch.tensor([0, 3]), torch.ones(3, dtype=torch.int64)), 1).compact()
    empty = none.without(torch.ones(3, dtype=torch.bool))
    sizes, first = shipped_sizes([ranking, empty], 5)
    assert sizes.row_sizes().tolist() == [2, 1, 0]
    assert first.row_sizes().tolist() == [1, 1, 0]
    with pytest.raises(UserError, match="nothing is left for the embeddings"):
        shipped_sizes([ranking, empty], 1)
    with pytest.raises(RuntimeError, match="measured in a trained model first"):
        METHODS["saliency"](TableInfo(torch.tensor([0, 3]), torch.ones(3, dtype=torch.int64)), 2).compact()
