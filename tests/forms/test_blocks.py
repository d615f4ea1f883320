"""Cuts of a staircase: by hand, and against every cut there is."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ondevice.forms import blocks as module
from ondevice.forms.blocks import Blocks, choose_blocks
from ondevice.forms.codes import Codes
from ondevice.forms.sizes import Sizes


def test_heights_and_classes_by_hand() -> None:
    blocks = Blocks(width=2, limits=(2, 6), dim=6)
    sizes = np.array([0, 1, 2, 3, 6])
    assert blocks.num_columns == 3
    assert blocks.classes(sizes).tolist() == [0, 1, 1, 2, 2]
    assert blocks.heights(sizes) == [4, 2, 2]


def test_what_rows_do_not_keep_of_their_cells_is_padding() -> None:
    """Four rows in cells of two to their sizes 2, 2, 6 and 6, of which 1, 2, 3 and 6 are kept."""
    sizes = torch.tensor([0, 1, 2, 3, 6])
    assert Blocks(width=2, limits=(2, 6), dim=6).padding(sizes.numpy()) == 1 + 0 + 3 + 0
    assert Sizes(torch.tensor([0, 4, 4, 4]), 8).padding(3) == 0
    assert Codes(torch.tensor([2, 4, 8]), 8, 2).padding(3) == 0


def test_rows_of_one_size_are_one_column() -> None:
    assert choose_blocks(np.full(1000, 8), 5) == Blocks(8, (8,), 8)


def test_steps_of_two_get_cells_of_two() -> None:
    sizes = np.repeat([0, 2, 4, 6, 8], 3000)
    chosen = choose_blocks(sizes, 5)
    assert chosen.width == 2
    assert chosen.limits == (2, 4, 6, 8)


def test_a_few_small_rows_are_not_worth_a_column() -> None:
    assert choose_blocks(np.array([8] * 5000 + [4] * 20), 5) == Blocks(8, (8,), 8)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 7), min_size=1, max_size=300), st.integers(1, 12))
def test_no_other_cut_costs_less(sizes: list[int], num_fields: int) -> None:
    array = np.array(sizes)
    dim = max(1, int(array.max()))
    for width in range(1, dim + 1):
        limits = module._best_limits(array, dim, width, num_fields, 1)
        steps = [min(s * width, dim) for s in range(1, -(-dim // width) + 1)]
        every = [
            (*chosen, steps[-1]) for count in range(len(steps)) for chosen in combinations(steps[:-1], count)
        ]
        costs = [bytes_of(array, cut, width, num_fields) for cut in every]
        assert bytes_of(array, limits, width, num_fields) == min(costs)


def bytes_of(sizes: np.ndarray, limits: tuple[int, ...], width: int, num_fields: int) -> int:
    """Cells, heads of groups, and the entropy of the classes given that a row keeps something."""
    total, low, counts = 0, 0, []
    for high in limits:
        rows = int(((sizes > low) & (sizes <= high)).sum())
        counts.append(rows)
        total += rows * math.ceil(high / width) * width + (2 * num_fields * 6 if rows else 0)
        low = high
    return total + sum(round(n * math.log2(sum(counts) / n) / 8) for n in counts if n)


@pytest.mark.parametrize("step", [2, 3])
def test_stored_values_stay_within_a_tenth_of_the_kept_ones(step: int) -> None:
    random = np.random.default_rng(0)
    sizes = random.integers(0, 5, 20_000) * step
    chosen = choose_blocks(sizes, 9)
    stored = sum((height + 1) * chosen.width for height in chosen.heights(sizes))
    assert stored <= 1.10 * sizes.sum()


def test_columns_are_limited() -> None:
    sizes = np.random.default_rng(0).integers(0, 33, 50_000)
    assert choose_blocks(sizes, 9, max_columns=4).num_columns <= 4
    assert choose_blocks(sizes, 9).num_columns <= module.MAX_COLUMNS
