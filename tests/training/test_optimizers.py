"""Descent with one scale for all gradients, by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ondevice.embeddings import METHODS, TableInfo
from ondevice.embeddings.rows import FetchedRows
from ondevice.training.optimizers import JointlyScaledSGD


def parameters(*values: float) -> list[nn.Parameter]:
    return [nn.Parameter(torch.tensor([value])) for value in values]


def step(optimizer: JointlyScaledSGD, *gradients: float | None) -> None:
    for parameter, gradient in zip(optimizer.param_groups[0]["params"], gradients, strict=True):
        parameter.grad = None if gradient is None else torch.tensor([gradient])
    optimizer.step()


def test_one_scale_by_hand() -> None:
    """Gradients 3 and 1: RMS √5. Then 1 and 3, decay 0.5: mean squares 5 and 5, again √5."""
    a, b = parameters(10.0, 20.0)
    optimizer = JointlyScaledSGD([a, b], lr=0.1, decay=0.5)
    step(optimizer, 3.0, 1.0)
    assert a.item() == pytest.approx(10 - 0.3 / 5**0.5)
    assert b.item() == pytest.approx(20 - 0.1 / 5**0.5)
    step(optimizer, 1.0, 3.0)
    assert a.item() == pytest.approx(10 - 0.4 / 5**0.5)
    assert b.item() == pytest.approx(20 - 0.4 / 5**0.5)


def test_the_running_mean_is_corrected_for_its_start() -> None:
    """Squares 4 then 16 at decay 0.75: (¾·4 + 16)·¼ / (1 − ¾²) = 4.75 / 0.4375."""
    (a,) = parameters(0.0)
    optimizer = JointlyScaledSGD([a], lr=1.0, decay=0.75)
    step(optimizer, 2.0)
    assert a.item() == pytest.approx(-1.0)
    step(optimizer, 4.0)
    assert a.item() == pytest.approx(-1.0 - 4 / (4.75 / 0.4375) ** 0.5)


def test_a_gradient_that_is_absent_or_zero_moves_nothing() -> None:
    a, b = parameters(1.0, 2.0)
    optimizer = JointlyScaledSGD([a, b], lr=0.1)
    step(optimizer, None, None)
    step(optimizer, 0.0, 0.0)
    step(optimizer, None, 1.0)
    assert a.item() == 1.0
    assert b.item() < 2.0


def test_gradients_of_fetched_rows_are_the_same_as_those_of_the_table() -> None:
    info = TableInfo(torch.tensor([0, 5]), torch.ones(5, dtype=torch.int64))
    rows = torch.tensor([3, 1])
    tables = []
    for is_fetched in (False, True):
        table = METHODS["uniform"](info, 2)
        table.weight.data.fill_(1.0)
        optimizer = JointlyScaledSGD([table.weight], lr=0.1, tables=[table])
        for weight in (1.0, 5.0):
            optimizer.zero_grad()
            found = table.weight[rows]
            if is_fetched:
                found = found.detach().requires_grad_()
                table.fetched = FetchedRows(rows[None], rows, torch.tensor([[0, 1]]), {table.weight: found})
            (found.square() * weight * torch.tensor([1.0, 2.0])).sum().backward()
            optimizer.step()
        tables.append(table.weight.detach())
    torch.testing.assert_close(tables[0], tables[1])
    assert tables[1][[0, 2, 4]].tolist() == [[1.0, 1.0]] * 3


def test_a_state_that_is_read_back_goes_on_alike() -> None:
    (a,), (b,) = parameters(1.0), parameters(1.0)
    first, second = JointlyScaledSGD([a], lr=0.1), JointlyScaledSGD([b], lr=0.1)
    step(first, 2.0)
    b.data.copy_(a.data)
    second.load_state_dict(first.state_dict())
    step(first, 1.0)
    step(second, 1.0)
    assert a.item() == b.item()
