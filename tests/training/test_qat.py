"""Linear layers that are rounded in training: to what grid, and that the export stays on it."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import nn

from ondevice.errors import UserError
from ondevice.models import MODELS
from ondevice.models.layers import hidden_linears
from ondevice.training import qat

pytest.importorskip("torchao", reason="layers of 4 and 8 bits are trained with torchao")
from ondevice.program.quantize import rounded


def dnn(bits: int | None = 4) -> nn.Module:
    torch.manual_seed(0)
    model = MODELS["deepfm"](3, 4, hidden=(10, 6), dropout=0.0)
    if bits is not None:
        assert qat.prepare(model, bits) == 2
    return model


@pytest.mark.parametrize("bits", [4, 8])
def test_what_is_trained_is_what_is_kept(bits: int) -> None:
    """After `finish` each row lies on a grid of 2^bits integers, and the function is that of training."""
    model, plain = dnn(bits), dnn(None)
    assert list(model.state_dict()) == list(plain.state_dict())
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    inputs = torch.randn(64, 3, 4)
    for _ in range(5):
        optimizer.zero_grad()
        (model(inputs) - inputs[:, 0, 0]).square().mean().backward()
        optimizer.step()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters() if p.dim() == 2)
    with torch.no_grad():
        trained = model.eval()(inputs)
        qat.finish(model)
        assert [type(m) for m in model.modules()] == [type(m) for m in plain.modules()]
        if bits == 8:  # inputs were rounded to int8 in training, and are not here
            torch.testing.assert_close(model(inputs), trained, atol=0.05, rtol=0.05)
    assert model.linear_bits == bits
    for layer in hidden_linears(model):
        for row in layer.weight.detach():
            assert len(row.unique()) <= 1 << bits
        torch.testing.assert_close(rounded(layer.weight.detach(), bits)[0], layer.weight.detach())


def test_rounding_by_hand() -> None:
    weight = torch.tensor([[7.0, -3.4, 0.6, 0.0], [-8.0, 7.0, 1.0, 2.0], [0.0, 0.0, 0.0, 0.0]])
    assert rounded(weight, 4)[0][1:].tolist() == weight[1:].tolist()
    row = rounded(weight, 4)[0][0]
    assert float((row - weight[0]).square().sum()) <= 0.321  # at scale 1: 7, -3, 1, 0
    assert len((row / row.abs().max() * 7).round().unique()) == 4


def test_rows_are_rounded_alone() -> None:
    torch.manual_seed(0)
    weight = torch.randn(5, 40)
    each = torch.cat([rounded(row[None], 4)[0] for row in weight])
    torch.testing.assert_close(rounded(weight, 4)[0], each)
    torch.testing.assert_close(rounded(weight * 1e-3, 4)[0], each * 1e-3)


def test_nothing_to_round_and_no_torchao_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="no hidden linear layer"):
        qat.prepare(MODELS["fm"](3, 4), 4)
    monkeypatch.setitem(sys.modules, "torchao.quantization", None)
    with pytest.raises(
        UserError, match=r"torchao.* is not installed; pip install 'ondevice-recommender\[export\]'"
    ):
        qat.prepare(MODELS["deepfm"](3, 4), 4)
