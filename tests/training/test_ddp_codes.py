"""Processes that share the samples which codes are chosen on."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from ondevice.forms.codes import CodedEmbedding
from ondevice.methods.code_search import CodeSearch, Samples
from ondevice.training.processes import ALONE, Processes

from ..forked import joined, run_processes
from ..world import make_world


def chosen(processes: Processes) -> tuple[Tensor, Tensor, float]:
    """Codes and codebook after a beginning and a sweep, and the loss."""
    world = make_world()
    recommender = world.coded().eval()
    table = recommender.embedding
    assert isinstance(table, CodedEmbedding)
    table.straight_through = False
    search = CodeSearch(recommender, Samples(world.batches(), None, 0), processes)
    torch.manual_seed(0)
    search.begin()
    search.sweep()
    return table.codes.clone(), table.codebook.detach().clone(), search.loss()


def chosen_here() -> tuple[Tensor, Tensor, float]:
    return chosen(joined())


def test_all_processes_choose_the_same_codes_as_good_as_those_of_one(tmp_path: Path) -> None:
    """To the last bit among them; sums in another order may tip a cell that stands between two entries."""
    one = chosen(ALONE)
    first, second = run_processes(2, tmp_path, chosen_here)
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    assert abs(first[2] - one[2]) < 0.002
    assert float((first[0] == one[0]).float().mean()) > 0.9
