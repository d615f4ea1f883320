"""The phases of a run: what each begins with, what it may read, and what it leaves behind."""

from __future__ import annotations

import dataclasses
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ondevice.config.file import from_dict
from ondevice.data import Dataset, EncodedSplit, load_dataset
from ondevice.errors import UserError
from ondevice.methods.search import Search, SearchResult
from ondevice.run import prepared as prepared_run
from ondevice.run.directory import Run
from ondevice.run.pipeline import Pipeline
from ondevice.training import batches as batches_module
from ondevice.training.batches import Batches
from ondevice.training.fit import Fit, FitResult, evaluate

from ..runs import Make, lasting, run


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, Tensor]]:
    """The weights that each phase starts from, and those the search ends with, as they come."""
    actual: dict[str, dict[str, Tensor]] = {}

    def copy(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: value.clone() for name, value in tensors.items()}

    fit, search = Fit.run, Search.run

    def fit_run(self: Fit) -> FitResult:
        actual[self.phase] = copy(self.recommender.state_dict())
        return fit(self)

    def search_run(self: Search) -> SearchResult:
        actual["search"] = copy(self.recommender.state_dict())
        result = search(self)
        actual["searched"] = copy(self.recommender.state_dict())
        return result

    monkeypatch.setattr(Fit, "run", fit_run)
    monkeypatch.setattr(Search, "run", search_run)
    return actual


def test_retraining_starts_from_the_weights_saved_before_the_search(
    tiny_config: Make, tmp_path: Path, starts: dict[str, dict[str, Tensor]]
) -> None:
    """The lottery ticket: initial.safetensors under the sizes, and not what the search made of it."""
    run(tiny_config(), tmp_path / "run")
    initial = load_file(tmp_path / "run" / "initial.safetensors")
    for name, value in starts["search"].items():
        assert torch.equal(value, initial[name]), name
    start = starts["retrain-50pct"]
    keep = start["embedding.keep"]
    width = keep.shape[1]
    assert 0 < int(keep.sum()) < keep.numel()
    assert torch.equal(start["embedding.weight"], initial["embedding.weight"][:, :width] * keep)
    assert not torch.equal(
        start["embedding.weight"], starts["searched"]["embedding.weight"][:, :width] * keep
    )
    assert torch.equal(start["first_order.weight"], initial["first_order.weight"] * start["first_order.keep"])
    columns = initial["model.dnn.layers.0.weight"].reshape(8, 3, 4)[:, :, :width].reshape(8, 3 * width)
    assert torch.equal(start["model.dnn.layers.0.weight"], columns)
    assert not torch.equal(
        initial["model.dnn.layers.0.weight"], starts["searched"]["model.dnn.layers.0.weight"]
    )


def test_the_saved_file_is_what_retraining_starts_from(
    tiny_config: Make, tmp_path: Path, starts: dict[str, dict[str, Tensor]]
) -> None:
    """Not weights drawn again from the same seed: the file may come from another release of PyTorch."""
    pipeline = Pipeline(from_dict(tiny_config(compact={"budgets": [100]})), tmp_path / "run")
    dense = pipeline.dense()
    forms = pipeline.search(dense, [100])
    path = tmp_path / "run" / "initial.safetensors"
    save_file({name: value * 2 for name, value in load_file(path).items()}, path)
    pipeline.retrain(100, forms[100], 100, dense)
    start = starts["retrain-100"]
    doubled = load_file(path)["embedding.weight"][:, : start["embedding.keep"].shape[1]]
    assert torch.equal(start["embedding.weight"], doubled * start["embedding.keep"])


def test_the_dense_model_is_the_trained_one_also_after_a_resume(tiny_config: Make, tmp_path: Path) -> None:
    config = from_dict(tiny_config())
    dense = Pipeline(config, tmp_path / "run").dense()
    saved = load_file(tmp_path / "run" / "dense" / "model.safetensors")["embedding.weight"]
    again = Pipeline(config, tmp_path / "run", resume=True).dense()
    for model in (dense, again):
        assert torch.equal(model.embedding.weight, saved)
        assert not model.training


def test_a_fresh_start_takes_other_weights(
    tiny_config: Make, tmp_path: Path, starts: dict[str, dict[str, Tensor]]
) -> None:
    run(tiny_config(research={"start": "fresh"}, compact={"budgets": ["50%"]}), tmp_path / "run")
    initial = load_file(tmp_path / "run" / "initial.safetensors")
    start = starts["retrain-50pct"]
    width = start["embedding.keep"].shape[1]
    ticket = initial["embedding.weight"][:, :width] * start["embedding.keep"]
    assert not torch.equal(start["embedding.weight"], ticket)


