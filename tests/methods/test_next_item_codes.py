"""Codes of items: slopes and curvatures against PyTorch's own, and sweeps that lower the loss."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ondevice import next_item
from ondevice.forms.codes import Codes
from ondevice.forms.sizes import Sizes
from ondevice.forms.table import TableInfo
from ondevice.methods.next_item_codes import (
    NextItemCodeSearch,
    WindowSamples,
    item_gains,
    mean_loss,
    measure_items,
)
from ondevice.next_item import NextItemRecommender
from ondevice.training.windows import Log, Windows

ITEMS, LAST = 300, 6
SEEN = (torch.arange(ITEMS + 1) > 0).long()


@pytest.fixture(scope="module")
def samples() -> WindowSamples:
    draws = np.random.default_rng(0)
    items = np.concatenate([1 + draws.permutation(ITEMS)[:12] for _ in range(60)])
    log = Log(items, np.arange(61) * 12, np.zeros(720, dtype=np.uint8), ITEMS)
    return WindowSamples(Windows(log, LAST, 2, 16, torch.device("cpu")), None, 0)


def recommender(codes: bool) -> NextItemRecommender:
    torch.manual_seed(0)
    form = Codes(SEEN * 8, 4, 2) if codes else Sizes(SEEN * 4, 4)
    info = TableInfo(torch.tensor([0, ITEMS + 1]), SEEN * 3)
    options = {"last": LAST, "width": 5}
    made = next_item.rebuild(info, [form], model="decayed_pooling", model_options=options, init_std=0.7)
    return made.eval()


def plain_loss(made: NextItemRecommender, table: Tensor, samples: WindowSamples) -> Tensor:
    total = torch.zeros(())
    for histories, targets, _ in samples:
        present = histories != 0
        users = made.model(F.embedding(histories, table), present)[present]
        total = total + F.cross_entropy(users @ table[1:].T, targets, reduction="sum")
    return total / len(samples)


def test_the_slope_is_that_of_the_loss(samples: WindowSamples) -> None:
    made = recommender(codes=False)
    table = made.rows().detach().requires_grad_()
    loss = plain_loss(made, table, samples)
    (expected,) = torch.autograd.grad(loss, table)
    _, slope = measure_items(made, samples, torch.Generator().manual_seed(0), torch.float32)
    assert mean_loss(made, samples, torch.float32) == pytest.approx(float(loss.detach()), rel=1e-5)
    torch.testing.assert_close(slope[1:], expected[1:], rtol=1e-3, atol=1e-6)


def test_the_curvature_is_a_matrix_that_bounds_the_ranked_items(samples: WindowSamples) -> None:
    """Of rows that no history holds it is Σ q·u·uᵀ, which is above the Hessian Σ q·(1 − q)·u·uᵀ."""
    made = recommender(codes=False)
    curvature, _ = measure_items(made, samples, torch.Generator().manual_seed(0), torch.float32)
    torch.testing.assert_close(curvature, curvature.mT)
    read = torch.cat([histories.flatten() for histories, _, _ in samples]).unique()
    unread = [item for item in range(1, ITEMS + 1) if item not in set(read.tolist())]
    expected = torch.zeros(4, 4)
    item = unread[0] if unread else 1
    for histories, _, _ in samples:
        users = made.user_vectors(histories)[histories != 0]
        q = torch.softmax(users @ made.rows()[1:].T, 1)[:, item - 1]
        expected += (users * q[:, None]).T @ users / len(samples)
    beyond = curvature[item] - expected.detach()
    assert float(torch.linalg.eigvalsh(beyond).min()) > -1e-6
    if unread:
        torch.testing.assert_close(curvature[item], expected.detach())


def test_a_sweep_lowers_the_loss_and_never_raises_it(samples: WindowSamples) -> None:
    made = recommender(codes=True)
    search = NextItemCodeSearch(made, samples, 0)
    free = mean_loss(made, samples)
    search.begin()
    assert made.embedding.is_final
    first = search.loss()
    for _ in range(3):
        before = search.loss()
        search.sweep()
        assert search.loss() <= before
    assert search.loss() <= first
    assert search.loss() < free + 0.2


def test_gains_of_codes_and_of_dimensions(samples: WindowSamples) -> None:
    gains = NextItemCodeSearch(recommender(codes=True), samples, 0).gains()
    assert gains.shape == (ITEMS + 1, 8)
    assert float(gains.min()) >= 0
    assert not gains[0].any()
    saliency = item_gains(recommender(codes=False), samples, 3, 0)
    assert saliency.shape == (ITEMS + 1, 3)
    assert float(saliency[1:].sum(0)[0]) > float(saliency[1:].sum(0)[2])
