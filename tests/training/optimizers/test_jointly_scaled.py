"""Descent with one scale for all gradients, by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ondevice.forms.table import TableInfo
from ondevice.methods import METHODS
from ondevice.training.optimizers.jointly_scaled import JointlyScaledSGD
from ondevice.training.optimizers.table_adam import TableAdam


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


def test_rows_that_were_fetched_are_the_same_as_whole_tables(info: TableInfo) -> None:
    """Two tables, scaled together; rows 0, 5 and 7 are not read."""
    ids = torch.tensor([[1, 3, 6], [2, 3, 8], [1, 4, 6]])
    result = []
    for by_rows in (False, True):
        torch.manual_seed(0)
        tables = [METHODS["pep"](info, dim, init_std=1.0, threshold_init=-3.0) for dim in (4, 1)]
        before = tables[0].s.detach().clone()
        optimizer = JointlyScaledSGD([t.s for t in tables], lr=0.1, tables=tables)
        reader = TableAdam([{"params": [t.weight for t in tables]}], tables, lr=0.0)
        for weight in (1.0, 5.0):
            optimizer.zero_grad()
            if by_rows:
                reader.fetch(ids)
            (weight * (tables[0](ids) * tables[1](ids)).square().sum()).backward()
            optimizer.step()
            reader.step()
            for table in tables:
                table.fetched = None
        result.append(tables)
    for one, other in zip(*result, strict=True):
        torch.testing.assert_close(one.s, other.s)
    changed = (result[1][0].s != before).any(1)
    assert changed.any()
    assert not changed[[0, 5, 7]].any()


def test_a_state_that_is_read_back_goes_on_alike() -> None:
    (a,), (b,) = parameters(1.0), parameters(1.0)
    first, second = JointlyScaledSGD([a], lr=0.1), JointlyScaledSGD([b], lr=0.1)
    step(first, 2.0)
    b.data.copy_(a.data)
    second.load_state_dict(first.state_dict())
    step(first, 1.0)
    step(second, 1.0)
    assert a.item() == b.item()
