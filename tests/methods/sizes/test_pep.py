"""PEP against the whole-table definition, its regimes, and what it must not do."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ondevice.config.sections import SizesConfig
from ondevice.errors import UserError
from ondevice.forms.table import TableInfo
from ondevice.methods import METHODS
from ondevice.methods.sizes.pep import GRANULARITIES, PEP, REGIMES
from ondevice.models import MODELS
from ondevice.recommender import Recommender
from ondevice.training.step import make_optimizers, train_step

FIELD_OF = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 2])
IDS = torch.tensor([[1, 3, 6], [2, 3, 8], [1, 4, 6]])  # rows 0, 5 and 7 are not looked up
UNSEEN = [0, 5, 7]
OF_VALUES = [regime for regime in REGIMES if regime != "loss"]
"""Regimes whose thresholds act on values as they are; the other is in test_pep_loss.py."""


def spread(info: TableInfo, granularity: str, regime: str = "data") -> PEP:
    """Weights and thresholds of like magnitude, so that about half the values are pruned."""
    pep = PEP(info, 4, granularity=granularity, regime=regime)
    with torch.no_grad():
        pep.weight.normal_()
        pep.s.normal_()
    return pep


def whole_table(pep: PEP) -> Tensor:
    """Equation 4 over all rows, differentiable, with thresholds laid out value by value."""
    s = pep.s
    if pep.granularity in ("field", "field-dimension"):
        s = s[FIELD_OF]
    return torch.sign(pep.weight) * torch.relu(pep.weight.abs() - torch.sigmoid(s.expand(9, 4)))


@pytest.mark.parametrize(
    ("granularity", "shape"),
    [
        ("global", (1, 1)),
        ("dimension", (1, 4)),
        ("field", (3, 1)),
        ("field-dimension", (3, 4)),
        ("feature", (9, 1)),
        ("feature-dimension", (9, 4)),
    ],
)
def test_thresholds_are_shared_as_named(info: TableInfo, granularity: str, shape: tuple[int, int]) -> None:
    assert PEP(info, 4, granularity=granularity).s.shape == shape


@pytest.mark.parametrize("regime", OF_VALUES)
@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_forward_and_gradients_equal_the_whole_table(info: TableInfo, granularity: str, regime: str) -> None:
    pep = spread(info, granularity, regime)
    expected = whole_table(pep)[IDS]
    got = pep(IDS)
    assert got.shape == (3, 3, 4)
    assert 0 < int((got == 0).sum()) < got.numel()
    torch.testing.assert_close(got, expected)
    upstream = torch.randn(3, 3, 4)
    ours = [g.to_dense() for g in torch.autograd.grad(got, (pep.weight, pep.s), upstream)]
    theirs = torch.autograd.grad(expected, (pep.weight, pep.s), upstream)
    torch.testing.assert_close(ours, list(theirs))
    assert ours[0][UNSEEN].abs().sum() == 0
    torch.testing.assert_close(pep.table(), whole_table(pep).detach())


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_rows_outside_the_batch_are_not_touched(info: TableInfo, granularity: str) -> None:
    """Their values could be anything: NaN in them reaches neither the result nor a gradient."""
    pep = spread(info, granularity)
    with torch.no_grad():
        pep.weight[UNSEEN] = torch.nan
        if granularity.startswith("feature"):
            pep.s[UNSEEN] = torch.nan
    got = pep(IDS)
    got.sum().backward()
    assert bool(got.isfinite().all())
    assert bool(pep.s.grad.isfinite().all())
    assert pep.weight.grad[UNSEEN].tolist() == [[0.0] * 4] * 3


class LargestResult(TorchDispatchMode):
    """Notes the most elements that any operation made."""

    numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in torch.utils._pytree.tree_leaves(result):
            if isinstance(tensor, Tensor):
                self.numel = max(self.numel, tensor.numel())
        return result


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_no_operation_of_a_forward_is_as_large_as_the_table(granularity: str) -> None:
    offsets = torch.tensor([0, 500, 700, 1000])
    pep = PEP(TableInfo(offsets, torch.ones(1000, dtype=torch.int64)), 8, granularity=granularity)
    with LargestResult() as seen:
        pep(torch.tensor([[3, 600, 900]]))
    assert 0 < seen.numel <= 1000  # one flag per row, to find the distinct ones; never (1000, 8)


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_counts_scores_and_form_agree_with_the_table(info: TableInfo, granularity: str) -> None:
    pep = spread(info, granularity)
    pep.weight.data[0, 0] = 2.0  # survives, but id 0 is not in training
    table = pep.table()
    seen = table * (info.counts > 0)[:, None]
    assert pep.num_kept() == int((table != 0).sum())
    assert torch.equal(pep.scores(), seen.abs())
    assert torch.equal(pep.compact().kept, seen != 0)
    assert table[0, 0] != 0
    assert not pep.compact().kept[0].any()


def test_unknown_names_are_answered_with_the_nearest(info: TableInfo) -> None:
    with pytest.raises(
        UserError, match=r"compact\.sizes\.granularity: unknown 'features'.*did you mean 'feature'"
    ):
        PEP(info, 4, granularity="features")
    with pytest.raises(
        UserError, match=r"compact\.sizes\.regime: unknown 'decays'.*did you mean 'decay'\? choose"
    ):
        PEP(info, 4, regime="decays")


def search_steps(info: TableInfo, steps: int, weight_decay: float, **options: Any) -> tuple[PEP, PEP]:
    """A recommender's table after steps on the same batch, and the table it began with."""
    torch.manual_seed(0)
    tables = [METHODS["pep"](info, dim, init_std=0.02, **options) for dim in (4, 1)]
    recommender = Recommender(tables[0], tables[1], MODELS["fm"](3, 4))
    before = PEP(info, 4, **options)
    before.load_state_dict(tables[0].state_dict())
    settings = SizesConfig(learning_rate=1e-3, weight_decay=weight_decay)
    optimizers = make_optimizers(recommender, settings)
    for _ in range(steps):
        train_step(recommender, optimizers, IDS, torch.tensor([1.0, 0.0, 1.0]))
    return tables[0], before