def test_a_warm_start_takes_the_dense_models_weights(
    tiny_config: Make, tmp_path: Path, starts: dict[str, dict[str, Tensor]]
) -> None:
    narrow, warm = {"model": {"hidden": [12]}}, {"start": "dense"}
    run(tiny_config(compact={**narrow, "budgets": ["50%"]}, research=warm), tmp_path / "run")
    dense = load_file(tmp_path / "run" / "dense" / "model.safetensors")
    start = starts["retrain-50pct"]
    width = start["embedding.keep"].shape[1]
    assert torch.equal(
        start["embedding.weight"], dense["embedding.weight"][:, :width] * start["embedding.keep"]
    )
    assert torch.equal(start["bias"], dense["bias"])


def test_a_run_leaves_all_that_export_needs(tiny_config: Make, tmp_path: Path) -> None:
    metrics = run(tiny_config(), tmp_path / "run")
    opened = Run(tmp_path / "run")
    assert opened.metrics == json.loads(json.dumps(metrics))
    assert {"dataset", "model", "method", "seed", "rows", "dense", "compact", "search"} <= set(metrics)
    assert metrics["rows"] == {"train": 1600, "valid": 200, "test": 200}
    full = opened.dense().num_values()
    assert opened.dense().num_kept() == full == 5 * (41 + 6 + 31)
    assert opened.budgets() == ["50pct", "100"]
    for label, target in (("50pct", full // 2), ("100", 100)):
        entry, model = metrics["budgets"][label], opened.compact(label)
        assert 0 < entry["kept_parameters"] == model.num_kept() <= target
        assert entry["sparsity"] == 1 - model.num_kept() / full
        for key in ("test_auc", "test_logloss", "valid_auc", "seconds", "epochs"):
            assert key in entry
    assert metrics["compact"] == metrics["budgets"]["50pct"]
    assert metrics["dense"]["parameters"] > full
    assert opened.config == from_dict(tiny_config())
    assert opened.schema.names == ("user", "age", "item")
    assert opened.dataset().vocabulary == opened.vocabulary
    assert not (tmp_path / "run" / "checkpoints").exists()
    assert list((tmp_path / "run" / "events").glob("events*"))
    assert [path for path in (tmp_path / "run").rglob(".*") if path.is_file()] == []


def test_the_numbers_are_those_of_the_saved_models(tiny_config: Make, tmp_path: Path) -> None:
    metrics = run(tiny_config(compact={"budgets": ["50%"]}), tmp_path / "run")
    opened = Run(tmp_path / "run")
    for model, entry in ((opened.dense(), metrics["dense"]), (opened.compact("50pct"), metrics["compact"])):
        for split in ("valid", "test"):
            batches = Batches(getattr(opened.dataset(), split), 64, torch.device("cpu"))
            assert evaluate(model, batches)["auc"] == pytest.approx(entry[f"{split}_auc"], abs=1e-9)


def with_splits(dataset: Dataset, **splits: EncodedSplit) -> Dataset:
    return dataclasses.replace(dataset, **splits)


def test_the_test_split_decides_nothing(
    tiny_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With all its labels turned around only the figures that are named test change."""
    expected = run(tiny_config(), tmp_path / "as it is")
    dataset = load_dataset(**tiny_config()["data"])
    turned = EncodedSplit(dataset.test.ids, 1 - np.asarray(dataset.test.labels))
    monkeypatch.setattr(prepared_run, "load_dataset", lambda *_, **__: with_splits(dataset, test=turned))
    got = run(tiny_config(), tmp_path / "turned")
    assert got["history"] == expected["history"]
    for label, entry in got["budgets"].items():
        assert entry["test_auc"] == pytest.approx(1 - expected["budgets"][label]["test_auc"])
    for part in ("dense", "budgets/50pct", "budgets/100"):
        weights = [load_file(tmp_path / name / part / "model.safetensors") for name in ("as it is", "turned")]
        assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


class UnreadSplit:
    """A split that may not be read, but for whether both classes are in it."""

    labels = np.array([0, 1] * 100, dtype=np.uint8)

    def __len__(self) -> int:
        return 200

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"test.{name} was read")


def test_the_test_split_is_not_read_while_anything_trains(
    tiny_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = with_splits(load_dataset(**tiny_config()["data"]), test=UnreadSplit())  # type: ignore[arg-type]
    monkeypatch.setattr(prepared_run, "load_dataset", lambda *_, **__: dataset)
    pipeline = Pipeline(from_dict(tiny_config()), tmp_path / "run")
    with pytest.raises(AssertionError, match=r"test\.ids was read"):
        pipeline.dense()
    saved = torch.load(tmp_path / "run" / "checkpoints" / "dense.pt", weights_only=True)
    assert saved["epoch"] == 2  # all of the training was done by then
    dense = pipeline._fresh("uniform", {}, None)
    assert set(pipeline.search(dense, [195, 100])) == {195, 100}


def test_a_seed_decides_everything(tiny_config: Make, tmp_path: Path) -> None:
    one = run(tiny_config(compact={"budgets": [100]}), tmp_path / "one")
    torch.rand(100)
    again = run(tiny_config(compact={"budgets": [100]}), tmp_path / "again")
    other = run(tiny_config(compact={"budgets": [100]}, run={"seed": 1}), tmp_path / "other")
    assert lasting(one) == lasting(again)
    assert lasting(one)["dense"] != lasting(other)["dense"]


def test_a_teacher_can_be_another_run(tiny_config: Make, tmp_path: Path) -> None:
    run(tiny_config(compact={"budgets": [100]}), tmp_path / "first")
    taught = {"teachers": ["dense", str(tmp_path / "first")]}
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # another run's model knows no counts of its own
        metrics = run(tiny_config(compact={"budgets": [100], "teach": taught}), tmp_path / "second")
    alone = json.loads((tmp_path / "first" / "metrics.json").read_text())
    assert metrics["dense"]["test_auc"] == alone["dense"]["test_auc"]
    assert metrics["compact"]["test_logloss"] != alone["compact"]["test_logloss"]


def test_a_further_teacher_of_another_run(tiny_config: Make, tmp_path: Path) -> None:
    """Of another base model, too; one that is not there is told before anything trains."""
    given = {"budgets": [100], "teach": {"teachers": ["dense", "dense+1"]}}
    run(tiny_config(model={"name": "fm"}, compact=given), tmp_path / "fm")
    one, other = str(tmp_path / "fm" / "dense"), str(tmp_path / "fm" / "dense+1")
    log_losses = []
    for number, names in enumerate(([str(tmp_path / "fm")], [one], [other])):
        taught = tiny_config(compact={"budgets": [100], "teach": {"teachers": names}})
        log_losses.append(run(taught, tmp_path / str(number))["compact"]["valid_logloss"])
    assert log_losses[0] == log_losses[1] != log_losses[2]
    wrong = tiny_config(compact={"budgets": [100], "teach": {"teachers": [str(tmp_path / "fm" / "dense+2")]}})
    with pytest.raises(UserError, match=r"dense\+2: no dense model of that name; there are: dense, dense\+1"):
        run(wrong, tmp_path / "wrong")
    assert not (tmp_path / "wrong").exists()


def test_budgets_may_be_added_to_a_finished_run(tiny_config: Make, tmp_path: Path) -> None:
    first = run(tiny_config(compact={"budgets": ["50%"]}), tmp_path / "run")
    second = run(tiny_config(compact={"budgets": ["50%", 100]}), tmp_path / "run", resume=True)
    assert set(second["budgets"]) == {"50pct", "100"}
    assert second["budgets"]["50pct"] == first["budgets"]["50pct"]
    assert second["dense"] == first["dense"]


def test_a_run_from_the_disk(tiny_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every phase, with a teacher, on splits that are too large to be held: cut off and resumed, it ends alike."""
    monkeypatch.setattr(batches_module, "RESIDENT_BYTES", 0)
    monkeypatch.setattr(batches_module, "BLOCK_ROWS", 50)
    values = tiny_config(compact={"teach": {"teachers": ["dense"]}, "budgets": [100], "sizes": {"epochs": 1}})
    expected = lasting(run(values, tmp_path / "whole"))
    assert expected["dense"]["valid_auc"] > 0.5
    original, calls = Fit._one_epoch, []

    def cut(self: Fit) -> None:
        calls.append(self.phase)
        if len(calls) == 4:
            raise KeyboardInterrupt
        original(self)

    with monkeypatch.context() as patch:
        patch.setattr(Fit, "_one_epoch", cut)
        with pytest.raises(KeyboardInterrupt):
            run(values, tmp_path / "cut")
    assert calls == ["dense", "dense", "retrain-100", "retrain-100"]
    assert lasting(run(values, tmp_path / "cut", resume=True)) == expected


def test_further_teachers_are_dense_models_of_the_next_seeds(tiny_config: Make, tmp_path: Path) -> None:
    values = tiny_config(compact={"budgets": [100], "teach": {"teachers": ["dense", "dense+1"]}})
    metrics = run(values, tmp_path / "run")
    other = run(tiny_config(compact={"budgets": [100]}, run={"seed": 1}), tmp_path / "seed 1")
    state = json.loads((tmp_path / "run" / "progress.json").read_text())
    assert state["dense+1"] == {"valid_auc": other["dense"]["valid_auc"], "epochs": other["dense"]["epochs"]}
    further, ours = (
        load_file(tmp_path / name / "model.safetensors") for name in ("run/dense+1", "seed 1/dense")
    )
    assert all(torch.equal(value, ours[name]) for name, value in further.items())
    assert metrics["budgets"]["100"]["test_auc"] is not None
    with pytest.raises(UserError, match="the dense model cannot be its own teacher"):
        Pipeline(from_dict(tiny_config(teach={"teachers": ["dense+1"]})), tmp_path / "wrong")
