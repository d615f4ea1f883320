"""int8: ranges and scales by hand, how near the logits stay, and that nothing passes unchanged."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from ondevice.data import Dataset
from ondevice.errors import UserError
from ondevice.forms.packed import FirstOrderTable
from ondevice.models import MODELS
from ondevice.models.layers import hidden_linears
from ondevice.program import quantize as module
from ondevice.program.pack import LAYOUTS, pack
from ondevice.program.quantize import quantize, quantize_linears, quantized_values, rounded, sqnr_db

from . import shop


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("model", MODELS)
def test_logits_stay_near(model: str, layout: str, data: Dataset) -> None:
    packed = pack(shop.recommender(model, layout, data), layout)
    quantized = quantize(packed)
    rows = packed.order.rows(shop.all_ids(data))
    with torch.no_grad():
        assert sqnr_db(packed(rows), quantized(rows)) > 30
    for table, before in zip(quantized.tables(), packed.tables(), strict=True):
        assert table.values.dtype == torch.int8
        assert table.values.shape == before.values.shape
        assert before.values.dtype == torch.float32  # the original is left alone
        assert int(table.values.abs().max()) == 127
        assert not table.values[before.values == 0].any()  # zeros stay zeros
    declared = sum(table.stored_bytes() for table in quantized.tables())
    assert declared < sum(table.stored_bytes() for table in packed.tables()) / 1.9


def test_one_scale_by_hand() -> None:
    table = FirstOrderTable(torch.tensor([127.0, -12.4, 0.6]))
    values, scale = quantized_values(table)
    assert values.flatten().tolist() == [127, -12, 1, 0]
    assert scale.tolist() == [1.0]


def test_clipping_is_used_where_it_lowers_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    spread = torch.linspace(-1, 1, 20_000)
    table = FirstOrderTable(torch.cat([spread, torch.tensor([1.25])]))
    values, scale = quantized_values(table)
    clipped = float((values.flatten()[:-1] * scale - table.values.flatten()[:-1]).square().sum())
    assert float(scale) < 1.25 / 127
    monkeypatch.setattr(module, "CLIPPINGS", (1.0,))
    values, scale = quantized_values(table)
    assert float(scale) == pytest.approx(1.25 / 127)
    assert clipped < float((values.flatten()[:-1] * scale - table.values.flatten()[:-1]).square().sum())


def test_every_linear_is_quantized_and_counted(data: Dataset) -> None:
    packed = pack(shop.recommender("autoint", "staircase", data))
    linears = [m for m in packed.modules() if isinstance(m, nn.Linear)]
    assert quantize_linears(packed) == len(linears) == 7
    for linear in linears:
        assert any(value.dtype == torch.int8 for value in linear.state_dict().values())


def test_asking_twice_raises(data: Dataset) -> None:
    packed = pack(shop.recommender("deepfm", "staircase", data))
    once = quantize(packed)
    with pytest.raises(UserError, match="changed 0 tables"):
        quantize(once)
    with pytest.raises(UserError, match=r"unknown quantization 'int9' \(did you mean 'int8'"):
        quantize(packed, "int9")
    assert quantize(packed, "none").table.values.dtype == torch.float32


def test_sqnr_by_hand() -> None:
    reference = torch.tensor([3.0, 4.0])
    assert sqnr_db(reference, torch.tensor([3.0, 4.5])) == pytest.approx(20.0)
    assert sqnr_db(reference, reference) == math.inf


@pytest.mark.parametrize("model", [name for name in MODELS if name != "fm"])
def test_four_bits_a_weight(model: str, data: Dataset) -> None:
    """Hidden layers that lie on a grid of 16 values are stored so, in half the bytes, and score the same."""
    recommender = shop.recommender(model, "staircase", data)
    recommender.model.linear_bits = 4
    for linear in hidden_linears(recommender.model):
        linear.weight.data, _ = rounded(linear.weight.data, 4)
    packed = pack(recommender)
    quantized = quantize(packed)
    rows = packed.order.rows(shop.all_ids(data))
    with torch.no_grad():
        assert sqnr_db(packed(rows), quantized(rows)) > 30
    for linear in hidden_linears(quantized.model):
        integers = linear.weight.dequantize() if hasattr(linear.weight, "dequantize") else linear.weight
        assert len(integers[0].unique()) <= 16


@pytest.mark.parametrize("ends", [(-8, 7), (-7, 4), (-8, 3), (-5, 7), (-7, 7)])
def test_layers_that_training_rounded_stay_as_they_are(data: Dataset, ends: tuple[int, int]) -> None:
    """Rows whose lowest is -7 and whose highest is below 7 were put on another grid, 9 % from what was trained."""
    recommender = shop.recommender("deepfm", "staircase", data)
    recommender.model.linear_bits = 4
    generator = torch.Generator().manual_seed(0)
    for linear in hidden_linears(recommender.model):
        integers = torch.randint(ends[0], ends[1] + 1, linear.weight.shape, generator=generator)
        integers[:, 0], integers[:, 1] = ends[0], ends[1]
        linear.weight.data = integers * torch.rand(len(integers), 1, generator=generator)
    packed = pack(recommender)
    quantized = quantize(packed)
    for before, after in zip(hidden_linears(packed.model), hidden_linears(quantized.model), strict=True):
        stored = after.weight.dequantize() if hasattr(after.weight, "dequantize") else after.weight
        torch.testing.assert_close(stored, before.weight.detach(), rtol=1e-6, atol=0)


def test_a_row_of_zeros_has_a_scale_that_a_program_takes() -> None:
    """XNNPACK refuses scales that are no normal numbers; a dead unit is a row of zeros."""
    weight = torch.tensor([[0.0, 0.0], [0.5, -1.0], [1e-38, 0.0]])
    values, scale = rounded(weight, 4)
    assert bool((scale >= torch.finfo(torch.float32).tiny).all())
    torch.testing.assert_close(values, torch.tensor([[0.0, 0.0], [0.5, -1.0], [0.0, 0.0]]), rtol=0.1, atol=0)
