"""What every embedding method must do, and the rules by hand."""

from __future__ import annotations

import pytest
import torch

from ondevice.errors import UserError
from ondevice.forms.sizes import Sizes
from ondevice.forms.table import TableInfo
from ondevice.methods import METHODS
from ondevice.methods.base import Method, forms_at
from ondevice.methods.ranking import Ranking
from ondevice.methods.sizes.ranked import Ranked
from ondevice.methods.sizing import shipped_sizes, unstored_removed

IDS = torch.tensor([[1, 3, 6], [2, 4, 8], [0, 3, 5]])
every_method = pytest.mark.parametrize("name", METHODS)


def tables(name: str, info: TableInfo, seed: int = 0) -> list[Method]:
    """A table of embeddings (9, 4) and one of first-order weights (9, 1): 45 values."""
    torch.manual_seed(seed)
    made = [METHODS[name](info, dim, init_std=0.1) for dim in (4, 1)]
    if isinstance(made[0], Ranked):
        made[0].gains = torch.rand(9, 4)
    return made


@every_method
def test_ids_become_rows_of_the_table(name: str, info: TableInfo) -> None:
    table = tables(name, info)[0]
    embeddings = table(IDS)
    assert embeddings.shape == (3, 3, 4)
    assert embeddings.dtype == torch.float32
    torch.testing.assert_close(embeddings.detach(), table.table()[IDS])
    assert table.num_kept() == int((table.table() != 0).sum())


@every_method
def test_every_parameter_gets_a_gradient(name: str, info: TableInfo) -> None:
    table = tables(name, info)[0]
    table(IDS).square().sum().backward()
    for parameter_name, parameter in table.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.to_dense().abs().sum() > 0, parameter_name


@every_method
def test_a_state_reads_back(name: str, info: TableInfo) -> None:
    one, other = tables(name, info)[0], tables(name, info, seed=1)[0]
    assert not torch.equal(one.table(), other.table())
    other.load_state_dict(one.state_dict())
    assert torch.equal(one.table(), other.table())
    assert torch.equal(one(IDS), other(IDS))


@every_method
def test_a_seed_decides_the_weights(name: str, info: TableInfo) -> None:
    torch.testing.assert_close(tables(name, info)[0].table(), tables(name, info)[0].table(), rtol=0, atol=0)


@every_method
@pytest.mark.parametrize("target", [45, 40, 31, 22, 14])
def test_forms_hold_a_joint_target(name: str, info: TableInfo, target: int) -> None:
    """14 is the least that every rule can do: one dimension and a first-order weight for seven seen rows."""
    forms = unstored_removed(forms_at(tables(name, info), target), info)
    if isinstance(forms[0], Ranking):  # from which the sizes for any target follow
        forms = shipped_sizes(forms, target)
    assert [tuple(form.mask().shape) for form in forms] == [(9, 4), (9, 1)]
    kept = sum(form.num_kept() for form in forms)
    assert 0 < kept <= target
    for form in forms:
        if not form.is_shipped_as_selected:  # rows that ids share are stored once
            assert form.num_kept() == int(form.mask().sum()) == int(form.row_sizes().sum())
        assert form.row_sizes()[info.counts == 0].tolist() == [0, 0]


@every_method
def test_it_says_what_it_is(name: str) -> None:
    assert METHODS.describe()[name].endswith(".")


@every_method
def test_only_a_search_has_thresholds(name: str, info: TableInfo) -> None:
    table = tables(name, info)[0]
    parameters = {id(parameter) for parameter in table.parameters()}
    assert {id(threshold) for threshold in table.thresholds()} <= parameters
    assert bool(table.thresholds()) == (type(table).margins is not Method.margins)


def test_initial_weights_are_normal_or_xavier(info: TableInfo) -> None:
    large = TableInfo(torch.tensor([0, 2000]), torch.ones(2000, dtype=torch.int64))
    assert METHODS["uniform"](large, 8, init_std=0.003).weight.std().item() == pytest.approx(0.003, rel=0.05)
    bound = (6 / (2000 + 8)) ** 0.5
    weight = METHODS["uniform"](large, 8).weight
    assert 0.99 * bound < weight.abs().max().item() <= bound


def test_uniform_keeps_as_many_dimensions_as_fit(info: TableInfo) -> None:
    """Seven of the nine rows were seen."""
    uniform = METHODS["uniform"](info, 4)
    assert uniform.compact().sizes.tolist() == [0, 4, 4, 4, 4, 0, 4, 4, 4]
    assert uniform.compact(20).sizes.tolist() == [0, 2, 2, 2, 2, 0, 2, 2, 2]
    assert uniform.compact(100).sizes.max() == 4
    with pytest.raises(UserError, match="6 values are fewer than the 7 rows"):
        uniform.compact(6)


