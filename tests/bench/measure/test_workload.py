"""Requests made of real rows, and the quality of a program over a split."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ondevice.bench.measure.quality import quality, score
from ondevice.bench.measure.runtime import Program
from ondevice.bench.measure.worker import Inputs
from ondevice.bench.measure.workload import make_requests, write_inputs
from ondevice.data.dataset import EncodedSplit
from ondevice.recommender import Recommender

from ..conftest import rows_of

IDS = np.array([[0, 10, 20], [1, 11, 21], [2, 12, 22]], dtype=np.int32)


def test_a_request_has_one_context_and_the_items_of_rows() -> None:
    for request in make_requests(IDS, context_columns=[0, 2], item_columns=[1], candidates=5, count=4):
        assert request.context.shape == (1, 2)
        assert request.items.shape == (5, 1)
        context, items = request.context[0].tolist(), request.items[:, 0].tolist()
        assert context in [[0, 20], [1, 21], [2, 22]]
        assert set(items) <= {10, 11, 12}
        assert request.rows.tolist() == [[context[0], item, context[1]] for item in items]


def test_rows_of_one_side_stay_whole() -> None:
    for request in make_requests(IDS, context_columns=[0, 1, 2], item_columns=[], candidates=6, count=3):
        assert all(row in IDS.tolist() for row in request.rows.tolist())
        assert request.items.shape == (6, 0)


def test_requests_are_the_same_for_the_same_seed() -> None:
    first, again, other = (
        torch.stack([r.rows for r in make_requests(IDS, [0], [1, 2], 9, seed=seed)]) for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_inputs_come_back_as_they_were_written(tmp_path: Path) -> None:
    context, items = torch.tensor([[1, 2]]), torch.tensor([[3], [4]])
    path = tmp_path / "inputs.safetensors"
    write_inputs(path, {("a", "rank", "2"): [(context, items), (context + 1, items + 1)]})
    first, second = Inputs(path).requests("a", "rank", "2")
    assert torch.equal(first[0], context)
    assert torch.equal(second[1], items + 1)
    with pytest.raises(ValueError, match=r"no inputs for a\.forward in group 2"):
        Inputs(path).requests("a", "forward", "2")


@torch.no_grad()
def test_a_split_is_scored_whole_in_batches(dense: Recommender, programs: dict[str, Path]) -> None:
    ids = rows_of(dense, 150)
    seen: list[int] = []
    scores = score(Program(programs["fp32"]), ids.numpy(), max_batch=64, on_batch=seen.append)
    assert seen == [64, 64, 22]
    np.testing.assert_allclose(scores, torch.sigmoid(dense(ids)).numpy(), atol=1e-5)


@torch.no_grad()
def test_a_program_with_rows_of_its_own_gets_them(dense: Recommender, programs: dict[str, Path]) -> None:
    ids = rows_of(dense, 10)
    shifted = ids + 1000
    row_of = torch.arange(-1000, 2000)
    scores = score(Program(programs["fp32"]), shifted.numpy(), max_batch=64, row_of=row_of)
    np.testing.assert_allclose(scores, torch.sigmoid(dense(ids)).numpy(), atol=1e-5)


def test_quality_of_scores_by_hand() -> None:
    result = quality(EncodedSplit(np.zeros((4, 1)), np.array([1, 0, 1, 0])), np.array([0.5, 0.25, 0.75, 0.5]))
    assert result["test_auc"] == 0.875  # three of four pairs in order, one tie
    assert result["test_logloss"] == pytest.approx(-(2 * np.log(0.5) + 2 * np.log(0.75)) / 4)
