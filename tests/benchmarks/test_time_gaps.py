"""Gaps between interactions: their buckets by hand, and a model that reads them beside its items."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.time_gaps import WithGaps, buckets, main
from ondevice import next_item
from ondevice.config.file import load
from ondevice.forms.table import table_info
from ondevice.run.next_item import NextItemPipeline

CONFIG = Path(__file__).resolve().parents[2] / "train" / "configs" / "movielens_1m_next_item_sasrec.yaml"


def test_buckets_by_hand() -> None:
    """0 s is bucket 1, 1 and 2 s bucket 2, 3 s bucket 3; what is of another user has none."""
    seconds, offsets = np.array([5, 5, 6, 9, 2, 4]), np.array([0, 4, 6])
    assert buckets(seconds, offsets, "until").tolist() == [1, 2, 3, 0, 2, 0]
    assert buckets(seconds, offsets, "since").tolist() == [0, 1, 2, 3, 0, 2]


def test_a_gap_is_read_and_ranked_items_have_none() -> None:
    torch.manual_seed(0)
    plain = next_item.build(
        table_info([0, 5], [0, 1, 1, 1, 1]), model="two_tower", model_options={"last": 3}, dim=4
    )
    model = WithGaps(plain.eval())
    items, joined = torch.tensor([[0, 2, 3]]), torch.tensor([[0, 2 + 5 * 1, 3 + 5 * 4]])
    vectors = model.rows()
    assert model.present(joined).tolist() == [[False, True, True]]
    assert torch.equal(model(joined), model(items))  # drawn as zeros
    with torch.no_grad():
        model.gaps.weight[4] = 1
    assert not torch.equal(model(joined), model(items))
    assert torch.equal(model.rows(), vectors)
    assert any(parameter is model.gaps.weight for parameter in model.model.parameters())


def test_a_run_is_trained_again_with_gaps(
    movielens_folder: Path, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = ("embedding.dim=4", "train.epochs=1", "run.progress=false", "model.last=6")
    config = load(CONFIG, [f"data.folder={movielens_folder}", *small])
    NextItemPipeline(config, tmp_path / "run").run()
    arguments = ["time_gaps.py", str(tmp_path / "run"), "--json", str(tmp_path / "out.json")]
    monkeypatch.setattr(sys, "argv", arguments)
    main()
    models = json.loads((tmp_path / "out.json").read_text())["models"]
    assert list(models) == ["none", "until", "since"]
    assert all(0 <= entry[split]["ndcg@10"] <= 1 for entry in models.values() for split in ("valid", "test"))
