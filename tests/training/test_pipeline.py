"""The phases of a run: what each begins with, what it may read, and what it leaves behind."""

from __future__ import annotations

import dataclasses
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ondevice.config import from_dict
from ondevice.data import Dataset, EncodedSplit, load_dataset
from ondevice.data.key_hash import key_hash
from ondevice.embeddings import METHODS, CodedEmbedding, Ranking, SharedEmbedding
from ondevice.errors import UserError
from ondevice.models import MODELS
from ondevice.models.layers import hidden_linears
from ondevice.program.quantize import rounded
from ondevice.training import batches as batches_module
from ondevice.training import pipeline as pipeline_module
from ondevice.training.batches import Batches
from ondevice.training.fit import Fit, FitResult, evaluate
from ondevice.training.pipeline import Pipeline
from ondevice.training.run import Run
from ondevice.training.search import Search, SearchResult

Make = Callable[..., dict[str, Any]]


def run(values: dict[str, Any], folder: Path, resume: bool = False) -> dict[str, Any]:
    return Pipeline(from_dict(values), folder, resume=resume).run()


def lasting(metrics: dict[str, Any]) -> dict[str, Any]:
    """Metrics without what a clock decides."""
    return {
        key: lasting(value) if isinstance(value, dict) else value
        for key, value in metrics.items()
        if key not in ("seconds", "step_time_over_dense")
    }


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, Tensor]]:
    """The weights that each phase starts from, and those the search ends with, as they come."""
    found: dict[str, dict[str, Tensor]] = {}

    def copy(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: value.clone() for name, value in tensors.items()}

    fit, search = Fit.run, Search.run

    def fit_run(self: Fit) -> FitResult:
        found[self.phase] = copy(self.recommender.state_dict())
        return fit(self)

    def search_run(self: Search) -> SearchResult:
        found["search"] = copy(self.recommender.state_dict())
        result = search(self)
        found["searched"] = copy(self.recommender.state_dict())
        return result

    monkeypatch.setattr(Fit, "run", fit_run)
    monkeypatch.setattr(Search, "run", search_run)
    return found


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
    pipeline = Pipeline(from_dict(tiny_config(search={"budgets": [100]})), tmp_path / "run")
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
    run(tiny_config(retrain={"start": "fresh"}, search={"budgets": ["50%"]}), tmp_path / "run")
    initial = load_file(tmp_path / "run" / "initial.safetensors")
    start = starts["retrain-50pct"]
    width = start["embedding.keep"].shape[1]
    ticket = initial["embedding.weight"][:, :width] * start["embedding.keep"]
    assert not torch.equal(start["embedding.weight"], ticket)


def test_a_warm_start_takes_the_dense_models_weights(
    tiny_config: Make, tmp_path: Path, starts: dict[str, dict[str, Tensor]]
) -> None:
    given = {"start": "dense", "model": {"hidden": [12]}}
    run(tiny_config(retrain=given, search={"budgets": ["50%"]}), tmp_path / "run")
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
    from ondevice.training.batches import Batches
    from ondevice.training.fit import evaluate

    metrics = run(tiny_config(search={"budgets": ["50%"]}), tmp_path / "run")
    opened = Run(tmp_path / "run")
    for model, entry in ((opened.dense(), metrics["dense"]), (opened.compact("50pct"), metrics["compact"])):
        for split in ("valid", "test"):
            batches = Batches(getattr(opened.dataset(), split), 64, torch.device("cpu"))
            assert evaluate(model, batches)["auc"] == pytest.approx(entry[f"{split}_auc"], abs=1e-9)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("model", ["fm", "autoint"])
def test_every_method_and_model_holds_its_budgets(
    tiny_config: Make, tmp_path: Path, method: str, model: str
) -> None:
    values = tiny_config(
        method={"name": method},
        model={"name": model},
        search={"budgets": ["60%", "45%"]},
        training={"epochs": 1},
    )
    metrics = run(values, tmp_path / "run")
    kept = [metrics["budgets"][label]["kept_parameters"] for label in ("60pct", "45pct")]
    assert 0 < kept[1] <= kept[0]
    assert kept[0] <= 0.6 * 390
    assert kept[1] <= 0.45 * 390
    assert set(MODELS) == {"fm", "autoint", "deepfm"}  # deepfm is what the other tests run