def test_uniform_stores_no_row_that_is_too_rare(info: TableInfo) -> None:
    uniform = METHODS["uniform"](info, 4, min_count=2)  # counts 0 5 1 2 4 0 3 2 1
    assert uniform.compact(20).row_sizes().tolist() == [0, 4, 0, 4, 4, 0, 4, 4, 0]
    with pytest.raises(UserError, match="min_count: got 0"):
        METHODS["uniform"](info, 4, min_count=0)


def test_frequency_by_hand() -> None:
    """Counts 0, 1, 4, 16 to the power of one half are 0, 1, 2, 4: seven values at c = 1."""
    info = TableInfo(torch.tensor([0, 4]), torch.tensor([0, 1, 4, 16]))
    frequency = METHODS["frequency"](info, 8, exponent=0.5, max_size=8)
    assert frequency.compact(7).sizes.tolist() == [0, 1, 2, 4]
    assert frequency.compact(14).sizes.tolist() == [0, 2, 4, 8]
    assert frequency.compact().sizes.tolist() == [0, 8, 8, 8]
    capped = METHODS["frequency"](info, 8, exponent=0.5, max_size=3)
    assert capped.compact(7).sizes.tolist() == [0, 1, 3, 3]
    assert capped.compact().sizes.tolist() == [0, 3, 3, 3]
    level = METHODS["frequency"](info, 8, exponent=0.0)
    assert level.compact(7).sizes.tolist() == [0, 2, 2, 2]


def test_magnitude_ranks_values_over_both_tables(info: TableInfo) -> None:
    embedding, first_order = tables("magnitude", info)
    with torch.no_grad():
        embedding.weight.fill_(0.1)
        first_order.weight.fill_(0.2)
        embedding.weight[3, 2] = -5.0
        embedding.weight[0] = 9.0  # not in training
        first_order.weight[6] = 4.0
    forms = forms_at([embedding, first_order], 2)
    assert forms[0].mask().nonzero().tolist() == [[3, 2]]
    assert forms[1].mask().nonzero().tolist() == [[6, 0]]


def test_values_that_tie_at_the_target_all_go(info: TableInfo) -> None:
    """Never above the target, also where many values are alike."""
    embedding, first_order = tables("magnitude", info)
    with torch.no_grad():
        embedding.weight.fill_(0.1)
        first_order.weight.fill_(0.2)
    forms = forms_at([embedding, first_order], 20)
    assert [form.num_kept() for form in forms] == [0, 7]


def test_larger_targets_keep_a_superset(info: TableInfo) -> None:
    pair = tables("magnitude", info)
    small, large = forms_at(pair, 10), forms_at(pair, 25)
    assert [sum(f.num_kept() for f in forms) for forms in (small, large)] == [10, 25]
    for few, many in zip(small, large, strict=True):
        assert bool((few.mask() <= many.mask()).all())


def test_a_rule_gives_each_row_it_keeps_a_first_order_weight(info: TableInfo) -> None:
    sizes, first_order = forms_at(tables("frequency", info), 20)
    assert isinstance(sizes, Sizes)
    assert first_order.row_sizes().tolist() == (sizes.sizes > 0).long().tolist()


def test_a_rule_that_cannot_hold_the_target_says_so(info: TableInfo) -> None:
    with pytest.raises(
        UserError, match="budget of 3 values: too small for the rows seen in training; the smallest is 14"
    ):
        forms_at(tables("uniform", info), 3)


def test_a_method_without_a_form_or_a_budget_says_so(info: TableInfo) -> None:
    bare = Method(info, 4)
    with pytest.raises(NotImplementedError, match="Method does not say what it ends in"):
        bare.compact()
    with pytest.raises(RuntimeError, match="Method follows no budget"):
        bare.shift_thresholds(1.0)
    assert bare.scores() is None
    rows = torch.arange(0, 9, 3)
    assert bare.margins(rows, bare.weight[rows]) is None
    assert bare.num_kept_of(rows, bare.weight[rows]) == 12
    assert not bare.follows_budget


def test_table_info_knows_fields_and_unknown_ids(info: TableInfo) -> None:
    assert (info.num_embeddings, info.num_fields) == (9, 3)
    assert info.field_of().tolist() == [0, 0, 0, 1, 1, 2, 2, 2, 2]
    assert info.unknown_of().tolist() == [0, 0, 0, 3, 3, 5, 5, 5, 5]
