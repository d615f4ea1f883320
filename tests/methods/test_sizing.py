"""From masks to sizes that are shipped: never above the target, and all of it used."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ondevice.config.stores import Codes as CodesStore
from ondevice.errors import UserError
from ondevice.forms.base import Form
from ondevice.forms.codes import coded
from ondevice.forms.mask import Mask
from ondevice.forms.shared import SharedMap
from ondevice.forms.sizes import Sizes
from ondevice.forms.table import TableInfo
from ondevice.methods import METHODS
from ondevice.methods.base import competing, forms_at
from ondevice.methods.sizing import shipped_sizes, unstored_removed
from ondevice.run.budgets import final_forms

DIM = 6
COUNTS = st.lists(st.integers(0, DIM), min_size=1, max_size=25)


def mask(counts: list[int]) -> Mask:
    """The last ``count`` dimensions of each row: no prefix."""
    return Mask(torch.arange(DIM).flip(0) < torch.tensor(counts)[:, None])


def test_shipped_sizes_by_hand() -> None:
    """Counts 1, 2, 3 doubled; then with one value too few for the last promotion."""
    assert shipped_sizes([mask([1, 2, 3, 0])], 12)[0].sizes.tolist() == [2, 4, 6, 0]
    assert shipped_sizes([mask([1, 2, 3, 0])], 6)[0].sizes.tolist() == [1, 2, 3, 0]
    assert shipped_sizes([mask([1, 2, 3, 0])], 2)[0].sizes.tolist() == [0, 1, 1, 0]
    assert shipped_sizes([mask([1, 2, 3, 0])], 12, max_size=3)[0].sizes.tolist() == [3, 3, 3, 0]


def test_sizes_are_multiples_of_the_step() -> None:
    assert shipped_sizes([mask([1, 2, 3, 0])], 12, size_step=2)[0].sizes.tolist() == [2, 4, 6, 0]
    assert shipped_sizes([mask([1, 2, 3, 0])], 11, size_step=2)[0].sizes.tolist() == [2, 4, 4, 0]
    assert shipped_sizes([mask([1, 2, 3, 0])], 5, size_step=2)[0].sizes.tolist() == [0, 2, 2, 0]


@given(COUNTS, COUNTS, st.integers(1, 160), st.integers(1, DIM), st.integers(1, 4), st.booleans())
def test_the_target_holds_always(
    counts: list[int], first: list[int], target: int, max_size: int, size_step: int, share: bool
) -> None:
    first_order = Sizes(torch.tensor([min(c, 1) for c in (first + [0] * 25)[: len(counts)]]), 1)
    forms: list[Form] = [mask(counts), first_order]
    try:
        sizes, other = shipped_sizes(forms, target, max_size=max_size, size_step=size_step, share=share)
    except UserError:
        room = target - first_order.num_kept() if share else target
        assert not any(counts) or room < min(size_step, max_size) + share
        return
    assert sizes.num_kept() > 0
    if share:  # every row that keeps an embedding gets its first-order weight
        assert sizes.num_kept() + other.num_kept() <= target
        assert torch.equal(other.sizes > 0, (sizes.sizes > 0) | (first_order.sizes > 0))
    else:
        assert sizes.num_kept() <= target
        assert torch.equal(other.sizes, first_order.sizes)
    assert {size for size in sizes.sizes.tolist() if size % size_step} <= {max_size}
    assert max(sizes.sizes.tolist()) <= max_size
    assert not sizes.sizes[torch.tensor(counts) == 0].any()


@given(COUNTS.filter(any), st.integers(1, 160))
def test_the_target_is_used_up(counts: list[int], target: int) -> None:
    """With a step of 1 nothing is left, but where every row is full; rows with more keep more."""
    sizes = shipped_sizes([mask(counts)], target)[0].sizes
    kept = [count > 0 for count in counts]
    assert int(sizes.sum()) == min(target, DIM * sum(kept))
    assert int((sizes > 0).sum()) == min(target, sum(kept))
    order = sorted(range(len(counts)), key=lambda row: counts[row])
    for fewer, more in pairwise(order):
        assert counts[fewer] == counts[more] or sizes[fewer] <= sizes[more]


def test_nothing_left_for_the_embeddings_is_an_error() -> None:
    first_order = Sizes(torch.ones(3, dtype=torch.int64), 1)
    with pytest.raises(UserError, match=r"nothing is left for the embeddings; .* smallest is 5, 2 values"):
        shipped_sizes([mask([1, 1, 1]), first_order], 3)
    assert shipped_sizes([mask([1, 1, 1]), first_order], 5)[0].sizes.tolist() == [2, 0, 0]
    assert shipped_sizes([mask([1, 1, 1]), first_order], 3, share=False)[0].num_kept() == 3


def test_unseen_rows_are_removed(info: TableInfo) -> None:
    full = Sizes(torch.full((9,), 4), 4)
    ones = Mask(torch.ones(9, 1, dtype=torch.bool))
    sizes, first_order = unstored_removed([full, ones], info)
    assert sizes.row_sizes().tolist() == [0, 4, 4, 4, 4, 0, 4, 4, 4]
    assert first_order.row_sizes().tolist() == [0, 1, 1, 1, 1, 0, 1, 1, 1]


def test_first_order_weights_of_a_method_without_scores_stay_out_of_the_budget(info: TableInfo) -> None:
    """As in the protocol of the PEP paper's code."""
    tables = [METHODS["magnitude"](info, 4), METHODS["uniform"](info, 1)]
    assert competing(tables) == tables[:1]
    embedding, first_order = unstored_removed(forms_at(tables, 10), info)
    assert embedding.num_kept() == 10
    assert first_order.num_kept() == 7
    rules = [METHODS["uniform"](info, 4), METHODS["uniform"](info, 1)]
    assert competing(rules) == rules
    both = [METHODS["magnitude"](info, 4), METHODS["magnitude"](info, 1)]
    assert competing(both) == both


