"""The soft threshold by hand, against autograd of its definition, and at its fixed points."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from ondevice.forms.soft_threshold import pruned_lookup, soft_threshold

SHAPES = [(), (1, 1), (1, 3), (4, 1), (4, 3)]


def defined(weight: Tensor, s: Tensor) -> Tensor:
    """Equation 4 of the paper, as it is written."""
    return torch.sign(weight) * torch.relu(weight.abs() - torch.sigmoid(s))


def away_from_kinks(shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Weights (4, 3) at least 0.05 away from ±g(s) and from 0, some of them pruned."""
    s = torch.linspace(-1.5, 0.5, math.prod(shape), dtype=torch.float64).reshape(shape)
    threshold = torch.sigmoid(s).expand(4, 3)
    factor = torch.tensor([[0.5, 1.3, -1.6], [-0.4, 2.0, 1.4], [1.5, -0.6, -2.2], [-1.4, 0.3, 1.8]])
    return (threshold * factor).requires_grad_(), s.requires_grad_()


def test_by_hand() -> None:
    """g(0) = 0.5 and g(ln 3) = 0.75."""
    weight = torch.tensor([[0.8, -0.8, 0.3], [1.0, -2.0, 0.6]])
    s = torch.tensor([[0.0], [math.log(3)]])
    expected = torch.tensor([[0.3, -0.3, 0.0], [0.25, -1.25, 0.0]])
    torch.testing.assert_close(soft_threshold(weight, s), expected)


def test_gradients_by_hand() -> None:
    """With L = Σ c·V̂: ∂L/∂V = c where V̂ ≠ 0, ∂L/∂s = −g′·Σ c·sign(V) there; g′(0) = 0.25."""
    weight = torch.tensor([[0.8, -0.8, 0.3]], requires_grad=True)
    s = torch.zeros(1, 1, requires_grad=True)
    (soft_threshold(weight, s) * torch.tensor([2.0, 5.0, 7.0])).sum().backward()
    assert weight.grad.tolist() == [[2.0, 5.0, 0.0]]
    assert s.grad.item() == pytest.approx(-0.25 * (2.0 - 5.0))


@pytest.mark.parametrize("shape", SHAPES)
def test_equals_autograd_of_the_definition(shape: tuple[int, ...]) -> None:
    weight, s = away_from_kinks(shape)
    upstream = torch.randn(4, 3, dtype=torch.float64)
    torch.testing.assert_close(soft_threshold(weight, s), defined(weight, s))
    got = torch.autograd.grad(soft_threshold(weight, s), (weight, s), upstream)
    expected = torch.autograd.grad(defined(weight, s), (weight, s), upstream)
    assert (defined(weight, s) == 0).any()
    for ours, theirs in zip(got, expected, strict=True):
        assert ours.shape == theirs.shape
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("shape", SHAPES)
def test_equals_finite_differences(shape: tuple[int, ...]) -> None:
    assert torch.autograd.gradcheck(soft_threshold, away_from_kinks(shape), eps=1e-6, atol=1e-7)


def test_values_within_the_threshold_are_exactly_zero_and_pass_no_gradient() -> None:
    """Also at |V| = g(s), where the definition has a kink."""
    s = torch.tensor([[-2.0]], requires_grad=True)
    edge = torch.sigmoid(s).item()
    weight = torch.tensor([[edge, -edge, edge / 3, 0.0]], requires_grad=True)
    pruned = soft_threshold(weight, s)
    pruned.backward(torch.ones(1, 4))
    assert pruned.tolist() == [[0.0, 0.0, 0.0, 0.0]]
    assert weight.grad.tolist() == [[0.0, 0.0, 0.0, 0.0]]
    assert s.grad.item() == 0.0


@pytest.mark.parametrize("s", [-math.inf, -150.0])
def test_an_s_without_a_threshold_is_the_identity(s: float) -> None:
    """In float32 g(−150) is 0, and so is its slope: such an s never moves."""
    weight = torch.tensor([[0.8, -1e-7, 3e-39]], requires_grad=True)
    threshold = torch.full((1, 1), s, requires_grad=True)
    pruned = soft_threshold(weight, threshold)
    pruned.sum().backward()
    assert torch.equal(pruned, weight)
    assert weight.grad.tolist() == [[1.0, 1.0, 1.0]]
    assert threshold.grad.item() == 0.0


def test_twice_is_once_at_twice_the_threshold() -> None:
    """Shrinking is not idempotent, S_t∘S_t = S_2t; what it zeroed and an identity stay what they are."""
    weight = torch.randn(50, 4, dtype=torch.float64)
    s = torch.tensor(-1.5, dtype=torch.float64)
    once = soft_threshold(weight, s)
    twice = soft_threshold(once, s)
    torch.testing.assert_close(twice, soft_threshold(weight, torch.logit(2 * torch.sigmoid(s))))
    assert not torch.equal(once, twice)
    assert torch.equal(twice[once == 0], once[once == 0])


def test_is_odd_and_never_spreads_values() -> None:
    a, b = torch.randn(2, 200, 4, dtype=torch.float64)
    s = torch.randn(200, 1, dtype=torch.float64)
    assert torch.equal(soft_threshold(-a, s), -soft_threshold(a, s))
    distance = (soft_threshold(a, s) - soft_threshold(b, s)).abs()
    assert bool((distance <= (a - b).abs() + 1e-12).all())


def test_no_gradient_is_computed_for_what_needs_none() -> None:
    weight = torch.tensor([[0.8]], requires_grad=True)
    soft_threshold(weight, torch.zeros(1, 1)).sum().backward()
    assert weight.grad.item() == 1.0


@pytest.mark.parametrize("width", [1, 3])
def test_a_pruned_lookup_is_a_lookup_of_what_was_pruned(width: int) -> None:
    """Values, and gradients of rows that are read twice or never."""
    inverse = torch.tensor([[3, 0], [0, 2]])
    weight, s = away_from_kinks((4, width))
    upstream = torch.randn(2, 2, 3, dtype=torch.float64)
    expected = soft_threshold(weight, s)[inverse]
    got = pruned_lookup(weight, s, inverse)
    torch.testing.assert_close(got, expected)
    gradients = torch.autograd.grad(expected, (weight, s), upstream)
    torch.testing.assert_close(torch.autograd.grad(got, (weight, s), upstream), gradients)
    assert torch.autograd.gradcheck(lambda w, t: pruned_lookup(w, t, inverse), (weight, s))


def test_a_gradient_that_is_passed_in_stays_as_it_is() -> None:
    weight, s = away_from_kinks((4, 3))
    upstream = torch.randn(4, 3, dtype=torch.float64)
    before = upstream.clone()
    torch.autograd.grad(soft_threshold(weight, s), (weight, s), upstream)
    torch.autograd.grad(pruned_lookup(weight, s, torch.arange(4)[None]), (weight, s), upstream[None])
    assert torch.equal(upstream, before)
