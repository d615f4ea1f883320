"""The peers of the next item: item-item weights by hand, and figures of the same lines as ours."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.peers_next_item import Peers, cosine, ease, measure, of_lists
from ondevice.training.ranking import summary
from ondevice.training.windows import Log


def log() -> Log:
    """Four users of seven items each, in a ring; the last one tests, the one before it validates."""
    items = np.concatenate([(np.arange(7) + start) % 8 + 1 for start in range(4)])
    division = np.tile(np.array([0, 0, 0, 0, 0, 1, 2], dtype=np.uint8), 4)
    return Log(items.astype(np.int64), np.arange(5) * 7, division, 8)


def test_cosine_by_hand() -> None:
    matrix = torch.tensor([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    expected = torch.tensor([[0, 0.5**0.5, 0], [0.5**0.5, 0, 0], [0, 0, 0]])
    torch.testing.assert_close(cosine(matrix), expected)


def test_ease_solves_its_own_problem() -> None:
    """No other matrix with a zero diagonal has a smaller ‖X − XB‖² + λ‖B‖²."""
    matrix = (torch.rand(30, 6) < 0.4).float()
    free = torch.zeros(6, 6, requires_grad=True)
    optimizer = torch.optim.LBFGS([free], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        weights = free * (1 - torch.eye(6))
        value = (matrix - matrix @ weights).square().sum() + 2.0 * weights.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    torch.testing.assert_close(ease(matrix, 2.0), (free * (1 - torch.eye(6))).detach(), atol=1e-3, rtol=1e-3)


def test_every_peer_is_measured() -> None:
    figures = dict(measure(Peers(log())))
    assert list(figures) == [
        "popularity",
        "item-item, whole history",
        "item-item, last 20",
        "EASE, whole history",
        "EASE, last 20",
    ]
    for entry in figures.values():
        assert 0 <= entry["test"]["all"]["ndcg@10"] <= 1
        assert entry["test"]["all"]["hr@10"] == 1  # two films are left to rank
    assert figures["EASE, last 20"]["penalty"] in (100.0, 300.0, 600.0, 1000.0)


def test_what_was_seen_scores_by_its_rows() -> None:
    peers = Peers(log())
    weights = torch.eye(8)
    whole = peers.of_history(weights, "test", latest=False)(0, 4)
    assert torch.equal(whole, peers.of_history(weights, "test", latest=True)(0, 4))
    assert whole[0].tolist() == [1, 1, 1, 1, 1, 1, 0, 0]


def test_the_page_shows_what_was_measured() -> None:
    root = Path(__file__).resolve().parents[2]
    page = (root / "docs" / "next_item.md").read_text(encoding="utf-8")
    content = json.loads((root / "docs" / "benchmarks" / "movielens_1m_next_item.json").read_text())
    assert content["models"]
    for name, entry in content["models"].items():
        best = entry["test"]["all"]
        shown = f"| {name} | {best['hr@10']:.4f} | {best['ndcg@10']:.4f} | {best['mrr']:.4f} |"
        assert shown in page, shown
        for bundle in entry.get("bundles", {}).values():
            assert f"{sum(bundle['bytes'].values()):,}" in page
            assert f"{bundle['parity']['test_ndcg@10_pte']:.4f}" in page


def test_lists_of_another_environment_are_ranked_by_where_the_target_stands() -> None:
    """First, second, in no list, and where the list ends early."""
    peers = Peers(log())
    targets = peers.moments["valid"].targets.items.numpy() + 1
    lists = np.array([[targets[0], 8], [9, targets[1]], [9, 10], [targets[3], 0]])
    assert of_lists(peers, lists, "valid").ranks.tolist()[:2] == [1, 2]
    figures = summary(of_lists(peers, lists, "valid"))
    assert figures["hr@10"] == pytest.approx(3 / 4)
    assert figures["ndcg@10"] == pytest.approx((1 + 1 / np.log2(3) + 0 + 1) / 4)
