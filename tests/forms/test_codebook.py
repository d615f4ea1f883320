"""Codebooks: k-means, choosing codes under curvatures, solving for the entries, dealing axes to cells."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from ondevice.forms import codebook as codebooks
from ondevice.forms.codebook import cell_gains, choose_codes, decoded, fit_codebook, k_means, spread


def test_k_means_finds_the_weighted_means_of_clusters() -> None:
    torch.manual_seed(0)
    points = torch.tensor([[0.0], [0.2], [10.0], [10.4]])
    centers = k_means(points, torch.tensor([1.0, 3.0, 1.0, 1.0]), 2)
    assert sorted(centers.flatten().tolist()) == pytest.approx([0.15, 10.2])


def test_k_means_with_more_centers_than_points_leaves_zeros() -> None:
    centers = k_means(torch.tensor([[1.0, 2.0]]), torch.ones(1), 3)
    assert sorted(centers.tolist()) == [[0.0, 0.0], [0.0, 0.0], [1.0, 2.0]]
    assert not k_means(torch.zeros(0, 2), torch.zeros(0), 3).any()


def curvatures(rows: int, dim: int) -> Tensor:
    factors = torch.randn(rows, dim // 2, dim)  # not every direction counts
    return factors.mT @ factors


def cost(values: Tensor, curvature: Tensor, codes: Tensor, codebook: Tensor) -> Tensor:
    error = values - decoded(codes, codebook, values.shape[1])
    return torch.einsum("ri,rij,rj->r", error, curvature, error)


def test_chosen_codes_are_the_best_of_all_where_cells_do_not_meet() -> None:
    torch.manual_seed(1)
    values, codebook = torch.randn(20, 4), torch.zeros(256, 2)
    codebook[1:7], codebook[7:] = torch.randn(6, 2), 50.0
    kept = torch.ones(20, 2, dtype=torch.bool)
    apart = curvatures(20, 4) * torch.block_diag(torch.ones(2, 2), torch.ones(2, 2))
    result = choose_codes(values, apart, kept, torch.ones(20, 2, dtype=torch.int64), codebook)
    every = torch.stack(
        [
            cost(values, apart, torch.tensor([pair]).expand(20, 2), codebook)
            for pair in itertools.product(range(1, 7), repeat=2)
        ]
    )
    torch.testing.assert_close(cost(values, apart, result, codebook), every.amin(0))


@pytest.mark.parametrize("most", [3, 6])
def test_choosing_never_makes_a_row_worse_and_keeps_what_is_not_stored_at_entry_0(
    most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(2)
    monkeypatch.setattr(codebooks, "MAX_DISTANCES", 256 * 7)  # seven rows at once
    values, curvature, codebook = torch.randn(30, 6), curvatures(30, 6), torch.randn(256, 2)
    codebook[0] = 0
    kept = torch.arange(most) < torch.randint(1, most + 1, (30, 1))
    codes = torch.randint(1, 256, (30, most)) * kept
    result = choose_codes(values, curvature, kept, codes, codebook)
    before, after = (cost(values, curvature, c, codebook) for c in (codes, result))
    assert bool((after <= before + 1e-4).all())
    assert after.sum() < 0.5 * before.sum()
    assert torch.equal(result > 0, kept)


def test_a_codebook_fitted_under_curvature_costs_less_than_k_means() -> None:
    torch.manual_seed(3)
    values, curvature = torch.randn(600, 4), curvatures(600, 4)
    kept = torch.ones(600, 2, dtype=torch.bool)
    weight = torch.ones(600)
    plain = fit_codebook(values, kept, weight, 2)
    fitted = fit_codebook(values, kept, weight, 2, curvature)
    assert cost(values, curvature, *fitted).sum() < 0.7 * cost(values, curvature, *plain).sum()
    assert not fitted[1][0].any()


def test_entries_solved_for_are_those_of_least_squares() -> None:
    """With the identity for curvature, an entry is the mean of its cells."""
    torch.manual_seed(4)
    values, codes = torch.randn(40, 4), torch.randint(1, 5, (40, 2))
    kept = torch.ones(40, 2, dtype=torch.bool)
    start = torch.full((256, 2), 3.0)
    result = codebooks._solved(values, torch.eye(4).expand(40, 4, 4), kept, codes, start)
    cells = values.unflatten(1, (2, 2))
    for entry in range(1, 5):
        torch.testing.assert_close(result[entry], cells[codes == entry].mean(0), atol=1e-4, rtol=1e-4)
    assert torch.equal(result[5:], start[5:])


def test_entries_solved_for_are_those_of_least_squares_where_they_refine() -> None:
    """Against the normal equations of the whole problem, written down entry by entry."""
    torch.manual_seed(6)
    values, curvature = torch.randn(50, 4), curvatures(50, 4)
    kept = torch.arange(4) < torch.randint(1, 5, (50, 1))
    codes = torch.randint(1, 5, (50, 4)) * kept
    result = codebooks._solved(values, curvature, kept, codes, torch.zeros(256, 2))
    entries = result[:5].double().requires_grad_()
    error = values.double() - decoded(codes, torch.cat([entries, torch.zeros(251, 2)]), 4)
    torch.einsum("ri,rij,rj->", error, curvature.double(), error).backward()
    assert entries.grad is not None
    assert float(entries.grad[1:].abs().max()) < 1e-3


def test_gains_are_what_each_further_code_takes_from_the_loss() -> None:
    """Cells, then what refines them; a row ten times as curved gains ten times as much."""
    torch.manual_seed(7)
    values, curvature, codebook = torch.randn(40, 4), curvatures(40, 4), torch.randn(256, 2)
    values[20:], curvature[20:] = values[:20], 10 * curvature[:20]
    codebook[0] = 0
    gains = cell_gains(values, curvature, codebook, 4)
    assert gains.shape == (40, 4)
    assert not bool((gains < 0).any())
    torch.testing.assert_close(gains[20:], 10 * gains[:20], rtol=1e-3, atol=1e-3)
    pairs = [torch.tensor([code, 0]).expand(40, 2) for code in range(256)]
    every = torch.stack([cost(values, curvature, codes, codebook) / 2 for codes in pairs])
    torch.testing.assert_close(gains[:, 0], every[0] - every[1:].amin(0), rtol=1e-3, atol=1e-3)
    assert gains[:, :2].sum() > 5 * gains[:, 2:].sum() > 0


def test_spread_axes_are_uncorrelated_and_each_cell_has_its_share() -> None:
    torch.manual_seed(5)
    values = torch.randn(500, 6) @ torch.randn(6, 6) * torch.tensor([4.0, 3, 2, 1, 0.5, 0.2])
    rotation = spread(values, torch.ones(500), 2)
    torch.testing.assert_close(rotation @ rotation.t(), torch.eye(6), atol=1e-5, rtol=0)
    turned = values @ rotation
    second = turned.t() @ turned / 500
    variance = second.diagonal()
    assert float((second - second.diag().diag()).abs().max()) < 1e-3 * float(variance.max())
    widest = variance.argsort(descending=True)
    assert [sorted(widest[[k, 5 - k]].tolist()) for k in range(3)] == [[0, 1], [2, 3], [4, 5]]
