"""The losses of the next item: against PyTorch's own, by hand, and in expectation."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ondevice.training.softmax import Taught, bpr_loss, sampled_softmax_loss, softmax_loss, with_bias


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


@pytest.mark.parametrize("chunk", [1, 4 * 11 * 3, 2 << 20])
def test_what_teachers_say_is_learnt_by_the_plain_formula(
    chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """−Σ_i t_i·log softmax(s)_i, t = α·[target] + (1 − α)·mean_k softmax(s_k / T), in float64 and of PyTorch alone."""
    monkeypatch.setattr("ondevice.training.softmax.TAUGHT_CHUNK_BYTES", chunk)
    users, table, bias, targets = inputs()
    weight, temperature, kind = torch.rand(7), 2.0, torch.float32
    others = [(torch.randn(7, dim), torch.randn(11, dim), torch.randn(11)) for dim in (6, 3)]
    told = [(with_bias(u / temperature, 1 / temperature, kind), with_bias(e, b, kind)) for u, e, b in others]
    loss = softmax_loss(users, table, bias, targets, taught=Taught(told, weight))
    (0.5 * loss).backward()
    gradients = [each.grad for each in (users, table, bias)]
    wide = [each.detach().double().requires_grad_() for each in (users, table, bias)]
    softened = [
        torch.softmax((u.double() @ e.double().T + b.double()) / temperature, 1) for u, e, b in others
    ]
    wanted = weight.double()[:, None] * F.one_hot(targets, 11)
    wanted = wanted + (1 - weight.double()[:, None]) * torch.stack(softened).mean(0)
    expected = -(wanted * torch.log_softmax(wide[0] @ wide[1].T + wide[2], 1)).sum()
    (0.5 * expected).backward()
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)
    for gradient, each in zip(gradients, wide, strict=True):
        assert each.grad is not None
        torch.testing.assert_close(gradient, each.grad.float(), rtol=1e-4, atol=1e-5)


def test_a_teacher_in_half_the_bits_is_near() -> None:
    users, table, bias, targets = inputs()
    other = torch.randn(7, 5), torch.randn(11, 5)
    near, exact = (
        softmax_loss(
            users,
            table,
            bias,
            targets,
            name,
            Taught([(with_bias(other[0], 1.0, kind), with_bias(other[1], 0.0, kind))], torch.full((7,), 0.2)),
        )
        for name, kind in (("bfloat16", torch.bfloat16), ("float32", torch.float32))
    )
    assert float(near) == pytest.approx(float(exact), rel=0.02)