def test_positions_are_kept_as_they_were_found(tiny_config: Make, tmp_path: Path) -> None:
    run(tiny_config(retrain={"form": "positions"}, search={"budgets": [100]}), tmp_path / "run")
    found = load_file(tmp_path / "run" / "search.safetensors")["100/0"].bool()
    counts = torch.tensor(load_dataset(**tiny_config()["data"]).counts)
    kept = Run(tmp_path / "run").compact("100").embedding.compact().mask()
    assert torch.equal(kept, found & (counts > 0)[:, None])
    assert bool((kept[:, 1:] & ~kept[:, :-1]).any())  # no prefixes


def with_splits(dataset: Dataset, **splits: EncodedSplit) -> Dataset:
    return dataclasses.replace(dataset, **splits)


def test_the_test_split_decides_nothing(
    tiny_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With all its labels turned around only the figures that are named test change."""
    expected = run(tiny_config(), tmp_path / "as it is")
    dataset = load_dataset(**tiny_config()["data"])
    turned = EncodedSplit(dataset.test.ids, 1 - np.asarray(dataset.test.labels))
    monkeypatch.setattr(pipeline_module, "load_dataset", lambda *_, **__: with_splits(dataset, test=turned))
    got = run(tiny_config(), tmp_path / "turned")
    assert got["history"] == expected["history"]
    for label, entry in got["budgets"].items():
        assert entry["test_auc"] == pytest.approx(1 - expected["budgets"][label]["test_auc"])
    for part in ("dense", "budgets/50pct", "budgets/100"):
        weights = [load_file(tmp_path / name / part / "model.safetensors") for name in ("as it is", "turned")]
        assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


class UnreadSplit:
    """A split that may not be read."""

    def __len__(self) -> int:
        return 200

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"test.{name} was read")


def test_the_test_split_is_not_read_while_anything_trains(
    tiny_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = with_splits(load_dataset(**tiny_config()["data"]), test=UnreadSplit())  # type: ignore[arg-type]
    monkeypatch.setattr(pipeline_module, "load_dataset", lambda *_, **__: dataset)
    pipeline = Pipeline(from_dict(tiny_config()), tmp_path / "run")
    with pytest.raises(AssertionError, match=r"test\.ids was read"):
        pipeline.dense()
    saved = torch.load(tmp_path / "run" / "checkpoints" / "dense.pt", weights_only=True)
    assert saved["epoch"] == 2  # all of the training was done by then
    dense = pipeline._fresh("uniform", {}, None)
    assert set(pipeline.search(dense, [195, 100])) == {195, 100}


def test_a_seed_decides_everything(tiny_config: Make, tmp_path: Path) -> None:
    one = run(tiny_config(search={"budgets": [100]}), tmp_path / "one")
    torch.rand(100)
    again = run(tiny_config(search={"budgets": [100]}), tmp_path / "again")
    other = run(tiny_config(search={"budgets": [100]}, run={"seed": 1}), tmp_path / "other")
    assert lasting(one) == lasting(again)
    assert lasting(one)["dense"] != lasting(other)["dense"]


def test_a_teacher_can_be_another_run(tiny_config: Make, tmp_path: Path) -> None:
    run(tiny_config(search={"budgets": [100]}), tmp_path / "first")
    taught = {"teacher": ["dense", str(tmp_path / "first")]}
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # another run's model knows no counts of its own
        metrics = run(tiny_config(search={"budgets": [100]}, retrain=taught), tmp_path / "second")
    alone = json.loads((tmp_path / "first" / "metrics.json").read_text())
    assert metrics["dense"]["test_auc"] == alone["dense"]["test_auc"]
    assert metrics["compact"]["test_logloss"] != alone["compact"]["test_logloss"]


def test_a_further_teacher_of_another_run(tiny_config: Make, tmp_path: Path) -> None:
    """Of another base model, too; one that is not there is told before anything trains."""
    given = {"teacher": ["dense", "dense+1"]}
    run(tiny_config(model={"name": "fm"}, search={"budgets": [100]}, retrain=given), tmp_path / "fm")
    one, other = str(tmp_path / "fm" / "dense"), str(tmp_path / "fm" / "dense+1")
    log_losses = []
    for number, names in enumerate(([str(tmp_path / "fm")], [one], [other])):
        taught = tiny_config(search={"budgets": [100]}, retrain={"teacher": names})
        log_losses.append(run(taught, tmp_path / str(number))["compact"]["valid_logloss"])
    assert log_losses[0] == log_losses[1] != log_losses[2]
    wrong = tiny_config(search={"budgets": [100]}, retrain={"teacher": [str(tmp_path / "fm" / "dense+2")]})
    with pytest.raises(UserError, match=r"dense\+2: no dense model of that name; there are: dense, dense\+1"):
        run(wrong, tmp_path / "wrong")
    assert not (tmp_path / "wrong").exists()


def test_a_budget_that_nothing_meets_is_told_before_anything_trains(
    tiny_config: Make, tmp_path: Path
) -> None:
    with pytest.raises(
        UserError,
        match=r"budget 9KB: the program \(forward, rank, recommend\), .* take about (9|1\d),\d{3} bytes",
    ):
        run(tiny_config(search={"budgets": ["9KB"]}), tmp_path / "run")
    assert not (tmp_path / "run" / "progress.json").exists()


def test_methods_that_do_not_ship_are_not_paid_for(tiny_config: Make, tmp_path: Path) -> None:
    """The same budget holds more values when the program has one method."""
    kept = []
    for name, methods in (("one", ["forward"]), ("all", None)):
        values = tiny_config(
            method={"name": "frequency"},
            search={"budgets": ["11.1KB"]},
            retrain={"methods": methods, "epochs": 1},
        )
        kept.append(run(values, tmp_path / name)["compact"]["kept_parameters"])
    assert kept[0] > kept[1] > 0, kept
    with pytest.raises(UserError, match=r"budget 7KB: .* leave out some of retrain\.methods"):
        run(
            tiny_config(search={"budgets": ["7KB"]}, retrain={"methods": ["forward", "rank"]}),
            tmp_path / "none",
        )


def test_budgets_may_be_added_to_a_finished_run(tiny_config: Make, tmp_path: Path) -> None:
    first = run(tiny_config(search={"budgets": ["50%"]}), tmp_path / "run")
    second = run(tiny_config(search={"budgets": ["50%", 100]}), tmp_path / "run", resume=True)
    assert set(second["budgets"]) == {"50pct", "100"}
    assert second["budgets"]["50pct"] == first["budgets"]["50pct"]
    assert second["dense"] == first["dense"]


def test_a_run_from_the_disk(tiny_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every phase, with a teacher, on splits that are too large to be held: cut off and resumed, it ends alike."""
    monkeypatch.setattr(batches_module, "RESIDENT_BYTES", 0)
    monkeypatch.setattr(batches_module, "BLOCK_ROWS", 50)
    values = tiny_config(retrain={"teacher": ["dense"]}, search={"budgets": [100], "epochs": 1})
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
    values = tiny_config(search={"budgets": [100]}, retrain={"teacher": ["dense", "dense+1"]})
    metrics = run(values, tmp_path / "run")
    other = run(tiny_config(search={"budgets": [100]}, run={"seed": 1}), tmp_path / "seed 1")
    state = json.loads((tmp_path / "run" / "progress.json").read_text())
    assert state["dense+1"] == {"valid_auc": other["dense"]["valid_auc"], "epochs": other["dense"]["epochs"]}
    further, own = (
        load_file(tmp_path / name / "model.safetensors") for name in ("run/dense+1", "seed 1/dense")
    )
    assert all(torch.equal(value, own[name]) for name, value in further.items())
    assert metrics["budgets"]["100"]["test_auc"] is not None
    with pytest.raises(UserError, match="the dense model cannot be its own teacher"):
        Pipeline(from_dict(tiny_config(training={"teacher": ["dense+1"]})), tmp_path / "wrong")


def test_skipped_fields_are_not_stored_and_read_as_unknown(tiny_config: Make, tmp_path: Path) -> None:
    for method in ("pep", "frequency"):
        values = tiny_config(method={"name": method}, search={"budgets": [100], "skip_fields": ["age"]})
        run(values, tmp_path / method)
        compact = Run(tmp_path / method).compact("100")
        rows = slice(41, 47)  # of age
        assert not compact.embedding.compact().mask()[rows].any()
        assert compact.embedding.compact().mask().any()
        assert compact.id_map[rows].tolist() == [41] * 6
    with pytest.raises(UserError, match=r"search\.skip_fields: 'ages' is not a field .*did you mean 'age'"):
        Pipeline(from_dict(tiny_config(search={"skip_fields": ["ages"]})), tmp_path / "wrong")
    with pytest.raises(UserError, match="names every field"):
        Pipeline(from_dict(tiny_config(search={"skip_fields": ["user", "age", "item"]})), tmp_path / "none")


def test_a_compact_model_of_codes_with_layers_of_its_own_is_kept_and_read_back(
    tiny_config: Make, tmp_path: Path
) -> None:
    for first_order in ("rows", "projection", "none"):
        folder = tmp_path / first_order
        own = {"hidden": [6], "dropout": 0, "batch_norm": False}
        retrain = {"code_dims": 2, "first_order": first_order, "epochs": 3, "model": own}
        metrics = run(tiny_config(search={"budgets": ["60%"]}, retrain=retrain), folder)
        compact = Run(folder).compact("60pct")
        table = compact.embedding
        assert isinstance(table, CodedEmbedding)
        assert table.codes.any()
        assert (compact.first_order is not None) == (first_order == "rows")
        assert (compact.projection is not None) == (first_order == "projection")
        assert compact.model.dnn.layers[0].out_features == 6  # type: ignore[union-attr, index]
        dataset = load_dataset(**tiny_config()["data"])
        test = Batches(dataset.test, 64, torch.device("cpu"))
        assert evaluate(compact, test)["auc"] == pytest.approx(metrics["compact"]["test_auc"], abs=1e-9)
        finals = [entry["final"] for entry in metrics["history"]["60pct"]]
        assert finals == [False, True, True]  # 0.4 of three epochs is in the second one


def test_sizes_by_saliency_and_four_bit_layers_are_kept_and_read_back(
    tiny_config: Make, tmp_path: Path
) -> None:
    """Budgets are met by one ranking, the smaller nested in the larger; layers are read back as rounded."""
    values = tiny_config(
        method={"name": "saliency", "max_size": 4},
        retrain={"linear_bits": 4, "max_size": 4, "first_order": "none"},
    )
    run(values, tmp_path / "run")
    found = Run(tmp_path / "run")
    one, other = (found.compact(label) for label in found.budgets())
    large, small = (each.embedding.compact().row_sizes() for each in (one, other))
    assert int(small.sum()) <= 100 < int(large.sum())
    assert bool((small <= large).all())
    assert bool((small < large).any())
    for layer in hidden_linears(other.model):
        assert other.model.linear_bits == 4
        torch.testing.assert_close(rounded(layer.weight.detach(), 4), layer.weight.detach())
    again = Pipeline(from_dict(values), tmp_path / "run", resume=True)
    assert isinstance(again.search(again.dense(), list(again.targets().values()))[100][0], Ranking)


def test_the_hashing_trick_is_retrained_like_any_other(tiny_config: Make, tmp_path: Path) -> None:
    """Users and items share rows, under the same teacher; a resumed run and a read one know by whom."""
    hashing = {"name": "hashing", "dim": 4}
    values = tiny_config(method=hashing, search={"budgets": [100]}, retrain={"teacher": ["dense"]})
    metrics = run(values, tmp_path / "run")
    assert metrics["compact"]["valid_auc"] > 0.5
    assert 60 < metrics["compact"]["kept_parameters"] <= 100
    compact = Run(tmp_path / "run").compact("100")
    assert isinstance(compact.embedding, SharedEmbedding)
    assert compact.embedding.modulus.tolist()[0] > 0
    texts = Run(tmp_path / "run").vocabulary.key_texts()
    rows = 1 + compact.embedding.keep[1:41, 0].nonzero().squeeze(1)
    assert len(rows) == compact.embedding.modulus[0] < 20
    assert compact.id_map[1:41].tolist() == [int(rows[key_hash(str(t)) % len(rows)]) for t in texts[1:41]]
    assert run(
        {**values, "search": {**values["search"], "budgets": [100, 80]}}, tmp_path / "run", resume=True
    )
    with pytest.raises(
        UserError, match=r"code_dims: .* which are stored as int8 values; set retrain.code_dims=null"
    ):
        run(
            tiny_config(method=hashing, search={"budgets": [100]}, retrain={"max_size": 4, "code_dims": 2}),
            tmp_path / "coded",
        )
