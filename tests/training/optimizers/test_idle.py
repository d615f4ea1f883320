"""What idle steps do to a row, against Adam made step by step in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from ondevice.training.optimizers.idle import AdamStep, IdleSteps, ReplayedSteps, Rows

BETAS, EPS = (0.9, 0.999), 1e-8


def rate(step: int) -> float:
    return 1e-2 * (1 + math.cos(step / 300)) / 2


def step_by_step(rows: Rows, steps: range, decay: float, decoupled: bool, shares: dict[int, float]) -> Rows:
    """The definition (arXiv 1412.6980, algorithm 1; AdamW 1711.05101), gradient zero but for coupled decay."""
    w, m, v, a = (t.double().clone() for t in rows.tensors())
    for i in steps:
        gradient = torch.zeros_like(w) if decoupled else decay * w
        w = w * (1 - rate(i) * decay) if decoupled else w
        m = BETAS[0] * m + (1 - BETAS[0]) * gradient
        v = BETAS[1] * v + (1 - BETAS[1]) * gradient.square()
        m_hat, v_hat = m / (1 - BETAS[0] ** i), v / (1 - BETAS[1] ** i)
        w = w - rate(i) * m_hat / (v_hat.sqrt() + EPS)
        if i in shares:
            a = shares[i] * a + (1 - shares[i]) * w
    return Rows(w, m, v, a)


def drawn(gradient: float, step: int) -> Rows:
    """Rows as a single gradient of about this size at ``step`` leaves them, after none."""
    torch.manual_seed(0)
    g = torch.randn(200, 3) * gradient
    return Rows(0.1 * torch.randn(200, 3), 0.1 * g, 0.001 * g.square(), 0.1 * torch.randn(200, 3))


def idled(
    idle: IdleSteps | ReplayedSteps, rows: Rows, begin: int, steps: int, decay: float, decoupled: bool
) -> Rows:
    """What ``idle`` makes of rows looked up last at step ``begin``, over the ``steps`` that follow it."""
    for number in range(begin + 1, begin + steps + 1):
        idle.record(AdamStep(number, rate(number), decay, decoupled, BETAS, EPS))
        if number % 4 == 0:
            idle.average(0.98)
    rows = Rows(*(t.clone() for t in rows.tensors()))
    idle.settle_(torch.zeros(200, dtype=torch.int32), [rows])
    return rows


def expected(rows: Rows, begin: int, steps: int, decay: float, decoupled: bool) -> Rows:
    numbers = range(begin + 1, begin + steps + 1)
    return step_by_step(rows, numbers, decay, decoupled, {i: 0.98 for i in numbers if i % 4 == 0})


@pytest.mark.parametrize("gradient", [1e-1, 1e-4, 3e-7, 3e-8])
@pytest.mark.parametrize(("begin", "steps"), [(1, 3), (1, 400), (40, 10), (5000, 30), (5000, 900)])
@pytest.mark.parametrize("decay", [0.0, 0.05])
def test_the_closed_form_is_what_adam_does(gradient: float, begin: int, steps: int, decay: float) -> None:
    """Within 2e-6 of the way that a row goes by itself, of an average within 2e-4; at first, where ε counts, 5e-3."""
    rows = drawn(gradient, begin)
    got = idled(IdleSteps(BETAS, EPS, torch.device("cpu")), rows, begin, steps, decay, decoupled=True)
    want = expected(rows, begin, steps, decay, decoupled=True)
    way = (want.weight - rows.weight).abs().max().item()
    first = begin == 1 and gradient < 1e-3
    assert (got.weight - want.weight).abs().max() <= 5e-8 + (5e-3 if first else 2e-6) * way
    assert (got.average - want.average).abs().max() <= 5e-8 + (5e-3 if first else 2e-4) * way
    torch.testing.assert_close(got.exp_avg, want.exp_avg.float(), rtol=1e-5, atol=1e-30)
    torch.testing.assert_close(got.exp_avg_sq, want.exp_avg_sq.float(), rtol=1e-5, atol=1e-30)


@pytest.mark.parametrize("gradient", [1e-3, 1e-6, 0.0])
@pytest.mark.parametrize(("begin", "steps"), [(0, 5), (10, 70), (300, 3000)])
def test_replayed_steps_are_what_adam_does(gradient: float, begin: int, steps: int) -> None:
    """Also of values that decay brings to rest on the way."""
    rows = drawn(gradient, begin)
    got = idled(ReplayedSteps(), rows, begin, steps, 1e-4, decoupled=False)
    want = expected(rows, begin, steps, 1e-4, decoupled=False)
    if steps == 3000:
        assert (want.weight.abs() < 1e-8).float().mean() > 0.9
    assert (got.weight - want.weight).abs().max() <= 2e-6
    assert (got.average - want.average).abs().max() <= 2e-6


def test_rows_at_rest_are_not_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Zero rows stay zero: after the first look nothing is left to do."""
    made: list[int] = []
    apply = AdamStep.apply_

    def counted(step: AdamStep, rows: list[Rows], gradients: list[Tensor]) -> None:
        made.append(step.number)
        apply(step, rows, gradients)

    monkeypatch.setattr(AdamStep, "apply_", counted)
    rows = Rows(*(torch.zeros(200, 3) for _ in range(3)), torch.ones(200, 3))
    got = idled(ReplayedSteps(), rows, 0, 1000, 1e-4, decoupled=False)
    assert len(made) == 64
    torch.testing.assert_close(got.average, torch.full((200, 3), 0.98**250), rtol=1e-4, atol=0)


def test_rows_are_settled_each_from_its_own_step() -> None:
    """Half of them were looked up three steps ago, half just now."""
    for idle in (IdleSteps(BETAS, EPS, torch.device("cpu")), ReplayedSteps()):
        rows = drawn(1e-3, 100)
        last = torch.zeros(200, dtype=torch.int32)
        last[::2] = 3
        for number in range(101, 104):
            idle.record(AdamStep(number, rate(number), 1e-4, isinstance(idle, IdleSteps), BETAS, EPS))
        before = rows.weight.clone()
        idle.settle_(last, [rows])
        assert torch.equal(rows.weight[::2], before[::2])
        assert (rows.weight[1::2] != before[1::2]).all()
