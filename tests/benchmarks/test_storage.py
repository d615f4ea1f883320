"""What else a compact model could be stored as: bytes and roundings by hand, and the script on real runs."""

from __future__ import annotations

import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import ondevice
from benchmarks.storage import layer_rows, rounded_by_group
from ondevice.forms.sizes import Sizes
from ondevice.models import MODELS


def test_values_on_grids_of_their_group_by_hand() -> None:
    values = torch.tensor([[7.0, -3.4, 0.0], [0.7, 0.14, 9.0]])
    kept = torch.tensor([[True, True, False], [True, True, False]])
    by_row = torch.tensor([[0, 0, 0], [1, 1, 1]])
    rounded, scales = rounded_by_group(values, kept, by_row, 4)  # 15 integers: steps of 1 and of 0.1
    assert scales == 2
    torch.testing.assert_close(rounded, torch.tensor([[7.0, -3.0, 0.0], [0.7, 0.1, 0.0]]))
    together, scales = rounded_by_group(values, kept, torch.zeros_like(by_row), 4)
    assert scales == 1
    torch.testing.assert_close(together, torch.tensor([[7.0, -3.0, 0.0], [1.0, 0.0, 0.0]]))


def test_a_scale_with_less_error_may_clip() -> None:
    values = torch.cat([torch.full((1, 999), 0.9), torch.ones(1, 1)], 1)
    rounded, _ = rounded_by_group(values, torch.ones_like(values).bool(), torch.zeros(1, 1000).long(), 2)
    assert float((rounded - values).square().sum()) == pytest.approx(0.01, abs=1e-4)  # 0.9 exactly, 1 to 0.9


def test_bytes_of_layers_by_hand() -> None:
    """Two fields of four dimensions, of which the second field's rows keep two."""
    model = MODELS["deepfm"](2, 4, hidden=(6,), dropout=0.0)
    form = Sizes(torch.tensor([0, 4, 0, 2]), 4)
    rows = layer_rows(model, form, torch.tensor([0, 2, 4]), 32)
    by_name = {row["what"]: (row["columns"], row["bytes"]) for row in rows}
    assert len(by_name) == 9
    # six outputs: their inputs, a scale and a bias each; then one output of six int8 weights, its scale and bias
    last = 6 + 4 + 4
    assert by_name["8 bits, columns of all dimensions of the dense tables"] == (64, 6 * (64 + 8) + last)
    assert by_name["4 bits, columns of dimensions that some row keeps"] == (8, 6 * (4 + 8) + last)
    assert by_name["32 bits, columns of dimensions that some row keeps"] == (8, 6 * (8 * 4 + 4) + 6 * 4 + 4)


def test_the_script_compares_a_run(
    book_crossing_folder: Path,
    tiny_config: Callable[..., dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def run(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["benchmarks/storage.py", *arguments])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "storage.py"), run_name="__main__")
        return int(str(ended.value.code))

    config = tiny_config(
        data={"name": "book_crossing", "folder": str(book_crossing_folder)},
        compact={
            "sizes": {"name": "frequency"},
            "budgets": [150],
            "store": {"max_size": 4, "first_order": "none"},
            "train": {"epochs": 1},
        },
    )
    trained = ondevice.train(config, tmp_path / "run")
    assert run(str(trained.path), "--json", str(tmp_path / "rows.json")) == 0
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert list(rows) == ["scales", "columns", "layers", "keys"]
    printed = capsys.readouterr().out
    for part in rows.values():
        assert all(f"| {row['what']} |" in printed for row in part)
    valid = trained.metrics["budgets"]["150"]["valid_auc"]
    exact = [
        row
        for part in ("scales", "keys")
        for row in rows[part]
        if row["what"].startswith(("float", "a sorted"))
    ]
    assert [row["valid_auc"] for row in exact] == pytest.approx([valid] * 3)
    values = trained.compact("150").embedding.num_kept()
    assert rows["scales"][0]["bytes"] == 4 * values
    assert rows["scales"][1]["bytes"] == values + 4
    (shipped,) = [row for row in rows["columns"] if "ships" in row["what"]]
    assert shipped["bytes"] <= min(row["bytes"] for row in rows["columns"])
    assert len({row["keys"] for row in rows["keys"]}) == 1
    assert run(str(trained.path), "--label", "999") == 2
    assert "no compact model '999'; there are: 150" in capsys.readouterr().err