def test_decay_raises_thresholds_and_wears_unseen_rows_away(info: TableInfo) -> None:
    """Adam's coupled L2 moves what gets no data gradient by the learning rate per step, toward 0."""
    after, before = search_steps(info, 100, 1e-5, regime="decay")
    moved = (after.s - before.s)[UNSEEN]
    assert bool(((moved > 0.09) & (moved < 0.11)).all())
    assert before.weight[UNSEEN].abs().mean() > 0.01
    assert after.weight[UNSEEN].abs().max() < 0.002


@pytest.mark.parametrize("regime", ["data", "budget"])
def test_elsewhere_only_data_moves_thresholds(info: TableInfo, regime: str) -> None:
    after, before = search_steps(info, 20, 1e-5, regime=regime)
    assert torch.equal(after.s[UNSEEN], before.s[UNSEEN])
    looked_up = [1, 2, 3, 4, 6, 8]
    assert bool((after.s != before.s)[looked_up].any(1).all())


def test_without_weight_decay_unseen_rows_stay(info: TableInfo) -> None:
    after, before = search_steps(info, 20, 0.0, regime="decay")
    assert torch.equal(after.weight[UNSEEN], before.weight[UNSEEN])
    assert torch.equal(after.s[UNSEEN], before.s[UNSEEN])


def margins_of(pep: PEP) -> Tensor | None:
    return pep.margins(torch.arange(9), *pep.row_parameters())


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_some_rows_are_counted_as_in_the_table(info: TableInfo, granularity: str) -> None:
    pep = spread(info, granularity, "budget")
    rows = torch.tensor([7, 0, 3])
    values = [p.detach()[rows] for p in pep.row_parameters()]
    assert pep.num_kept_of(rows, *values) == int((pep.table()[rows] != 0).sum())
    torch.testing.assert_close(pep.margins(rows, *values), margins_of(pep)[rows])


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_a_shift_between_two_margins_keeps_just_those_above(info: TableInfo, granularity: str) -> None:
    pep = spread(info, granularity, "budget")
    pep.weight.data.uniform_(-0.9, 0.9)
    for keep in (35, 18, 5, 1):  # the margins count from where the last shift led
        margins = margins_of(pep)
        ordered = margins.flatten().sort().values
        amount = float((ordered[36 - keep - 1] + ordered[36 - keep]) / 2)
        pep.shift_thresholds(amount)
        assert pep.num_kept() == keep
        assert torch.equal(pep.table() != 0, margins > amount)
        torch.testing.assert_close(margins_of(pep), margins - amount, rtol=1e-4, atol=1e-5)


def test_margins_are_finite_also_where_no_threshold_reaches(info: TableInfo) -> None:
    """g(s) < 1 never reaches a value beyond ±1, and a zero is pruned at once."""
    pep = spread(info, "feature-dimension", "budget")
    pep.weight.data[1, :2] = torch.tensor([3.0, 0.0])
    assert bool(margins_of(pep).isfinite().all())
    pep.shift_thresholds(50.0)
    assert pep.table()[1, :2].tolist() == [2.0, 0.0]


@pytest.mark.parametrize("regime", ["decay", "data"])
def test_regimes_without_a_budget_have_no_margins(info: TableInfo, regime: str) -> None:
    pep = PEP(info, 4, regime=regime)
    assert margins_of(pep) is None
    assert not pep.follows_budget
    with pytest.raises(RuntimeError, match=f"regime {regime} follows no budget"):
        pep.shift_thresholds(1.0)


@pytest.mark.parametrize(("regime", "s"), [("decay", -15.0), ("data", -11.0), ("budget", -7.0)])
def test_each_regime_begins_at_its_own_threshold(info: TableInfo, regime: str, s: float) -> None:
    assert PEP(info, 4, regime=regime, count_prior=0).s.unique().tolist() == [s]
    assert PEP(info, 4, regime=regime, count_prior=0, threshold_init=-3).s.unique().tolist() == [-3.0]


def test_thresholds_begin_lower_for_rows_that_are_used_more(info: TableInfo) -> None:
    """s₀ − γ·ln(occurrences); γ is 1 under a budget and 0 elsewhere."""
    occurrences = torch.tensor([1.0, 5, 1, 2, 4, 1, 3, 2, 1])  # as in `info`, unseen rows as once
    for options, gamma in (({}, 1.0), ({"count_prior": 0.5}, 0.5), ({"regime": "decay"}, 0.0)):
        s = PEP(info, 4, threshold_init=-7.0, **options).s
        torch.testing.assert_close(s, (-7 - gamma * occurrences.log())[:, None].expand(9, 4))
    with pytest.raises(
        UserError, match=r"compact\.sizes\.count_prior: granularity 'field' has no threshold per row"
    ):
        PEP(info, 4, granularity="field", count_prior=1.0)
    assert PEP(info, 4, granularity="field").s.unique().tolist() == [-7.0]
