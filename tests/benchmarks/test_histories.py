"""benchmarks/histories.py: the dense models of several runs beside each other, of the same data alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.histories import collected
from ondevice.config.file import load
from ondevice.errors import UserError
from ondevice.run.directory import Run

CONFIG = Path(__file__).resolve().parents[2] / "train" / "configs" / "movielens_1m_din.yaml"
RANKED = {"contexts": 5, "hr@10": 0.2, "ndcg@10": 0.1, "mrr": 0.05, "coverage@10": 0.5}


def run_of(folder: Path, model: str, fingerprint: str = "a", ranking: dict[str, Any] | None = RANKED) -> Run:
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump(load(CONFIG).to_dict()))
    (folder / "fingerprint").write_text(fingerprint)
    dense = {"parameters": 9, "epochs": 2, "seconds": 1.5, "valid_auc": 0.75, "test_auc": 0.7}
    dense |= {} if ranking is None else {"ranking": ranking}
    (folder / "metrics.json").write_text(
        json.dumps({"model": model, "seed": 0, "rows": {"train": 8}, "dense": dense})
    )
    return Run(folder)


def test_each_run_is_its_models_row(tmp_path: Path) -> None:
    content = collected([run_of(tmp_path / "a", "fm"), run_of(tmp_path / "b", "din")])
    assert list(content["models"]) == ["fm", "din"]
    assert content["models"]["din"] == {
        "parameters": 9,
        "epochs": 2,
        "seconds": 1.5,
        "valid_auc": 0.75,
        "test_auc": 0.7,
        "hr@10": 0.2,
        "ndcg@10": 0.1,
        "mrr": 0.05,
        "coverage@10": 0.5,
    }
    assert content["contexts"] == 5


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"model": "din", "fingerprint": "b"}, "other data, another split or seed than"),
        ({"model": "fm"}, "a second run of fm"),
        ({"model": "din", "ranking": None}, r"not ranked; continue it with --resume run\.rank=true"),
    ],
)
def test_what_cannot_stand_beside_another(tmp_path: Path, other: dict[str, Any], message: str) -> None:
    runs = [run_of(tmp_path / "a", "fm"), run_of(tmp_path / "b", **other)]
    with pytest.raises(UserError, match=message):
        collected(runs)
