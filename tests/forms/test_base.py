"""Sizes and masks, and the table that is retrained under one."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ondevice.errors import UserError
from ondevice.forms.base import CompactTable, Form
from ondevice.forms.mask import Mask
from ondevice.forms.sizes import Sizes
from ondevice.forms.table import TableInfo

SIZES = Sizes(torch.tensor([0, 2, 1, 3, 0, 0, 1, 2, 3]), 4)
MASK = Mask(torch.arange(36).reshape(9, 4) % 3 == 0)


def test_sizes_are_leading_dimensions() -> None:
    sizes = Sizes(torch.tensor([2, 0, 3]), 3)
    assert sizes.mask().tolist() == [[True, True, False], [False, False, False], [True, True, True]]
    assert sizes.num_kept() == 5
    assert sizes.row_sizes().tolist() == [2, 0, 3]
    assert sizes.without(torch.tensor([True, False, False])).sizes.tolist() == [0, 0, 3]


def test_a_mask_counts_positions_anywhere() -> None:
    mask = Mask(torch.tensor([[False, True, True], [False, False, False]]))
    assert (mask.num_kept(), mask.dim) == (2, 3)
    assert mask.without(torch.tensor([True, False])).num_kept() == 0


@pytest.mark.parametrize(
    "make",
    [
        lambda: Sizes(torch.tensor([1, 5]), 4),
        lambda: Sizes(torch.tensor([-1]), 4),
        lambda: Sizes(torch.tensor([1.0]), 4),
        lambda: Sizes(torch.tensor([[1]]), 4),
        lambda: Mask(torch.tensor([True])),
        lambda: Mask(torch.tensor([[1]])),
    ],
)
def test_wrong_shapes_and_ranges_are_refused(make: object) -> None:
    with pytest.raises(ValueError, match="must"):
        make()


def test_snapped_by_hand() -> None:
    """Nearest class, ties upward; what kept something keeps the smallest class, what kept nothing nothing."""
    sizes = Sizes(torch.tensor([0, 1, 3, 4, 5, 6, 7, 8]), 8)
    assert sizes.snapped([2, 6]).sizes.tolist() == [0, 2, 2, 6, 6, 6, 6, 6]
    assert sizes.snapped([8]).sizes.tolist() == [0] + [8] * 7
    with pytest.raises(UserError, match="the largest is above the table's dimension 8"):
        sizes.snapped([9])


@given(
    st.lists(st.integers(0, 16), min_size=1, max_size=30), st.sets(st.integers(1, 16), min_size=1, max_size=4)
)
def test_snapped_moves_each_size_the_least(sizes: list[int], classes: set[int]) -> None:
    snapped = Sizes(torch.tensor(sizes), 16).snapped(sorted(classes)).sizes.tolist()
    for size, moved in zip(sizes, snapped, strict=True):
        nearest = min(classes, key=lambda c: (abs(c - size), -c))
        assert moved == (nearest if size else 0)


def test_a_retrained_table_is_as_wide_as_its_largest_row(info: TableInfo) -> None:
    initial = torch.arange(36.0).reshape(9, 4) + 1
    table = CompactTable(info, SIZES, initial=initial)
    assert table.weight.shape == (9, 3)
    assert torch.equal(table.weight, (initial * SIZES.mask())[:, :3])
    assert table.num_kept() == 12
    assert torch.equal(table.form.row_sizes(), SIZES.sizes)
    masked = CompactTable(info, MASK, initial=initial)
    assert torch.equal(masked.weight, initial * MASK.kept)
    assert torch.equal(masked.form.mask(), MASK.kept)


@pytest.mark.parametrize("form", [SIZES, MASK])
@pytest.mark.parametrize("fused", [False, True])
def test_pruned_values_stay_zero_and_kept_ones_learn(info: TableInfo, form: Form, fused: bool) -> None:
    table = CompactTable(info, form, init_std=0.1)
    before = table.weight.detach().clone()
    optimizer = torch.optim.Adam(table.parameters(), lr=0.01, weight_decay=0.1, fused=fused)
    for _ in range(5):
        optimizer.zero_grad()
        (table(torch.arange(9)[:, None]) - 1).square().sum().backward()
        optimizer.step()
    keep = form.mask()[:, : table.embedding_dim]
    assert table.weight[~keep].tolist() == [0.0] * int((~keep).sum())
    assert bool((table.weight != before)[keep].all())


def test_nothing_kept_is_a_table_of_zeros(info: TableInfo) -> None:
    table = CompactTable(info, Sizes(torch.zeros(9, dtype=torch.int64), 4))
    assert table.weight.shape == (9, 1)
    assert table(torch.tensor([[1, 3, 6]])).abs().sum() == 0
