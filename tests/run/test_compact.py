"""The compact models of a run: whether they hold their budgets, and what each way to store them keeps."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ondevice.config.file import from_dict
from ondevice.data import load_dataset
from ondevice.data.key_hash import key_hash
from ondevice.errors import UserError
from ondevice.forms.codes import CodedEmbedding, Codes
from ondevice.forms.shared import SharedMap
from ondevice.methods import METHODS
from ondevice.methods.ranking import Ranking
from ondevice.models import MODELS
from ondevice.models.layers import hidden_linears
from ondevice.run.directory import Run
from ondevice.run.pipeline import Pipeline
from ondevice.training.batches import Batches
from ondevice.training.fit import evaluate

from ..runs import Make, run


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("model", ["fm", "autoint"])
def test_every_method_and_model_holds_its_budgets(
    tiny_config: Make, tmp_path: Path, method: str, model: str
) -> None:
    coded = {"store": {"name": "codes", "code_dims": 2}} if method == "code_saliency" else {}
    values = tiny_config(
        model={"name": model},
        train={"epochs": 1},
        compact={"sizes": {"name": method}, "budgets": ["60%", "45%"], **coded},
    )
    metrics = run(values, tmp_path / "run")
    kept = [metrics["budgets"][label]["kept_parameters"] for label in ("60pct", "45pct")]
    assert 0 < kept[1] <= kept[0]
    assert kept[0] <= 0.6 * 390
    assert kept[1] <= 0.45 * 390
    assert {"fm", "autoint", "deepfm"} <= set(MODELS)  # deepfm is what the other tests run


def test_compact_models_of_another_base_model(tiny_config: Make, tmp_path: Path) -> None:
    """A DeepFM teaches factorization machines, elastic or not, and the bundle says what it is."""
    compact = {
        "model": {"name": "fm"},
        "teach": {"teachers": ["dense"], "pairs": 0},
        "store": {"first_order": "projection"},
    }
    for elastic in (False, True):
        folder = tmp_path / f"elastic-{elastic}"
        metrics = run(tiny_config(compact={**compact, "train": {"elastic": elastic}}), folder)
        assert metrics["model"] == "deepfm"
        again = Run(folder)
        assert isinstance(again.dense().model, MODELS["deepfm"])
        for label, figures in metrics["budgets"].items():
            smaller = again.compact(label)
            assert isinstance(smaller.model, MODELS["fm"])
            valid = Batches(again.dataset().valid, 64, torch.device("cpu"))
            assert evaluate(smaller, valid)["auc"] == pytest.approx(figures["valid_auc"], abs=1e-6)
    with pytest.raises(UserError, match=r"compact\.model: unknown model 'fn'"):
        run(tiny_config(compact={"model": {"name": "fn"}}), tmp_path / "wrong")
    with pytest.raises(UserError, match=r"compact\.model\.hidden: model 'fm' has no such option"):
        run(tiny_config(compact={"model": {"name": "fm", "hidden": [4]}}), tmp_path / "wrong")


def test_positions_are_kept_as_they_were_found(tiny_config: Make, tmp_path: Path) -> None:
    run(tiny_config(compact={"store": {"name": "positions"}, "budgets": [100]}), tmp_path / "run")
    result = load_file(tmp_path / "run" / "search.safetensors")["100/0/kept"].bool()
    counts = torch.tensor(load_dataset(**tiny_config()["data"]).counts)
    kept = Run(tmp_path / "run").compact("100").forms()[0].mask()
    assert torch.equal(kept, result & (counts > 0)[:, None])
    assert bool((kept[:, 1:] & ~kept[:, :-1]).any())  # no prefixes


def test_a_budget_that_nothing_meets_is_told_before_anything_trains(
    tiny_config: Make, tmp_path: Path
) -> None:
    with pytest.raises(
        UserError,
        match=r"budget 4KB: the program \(forward\), .* take about \d,\d{3} bytes",
    ):
        run(tiny_config(compact={"budgets": ["4KB"]}), tmp_path / "run")
    assert not (tmp_path / "run" / "progress.json").exists()


def test_methods_that_do_not_ship_are_not_paid_for(tiny_config: Make, tmp_path: Path) -> None:
    """The same budget holds more values when the program has one method."""
    kept = []
    for name, methods in (("one", ["forward"]), ("all", None)):
        values = tiny_config(
            compact={
                "sizes": {"name": "frequency"},
                "budgets": ["10.2KB"],
                "endpoints": methods,
                "train": {"epochs": 1},
            }
        )
        kept.append(run(values, tmp_path / name)["compact"]["kept_parameters"])
    assert kept[0] > kept[1] > 0, kept
    with pytest.raises(UserError, match=r"budget 7KB: .* leave out some of compact\.endpoints"):
        run(
            tiny_config(compact={"budgets": ["7KB"], "endpoints": ["forward", "rank"]}),
            tmp_path / "none",
        )


def test_skipped_fields_are_not_stored_and_read_as_unknown(tiny_config: Make, tmp_path: Path) -> None:
    for method in ("pep", "frequency"):
        values = tiny_config(compact={"sizes": {"name": method}, "budgets": [100], "skip_fields": ["age"]})
        run(values, tmp_path / method)
        compact = Run(tmp_path / method).compact("100")
        rows = slice(41, 47)  # of age
        assert not compact.forms()[0].mask()[rows].any()
        assert compact.forms()[0].mask().any()
        assert compact.id_map[rows].tolist() == [41] * 6
    with pytest.raises(UserError, match=r"compact\.skip_fields: 'ages' is not a field .*did you mean 'age'"):
        Pipeline(from_dict(tiny_config(compact={"skip_fields": ["ages"]})), tmp_path / "wrong")
    with pytest.raises(UserError, match="names every field"):
        Pipeline(from_dict(tiny_config(compact={"skip_fields": ["user", "age", "item"]})), tmp_path / "none")


def test_a_compact_model_of_codes_with_layers_of_its_own_is_kept_and_read_back(
    tiny_config: Make, tmp_path: Path
) -> None:
    for first_order in ("rows", "projection", "none"):
        folder = tmp_path / first_order
        options = {"hidden": [6], "dropout": 0, "batch_norm": False}
        store = {"name": "codes", "code_dims": 2, "first_order": first_order}
        given = {"budgets": ["60%"], "store": store, "train": {"epochs": 3}, "model": options}
        metrics = run(tiny_config(compact=given), folder)
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
    pytest.importorskip("torchao", reason="layers of 4 bits are trained with torchao")
    from ondevice.program.quantize import rounded

    values = tiny_config(
        compact={
            "sizes": {"name": "saliency", "max_size": 4},
            "store": {"linear_bits": 4, "max_size": 4, "first_order": "none"},
        }
    )
    run(values, tmp_path / "run")
    result = Run(tmp_path / "run")
    one, other = (result.compact(label) for label in result.budgets())
    large, small = (each.forms()[0].row_sizes() for each in (one, other))
    assert int(small.sum()) <= 100 < int(large.sum())
    assert bool((small <= large).all())
    assert bool((small < large).any())
    for layer in hidden_linears(other.model):
        assert other.model.linear_bits == 4
        torch.testing.assert_close(rounded(layer.weight.detach(), 4)[0], layer.weight.detach())
    again = Pipeline(from_dict(values), tmp_path / "run", resume=True)
    assert isinstance(again.search(again.dense(), list(again.targets().values()))[100][0], Ranking)


def test_rows_of_a_search_in_the_losss_units_become_as_large_as_the_store_allows(
    tiny_config: Make, tmp_path: Path
) -> None:
    """Twelve dimensions, of which a search would look at eight by itself, and a budget that has room for most."""
    values = tiny_config(
        embedding={"dim": 16},
        compact={
            "sizes": {"name": "pep", "regime": "loss"},
            "budgets": [800],
            "store": {"max_size": 12, "first_order": "none"},
        },
    )
    run(values, tmp_path / "run")
    sizes = Run(tmp_path / "run").compact("800").forms()[0].row_sizes()
    assert 8 < int(sizes.max()) <= 12
    assert 780 <= int(sizes.sum()) <= 800


@pytest.mark.parametrize("first_order", ["rows", "projection"])
def test_sizes_by_what_codes_are_worth_begin_with_the_model_that_was_measured(
    tiny_config: Make, tmp_path: Path, first_order: str
) -> None:
    """Popular rows have more codes, and smaller budgets are nested. (So few rows need hardly any codes twice.)"""
    values = tiny_config(
        compact={
            "sizes": {"name": "code_saliency", "epochs": 2},
            "budgets": [160, 90],
            "model": {"name": "fm"},
            "teach": {"teachers": ["dense"]},
            "store": {
                "name": "codes",
                "first_order": first_order,
                "max_size": 4,
                "code_dims": 2,
                "code_levels": 2,
                "code_choice": "loss",
            },
        }
    )
    metrics = run(values, tmp_path / "run")
    result = Run(tmp_path / "run")
    large, small = (result.compact(label).forms()[0] for label in result.budgets())
    assert isinstance(large, Codes)
    assert large.dim == 4
    assert bool((small.row_sizes() <= large.row_sizes()).all())
    counts = torch.tensor(result.dataset().counts).double()
    assert counts[small.row_sizes() > 2].mean() > counts[small.row_sizes() <= 2].mean()
    assert len(metrics["history"]["search"]) == 2
    config = from_dict(values)
    pipeline = Pipeline(config, tmp_path / "run", resume=True)
    forms = pipeline.search(pipeline.dense(), list(pipeline.targets().values()))[160]
    assert isinstance(forms[0], Ranking)
    started = pipeline._start(pipeline.budgets.forms(160, 160, forms))
    searched = load_file(tmp_path / "run" / "searched" / "model.safetensors")
    assert isinstance(started.embedding, CodedEmbedding)
    assert started.embedding.is_rotated
    keep = started.embedding.keep
    torch.testing.assert_close(started.embedding.weight[keep], searched["embedding.weight"][keep])
    if first_order == "projection":
        assert started.projection is not None
        torch.testing.assert_close(started.projection.detach(), searched["projection"])


def test_ranking_codes_needs_codes(tiny_config: Make, tmp_path: Path) -> None:
    with pytest.raises(
        UserError,
        match=r"compact\.store\.name: got 'int8', but method 'code_saliency' ranks codes; use compact",
    ):
        run(tiny_config(compact={"sizes": {"name": "code_saliency"}}), tmp_path / "run")
    twice = {"name": "codes", "max_size": 4, "code_dims": 2, "code_levels": 2}
    with pytest.raises(
        UserError, match=r"compact.store.code_levels: got 2, but method 'saliency' ranks dimensions"
    ):
        run(tiny_config(compact={"sizes": {"name": "saliency"}, "store": twice}), tmp_path / "run")


def test_the_hashing_trick_is_retrained_like_any_other(tiny_config: Make, tmp_path: Path) -> None:
    """Users and items share rows, under the same teacher; a resumed run and a read one know by whom."""
    hashing = {"name": "hashing", "dim": 4}
    values = tiny_config(compact={"sizes": hashing, "budgets": [100], "teach": {"teachers": ["dense"]}})
    metrics = run(values, tmp_path / "run")
    assert metrics["compact"]["valid_auc"] > 0.5
    assert 60 < metrics["compact"]["kept_parameters"] <= 100
    compact = Run(tmp_path / "run").compact("100")
    form = compact.forms()[0]
    assert isinstance(form, SharedMap)
    assert form.modulus.tolist()[0] > 0
    texts = Run(tmp_path / "run").vocabulary.key_texts()
    rows = 1 + compact.embedding.keep[1:41, 0].nonzero().squeeze(1)
    assert len(rows) == form.modulus[0] < 20
    assert compact.id_map[1:41].tolist() == [int(rows[key_hash(str(t)) % len(rows)]) for t in texts[1:41]]
    assert run(
        {**values, "compact": {**values["compact"], "budgets": [100, 80]}},
        tmp_path / "run",
        resume=True,
    )
    with pytest.raises(
        UserError, match=r"got 'codes', but .* which are stored as int8 values; set compact.store=int8"
    ):
        run(
            tiny_config(
                compact={
                    "sizes": hashing,
                    "budgets": [100],
                    "store": {"name": "codes", "max_size": 4, "code_dims": 2},
                }
            ),
            tmp_path / "coded",
        )


def test_a_model_of_several_codebooks_is_refused(tiny_config: Make, tmp_path: Path) -> None:
    """Versions before this one made them."""
    run(
        tiny_config(compact={"store": {"name": "codes", "max_size": 4, "code_dims": 2}, "budgets": [100]}),
        tmp_path / "run",
    )
    described = tmp_path / "run" / "budgets" / "100" / "recommender.json"
    old = json.loads(described.read_text())
    old["tables"][0]["books"] = [0, 1, 0]
    described.write_text(json.dumps(old))
    with pytest.raises(UserError, match="several codebooks, which is no longer read; train the run again"):
        Run(tmp_path / "run").compact("100")
