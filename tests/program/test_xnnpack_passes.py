"""A program is the same to the last byte when passes that have nothing to change are left out."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from executorch.backends.xnnpack._passes import XNNPACKPassManager
from executorch.backends.xnnpack.partition.graphs import bilinear_2d, sdpa
from torch import Tensor, nn
from torch.export import Dim

from ondevice.program import xnnpack_passes as module
from ondevice.program.endpoints import Endpoint
from ondevice.program.lower import lower


class Joined(nn.Module):
    """A linear layer whose ReLU is fused with it, more parts than are joined at once, a softmax and a copy."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 4)

    def forward(self, ids: Tensor) -> Tensor:
        hidden = torch.relu(self.linear(ids.float()))
        parts = [hidden * number for number in range(1, 7)]
        return torch.cat(parts, 1).softmax(1)


def endpoints() -> dict[str, Endpoint]:
    torch.manual_seed(0)
    example = (torch.ones(2, 3, dtype=torch.int64),)
    return {"forward": Endpoint(Joined().eval(), example, ({0: Dim("batch", min=1, max=8)},), 8, {})}


def test_a_pass_that_is_left_out_would_have_changed_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    transform = XNNPACKPassManager.transform

    def watched(self: XNNPACKPassManager) -> object:
        ran.extend(each.__name__ for each in self.passes)
        return transform(self)

    monkeypatch.setattr(XNNPACKPassManager, "transform", watched)
    fewer = lower(endpoints())
    assert {"ConvertToLinearPass", "FuseActivationPass", "DecomposeConcatenate"} <= {*ran}
    assert len(ran) < 7
    monkeypatch.setattr(module, "needed_passes_alone", nullcontext)
    # what two passes look for takes seconds to make: a picture made larger, and attention with a mask
    monkeypatch.setattr(bilinear_2d, "get_graphs_dict", dict)
    monkeypatch.setattr(sdpa, "get_graphs", list)
    ran.clear()
    assert lower(endpoints()) == fewer
    assert len(ran) > 15


def test_every_pass_is_known_by_its_name() -> None:
    """One that ExecuTorch renames would run again."""
    assert module.LOOKED_FOR.keys() <= {each.__name__ for each in XNNPACKPassManager(None).passes}