def test_shared_rows_use_what_removed_fields_and_first_order_weights_leave() -> None:
    """Two fields of ten values: each gets four rows of 20 values at two a row and one more; eight of one field."""
    counts = torch.ones(22, dtype=torch.int64)
    counts[[0, 11]] = 0
    info = TableInfo(torch.tensor([0, 11, 22]), counts)
    tables = [METHODS["hashing"](info, dim) for dim in (2, 1)]
    second = torch.arange(22) >= 11

    def rows(*how: object) -> list[int]:
        form = forms_at(tables, 24, *how)[0]  # type: ignore[arg-type]
        assert isinstance(form, SharedMap)
        return [int((form.sizes[part] > 0).sum()) for part in (slice(0, 11), slice(11, 22))]

    assert rows() == [4, 4]  # 8 rows of 3 values
    assert rows(None, False) == [6, 6]  # 12 rows of 2 values
    assert rows(second) == [8, 8]  # of which the second field's are not stored
    assert rows(second, False) == [10, 10]


def test_a_rule_that_cannot_do_with_a_budget_says_what_it_needs(info: TableInfo) -> None:
    """Seven rows of one dimension and one first-order weight."""
    tables = [METHODS["uniform"](info, 4), METHODS["uniform"](info, 1)]
    with pytest.raises(UserError, match=r"budget of 13 values: too small for the rows .* the smallest is 14"):
        forms_at(tables, 13)
    assert sum(form.num_kept() for form in forms_at(tables, 14)) == 14


def test_rows_that_are_stored_nowhere_do_not_make_a_budget_too_small(info: TableInfo) -> None:
    """Of seven rows seen in training the last are of a field that is left out, and no first-order weight is stored."""
    tables = [METHODS["uniform"](info, 4), METHODS["uniform"](info, 1)]
    removed = torch.arange(9) >= 5
    embedding, _ = forms_at(tables, 5, removed, first_order=False)
    assert embedding.without(removed).num_kept() == 4
    with pytest.raises(UserError, match=r"budget of 3 values: too small for the rows .* the smallest is 4"):
        forms_at(tables, 3, removed, first_order=False)


def fields(*counts: int) -> TableInfo:
    """Fields of so many values, each seen once."""
    offsets = torch.tensor([0, *counts]).cumsum(0)
    return TableInfo(offsets, torch.ones(int(offsets[-1]), dtype=torch.int64))


def test_sizes_above_the_largest_dimension_refine() -> None:
    form = Sizes(torch.tensor([4, 0, 2, 8, 6]), 8)
    plain, refined = coded(form.row_sizes(), 2, 8), coded(form.row_sizes(), 2, 4)
    assert (plain.dim, plain.num_levels, refined.dim, refined.num_levels) == (8, 1, 4, 2)
    assert refined.row_sizes().tolist() == plain.row_sizes().tolist() == [4, 0, 2, 8, 6]
    assert refined.cells().sum(1).tolist() == [2, 0, 1, 4, 3]
    assert refined.mask().sum(1).tolist() == [4, 0, 2, 4, 4]
    with pytest.raises(ValueError, match=r"sizes must lie in \[0, 4\], got up to 8"):
        coded(form.row_sizes(), 2, 2)


def test_codes_are_whole_cells_whatever_the_dimension_of_the_search() -> None:
    """Rows of six may have one cell of four, not one and a half; and rows of three none, which is said."""
    store = CodesStore(code_dims=4, size_step=4, max_size=8, first_order="none")
    (form,) = final_forms([Sizes(torch.tensor([6, 5, 1, 0]), 6)], 12, store)
    assert form.row_sizes().tolist() == [4, 4, 4, 0]
    with pytest.raises(
        UserError, match=r"compact\.store\.code_dims: got 4, but embedding\.dim is 3; it must be at most that"
    ):
        final_forms([Sizes(torch.tensor([3, 1]), 3)], 6, store)
