"""Distinct rows of a batch, and rows read and written at their cost."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from ondevice.forms.rows import RowFinder, gather_rows


@given(st.lists(st.integers(0, 19), min_size=2, max_size=40).filter(lambda ids: len(ids) % 2 == 0))
def test_the_distinct_rows_are_found_in_order(values: list[int]) -> None:
    ids = torch.tensor(values).reshape(-1, 2)
    rows, inverse = RowFinder(20)(ids)
    assert rows.tolist() == sorted(set(values))
    assert torch.equal(rows[inverse], ids)


def test_places_of_earlier_batches_do_not_matter() -> None:
    find = RowFinder(10)
    for values in ([[9, 1], [4, 9]], [[4, 4]], [[0, 9]]):
        rows, inverse = find(torch.tensor(values))
        assert torch.equal(rows[inverse], torch.tensor(values))


def test_the_last_answer_serves_the_same_batch_only() -> None:
    find = RowFinder(10)
    ids = torch.tensor([[1, 2]])
    first = find(ids)
    assert find(ids) is first
    ids[0, 0] = 7
    assert find(ids)[0].tolist() == [2, 7]
    assert find(torch.tensor([[4, 4]]))[0].tolist() == [4]


def test_gathered_rows_carry_the_gradient_to_their_place() -> None:
    table = torch.arange(8.0).reshape(4, 2).requires_grad_()
    gathered = gather_rows(table, torch.tensor([3, 1]))
    assert gathered.tolist() == [[6.0, 7.0], [2.0, 3.0]]
    gathered.backward(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    assert table.grad.tolist() == [[0, 0], [3, 4], [0, 0], [1, 2]]


def test_gathered_rows_equal_finite_differences() -> None:
    table = torch.randn(5, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: gather_rows(t, torch.tensor([4, 0, 2])), (table,))
