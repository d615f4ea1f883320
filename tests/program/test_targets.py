"""The contract of a target: a program computes what its endpoint does, and says what is in it."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ondevice.bench.peers.targets import dense_endpoint, peers
from ondevice.errors import DamagedFile, UserError
from ondevice.program.target import TARGETS, Lowered, Target
from ondevice.program.targets import shipped

ROWS, FIELDS = 4, 3


class Tiny(nn.Module):
    """A lookup and two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(30, 8)
        self.layers = nn.Sequential(nn.Linear(FIELDS * 8, 16), nn.ReLU(), nn.Linear(16, 1))

    def forward(self, ids: Tensor) -> Tensor:
        return torch.sigmoid(self.layers(self.table(ids).flatten(1)).squeeze(1))


@pytest.fixture(scope="module", params=list(TARGETS))
def target(request: pytest.FixtureRequest) -> Target:
    made = TARGETS[request.param]()
    if made.missing():
        pytest.skip(f"{request.param}: {', '.join(made.missing())} not installed")
    return made


@pytest.fixture(scope="module")
def tiny() -> nn.Module:
    torch.manual_seed(0)
    return Tiny().eval()


@pytest.fixture(scope="module")
def lowered(target: Target, tiny: nn.Module) -> Lowered:
    target.load_exporter()
    return target.lower({"forward": dense_endpoint(tiny, FIELDS, ROWS)})


@torch.no_grad()
def test_a_program_scores_as_its_endpoint(target: Target, tiny: nn.Module, lowered: Lowered) -> None:
    program = target.open(lowered.data, "tiny")
    assert list(program.methods) == ["forward"]
    for rows in (ROWS, 1, 7) if target.takes_any_rows else (ROWS,):
        ids = torch.randint(30, (rows, FIELDS))
        (scores,) = program("forward", ids.numpy())
        np.testing.assert_allclose(scores, tiny(ids).numpy(), atol=1e-6)
    with pytest.raises(UserError):
        program("rank", np.zeros((ROWS, FIELDS), np.int64))


def test_a_program_says_what_is_in_it(target: Target, lowered: Lowered) -> None:
    inside = target.inspect(lowered.data, "tiny")
    assert sum(inside.parts.values()) == inside.num_bytes == len(lowered.data)
    assert (inside.ops, inside.backends) == (lowered.ops, lowered.backends)
    assert inside.ops
    assert inside.methods == ["forward"]
    assert [each.num_bytes for each in inside.constants if each.shape == (30, 8)] == [4 * 30 * 8]
    with pytest.raises(DamagedFile, match="broken"):
        target.inspect(b"no program of any kind", "broken")


def test_reading_a_bundle_imports_nothing_of_what_makes_one() -> None:
    """A service that runs bundles starts in a second, in 40 MB, and loads PyTorch with the first call alone."""
    code = (
        "import sys, ondevice.program.bundle; print([m for m in ('torch', 'executorch') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_one_target_ships_and_others_are_peers() -> None:
    assert set(TARGETS) == {"executorch", *peers()}
    assert type(shipped()) is TARGETS["executorch"]
