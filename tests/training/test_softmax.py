"""The losses of the next item: against PyTorch's own, by hand, and in expectation."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ondevice.training.softmax import bpr_loss, sampled_softmax_loss, softmax_loss


def inputs(rows: int = 7, items: int = 11, dim: int = 4) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    values = torch.randn(rows, dim), torch.randn(items, dim), torch.randn(items)
    users, table, bias = (value.double().float().requires_grad_() for value in values)
    return users, table, bias, torch.randint(items, (rows,))


@pytest.mark.parametrize("chunk", [1, 4 * 11 * 3, 8 << 20])
def test_the_softmax_and_its_gradients_are_pytorchs(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ondevice.training.softmax.CHUNK_BYTES", chunk)
    users, table, bias, targets = inputs()
    loss = 0.5 * softmax_loss(users, table, bias, targets)
    loss.backward()
    gradients = [each.grad for each in (users, table, bias)]
    for each in (users, table, bias):
        each.grad = None
    expected = 0.5 * F.cross_entropy(users @ table.T + bias, targets, reduction="sum")
    expected.backward()
    torch.testing.assert_close(loss, expected)
    for gradient, each in zip(gradients, (users, table, bias), strict=True):
        torch.testing.assert_close(gradient, each.grad)


def test_products_of_half_the_bits_are_near() -> None:
    users, table, bias, targets = inputs()
    near = softmax_loss(users, table, bias, targets, "bfloat16")
    near.backward()
    assert float(near) == pytest.approx(float(softmax_loss(users, table, bias, targets)), rel=0.02)
    assert users.grad is not None
    assert users.grad.dtype == torch.float32


def test_large_logits_stay_finite() -> None:
    users = torch.full((1, 1), 1e4, requires_grad=True)
    loss = softmax_loss(users, torch.tensor([[1.0], [-1.0]]), torch.zeros(2), torch.tensor([1]))
    assert float(loss) == pytest.approx(2e4)


def test_drawn_items_estimate_the_whole_softmax() -> None:
    """With many draws the corrected sum is the whole one; without the correction it is not."""
    users, table, bias, targets = inputs(items=6)
    chances = torch.tensor([0.4, 0.3, 0.1, 0.1, 0.05, 0.05])
    number = 200_000
    drawn = torch.multinomial(chances, number, True)
    right = table[targets], bias[targets]
    expected = F.cross_entropy(users @ table.T + bias, targets, reduction="sum")
    estimate = sampled_softmax_loss(
        users, right, (table[drawn], bias[drawn]), targets, drawn, (chances[drawn] * number).log()
    )
    assert float(estimate) == pytest.approx(float(expected), rel=0.02)
    plain = sampled_softmax_loss(
        users, right, (table[drawn], bias[drawn]), targets, drawn, torch.full((number,), number / 6).log()
    )
    assert abs(float(plain - expected)) > 10 * abs(float(estimate - expected))


def test_a_drawn_target_is_no_negative() -> None:
    users, table, bias = torch.ones(1, 1), torch.tensor([[1.0], [2.0]]), torch.zeros(2)
    targets, drawn = torch.tensor([0]), torch.tensor([0, 1, 1])
    loss = sampled_softmax_loss(
        users, (table[targets], bias[targets]), (table[drawn], bias[drawn]), targets, drawn, torch.zeros(3)
    )
    assert float(loss) == pytest.approx(math.log(math.e + 2 * math.e**2) - 1)


def test_pairs_by_hand() -> None:
    users, one, two = torch.tensor([[2.0]]), torch.tensor([[1.0]]), torch.tensor([[0.5]])
    loss = bpr_loss(users, (one, torch.tensor([0.5])), (two, torch.tensor([0.0])))
    assert float(loss) == pytest.approx(math.log(1 + math.exp(-1.5)))
