"""Tables whose values become integers of few bits with one scale: rounding, its gradients, and the bytes that ship."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from ondevice.forms.grid import Grid, GridEmbedding
from ondevice.forms.table import TableInfo


def table(values: Tensor, sizes: list[int], code_dims: int) -> GridEmbedding:
    info = TableInfo(torch.tensor([0, len(sizes)]), torch.ones(len(sizes), dtype=torch.int64))
    return GridEmbedding(info, Grid(torch.tensor(sizes), values.shape[1], code_dims), initial=values)


VALUES = torch.tensor([[0.5, -1.0, 1.75, -2.0], [0.1, 0.2, 9.0, 9.0], [9.0, 9.0, 9.0, 9.0]])


def test_values_are_free_until_they_are_rounded_with_one_scale() -> None:
    grid = table(VALUES, [4, 2, 0], 2)
    ids = torch.arange(3)[None]
    kept = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0]])
    assert torch.equal(grid(ids)[0], VALUES * kept)
    assert not grid.is_final
    grid.begin_codes()
    grid.log_scale.data.fill_(math.log(0.25))  # the scale at which all but 0.1 and 0.2 are whole
    assert grid.is_final
    expected = torch.tensor([[0.5, -1.0, 1.75, -2.0], [0.0, 0.25, 0.0, 0.0], [0.0] * 4])
    torch.testing.assert_close(grid(ids)[0], expected)
    torch.testing.assert_close(grid.table(), expected)


def test_the_scale_that_rounds_best_is_taken() -> None:
    torch.manual_seed(0)
    values = torch.randint(-8, 8, (50, 4)) * 0.3
    grid = table(values, [4] * 50, 2)
    grid.begin_codes()
    error = (grid.table() - values).square().mean().sqrt()
    assert error < 0.02 * values.std()


def test_gradients_pass_straight_to_values_in_range_and_to_the_scale() -> None:
    """∂(s·q)/∂log s = s·(q − x/s) where x is in range, s·low or s·high where it is not."""
    grid = table(torch.tensor([[0.6, -3.0]]), [2], 2)
    grid.begin_codes()
    grid.log_scale.data.fill_(math.log(0.25))  # 0.6 -> 2, -3.0 -> -8
    grid(torch.zeros(1, 1, dtype=torch.int64))[0, 0].backward(torch.tensor([1.0, 10.0]))
    assert grid.weight.grad is not None
    assert grid.log_scale.grad is not None
    torch.testing.assert_close(grid.weight.grad, torch.tensor([[1.0, 0.0]]))
    expected = 0.25 * (2 - 0.6 / 0.25) + 10 * 0.25 * -8
    torch.testing.assert_close(grid.log_scale.grad, torch.tensor(expected))


@pytest.mark.parametrize(("code_dims", "byte"), [(2, 0xE3), (4, 0b01_11_10_01)])
def test_a_byte_holds_several_integers_the_first_lowest(code_dims: int, byte: int) -> None:
    values = torch.tensor([[3.0, -2.0, 0.0, 0.0]] if code_dims == 2 else [[1.0, -2.0, -1.0, 1.0]])
    grid = table(values, [4], code_dims)
    grid.begin_codes()
    grid.log_scale.data.zero_()
    stored = grid.values()
    assert stored["codes"][0, 0] == byte
    codes, codebook = stored["codes"].long(), stored["codebook"]
    torch.testing.assert_close(codebook[codes].flatten(1), values)
    assert not codebook[0].any()
    assert tuple(codebook.shape) == (256, code_dims)
    again = table(torch.zeros(1, 4), [4], code_dims)
    again.load_values(stored)
    assert torch.equal(again.table(), grid.table())


def test_nothing_is_stored_before_values_are_integers() -> None:
    with pytest.raises(RuntimeError, match="before its values became integers"):
        table(VALUES, [4, 2, 0], 2).values()
    with pytest.raises(ValueError, match="2 integers of 4 bits or 4 of 2"):
        Grid(torch.tensor([3]), 3, 3)
