"""The moving average of weights, by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ondevice.training.average import WeightAverage


class OneWeight(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([1.0]))
        self.register_buffer("statistic", torch.tensor([10.0]))
        self.register_buffer("count", torch.tensor(0))


def set_to(module: OneWeight, value: float) -> None:
    """As an optimizer and a batch norm do: in place."""
    with torch.no_grad():
        module.weight.fill_(value)
        module.statistic.fill_(10 * value)


def test_the_average_by_hand() -> None:
    """d = min(0.15, (1 + n) / (10 + n)): 1/10, then 0.15. From 1: to 2 → 1.9, to 4 → 0.15·1.9 + 0.85·4."""
    module = OneWeight()
    average = WeightAverage(module, decay=0.15, every=1)
    set_to(module, 2.0)
    average.after_step(1)
    assert average.average[0].item() == pytest.approx(1.9)
    set_to(module, 4.0)
    average.after_step(2)
    assert average.average[0].item() == pytest.approx(3.685)
    assert average.average[1].item() == pytest.approx(36.85)  # batch norm's statistics as well


def test_steps_between_updates_do_not_count() -> None:
    module = OneWeight()
    average = WeightAverage(module, decay=0.9, every=2)
    set_to(module, 5.0)
    average.after_step(1)
    assert average.average[0].item() == 1.0
    assert average.updates == 0
    average.after_step(2)
    assert average.average[0].item() == pytest.approx(4.6)
    assert average.updates == 1


def test_applied_lends_the_average_and_takes_it_back() -> None:
    module = OneWeight()
    average = WeightAverage(module, decay=0.9, every=1)
    set_to(module, 5.0)
    average.after_step(1)
    with average.applied():
        assert module.weight.item() == pytest.approx(4.6)
        assert module.statistic.item() == pytest.approx(46.0)
    assert (module.weight.item(), module.statistic.item()) == (5.0, 50.0)
    with pytest.raises(RuntimeError, match="inside"), average.applied():
        raise RuntimeError("inside")
    assert (module.weight.item(), module.statistic.item()) == (5.0, 50.0)


def test_loaded_weights_are_followed() -> None:
    """A resume loads weights into the module after the average was made."""
    module, other = OneWeight(), OneWeight()
    average = WeightAverage(module, decay=0.9, every=1)
    set_to(other, 5.0)
    module.load_state_dict(other.state_dict())
    average.after_step(1)
    assert average.average[0].item() == pytest.approx(4.6)
