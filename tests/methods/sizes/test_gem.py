"""GEM: the graph by hand, the baked table against the live one, and what an edgeless graph is."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ondevice.forms.table import TableInfo
from ondevice.methods.sizes.gem import GEM, Graph
from ondevice.models.fm import FM
from ondevice.recommender import Recommender
from ondevice.run.directory import Run

from ...runs import Make, run

ROWS = torch.tensor([[1, 3], [1, 4], [1, 4], [2, 4], [0, 3], [1, 3], [1, 3]])
"""Two fields of 3 and 2 ids, whose unknown ids are 0 and 3."""
INFO = TableInfo(torch.tensor([0, 3, 5]), torch.tensor([1, 5, 1, 4, 3]))


def test_a_graph_by_hand() -> None:
    """1 and 4 share two samples; 3 is the second field's unknown id, and 0 the first's: they have no edge."""
    matrix = Graph.of([ROWS[:4], ROWS[4:]], INFO, 20).matrix.to_dense()
    counts = torch.tensor(
        [[1.0, 0, 0, 0, 0], [0, 5, 0, 0, 2], [0, 0, 1, 0, 1], [0, 0, 0, 4, 0], [0, 2, 1, 0, 3]]
    )
    degrees = counts.sum(1)
    torch.testing.assert_close(matrix, counts / (degrees[:, None] * degrees).sqrt())


def test_the_nearest_neighbours_stay_and_edges_go_both_ways() -> None:
    """Of 4 the nearest is 1; 2 has no other than 4, which keeps that edge."""
    info = TableInfo(torch.tensor([0, 4, 6]), torch.tensor([0, 5, 1, 2, 0, 8]))
    rows = torch.tensor([[1, 5]] * 5 + [[2, 5]] + [[3, 5]] * 2)
    matrix = Graph.of([rows], info, 1).matrix.to_dense()
    assert (matrix[5, 1:4] > 0).tolist() == [True, True, True]
    assert torch.equal(matrix, matrix.T)


@pytest.mark.parametrize("relu", [True, False])
def test_a_baked_table_is_the_live_one(relu: bool) -> None:
    gem = GEM(INFO, 4, init_std=0.5, num_layers=2, relu=relu)
    gem.convolve(Graph.of([ROWS], INFO, 20))
    assert gem.propagation is not None
    for weight in gem.propagation.weights:
        torch.nn.init.normal_(weight)
    with torch.no_grad():
        live = gem(ROWS)
        gem.bake()
        torch.testing.assert_close(gem(ROWS), live)
    assert gem.propagation is None
    assert gem.num_kept() == INFO.num_embeddings * 4


def test_every_weight_of_the_convolution_gets_a_gradient() -> None:
    gem = GEM(INFO, 4, init_std=0.5)
    gem.convolve(Graph.of([ROWS], INFO, 20))
    Recommender(gem, None, FM(2, 4))(ROWS).square().sum().backward()
    for name, parameter in gem.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.any()), name


def test_without_edges_and_relu_it_is_an_fm() -> None:
    gem = GEM(INFO, 4, init_std=0.5, num_layers=3, relu=False)
    model = Recommender(gem, None, FM(2, 4))
    expected = model(ROWS)
    nothing = torch.zeros(2, 0, dtype=torch.int64)
    gem.convolve(Graph(nothing, torch.zeros(0), INFO.counts))
    torch.testing.assert_close(model(ROWS), expected)


def test_a_run_begins_with_the_baked_table(tiny_config: Make, tmp_path: Path) -> None:
    values = tiny_config(
        compact={"budgets": ["50%"], "sizes": {"name": "gem"}, "train": {"epochs": 1}},
    )
    values["model"] = {"name": "fm"}
    metrics = run(values, tmp_path / "run")
    assert len(metrics["history"]["search"]) == 2
    (label,) = metrics["budgets"]
    assert 0.5 < metrics["budgets"][label]["test_auc"] <= 1
    model = Run(tmp_path / "run").compact(label)
    assert model.embedding.num_kept() > 0
