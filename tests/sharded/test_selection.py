"""Order statistics over processes against a plain sort."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ondevice.sharded.selection import kth_smallest
from ondevice.training.processes import ALONE

from ..forked import joined, run_processes

CPU = torch.device("cpu")
floats = st.floats(width=32, allow_nan=False)


@given(st.lists(floats, min_size=1, max_size=60), st.data())
def test_as_sorted(values: list[float], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(values)))
    tensor = torch.tensor(values, dtype=torch.float32)
    in_order = [*tensor.sort().values.tolist(), math.inf]
    parts = tensor.split(7)
    assert kth_smallest(lambda: parts, k, ALONE, CPU) == (in_order[k - 1], in_order[k])


def select(k: int) -> tuple[float, float]:
    processes = joined()
    local = processes.share(values())[0]
    return kth_smallest(lambda: local.split(1000), k, processes, CPU)


def values() -> torch.Tensor:
    torch.manual_seed(1)
    return torch.cat([torch.randn(5000), torch.zeros(700), torch.full((3,), -0.5)])


@pytest.mark.distributed
@pytest.mark.parametrize("k", [1, 2400, 3000, 5702, 5703])
def test_over_three_processes(tmp_path: Path, k: int) -> None:
    in_order = [*values().sort().values.tolist(), math.inf]
    assert run_processes(3, tmp_path, select, k) == [(in_order[k - 1], in_order[k])] * 3
