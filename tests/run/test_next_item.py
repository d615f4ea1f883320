"""A run of the next item: from a shipped configuration to metrics and a page, killed and resumed."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from ondevice.config.file import from_dict, load
from ondevice.config.sections import Config
from ondevice.errors import ConfigError, UserError
from ondevice.run import next_item
from ondevice.run.directory import Run
from ondevice.run.next_item import NextItemPipeline, load_run, table_lines
from ondevice.run.preflight import check_options
from ondevice.start import make_pipeline
from ondevice.study.space import Space
from ondevice.training.checkpoint import load_recommender
from ondevice.training.fit import Fit

from ..runs import lasting

CONFIGS = sorted((Path(__file__).resolve().parents[2] / "train" / "configs").glob("*_next_item_*.yaml"))
CONFIGS = [path for path in CONFIGS if "compact" not in path.stem]  # `test_next_item_compact` has those
(TAUGHT,) = (path for path in CONFIGS if path.stem.endswith("taught"))
CONFIGS.remove(TAUGHT)  # it asks for runs of two others
SMALL = ("embedding.dim=4", "train.epochs=2", "run.progress=false", "run.device=cpu", "model.last=6")


def small(folder: Path, *overrides: str, path: Path = CONFIGS[0]) -> Config:
    return load(path, [f"data.folder={folder}", *SMALL, *overrides])


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_shipped_config_trains(path: Path, movielens_folder: Path, tmp_path: Path, cache: Path) -> None:
    metrics = make_pipeline(small(movielens_folder, path=path), tmp_path / "run").run()
    assert json.loads((tmp_path / "run" / "metrics.json").read_text()) == metrics
    assert metrics["task"] == "next_item"
    dense = metrics["dense"]
    for split in ("valid", "test"):
        assert set(dense[split]["all"]) >= {"hr@10", "ndcg@10", "recall@20", "mrr", "coverage@10"}
        assert sum(figures["users"] for name, figures in dense[split].items() if "items" in name) == 40
    assert dense["valid"]["all"]["ndcg@10"] == pytest.approx(
        max(entry["valid_ndcg@10"] for entry in metrics["history"]["dense"]), abs=0.05
    )
    page = (tmp_path / "run" / "report.html").read_text()
    assert f"NDCG@10 {dense['test']['all']['ndcg@10']:.4f}" in page
    assert "http" not in page
    assert "popular items" in page
    lines = table_lines(metrics)
    assert lines[1].split()[:2] == ["all", "40"]
    with pytest.raises(ConfigError, match=r"already holds a run; add --resume"):
        make_pipeline(small(movielens_folder, path=path), tmp_path / "run")


@pytest.fixture
def trained(movielens_folder: Path, tmp_path: Path, cache: Path) -> Path:
    NextItemPipeline(small(movielens_folder), tmp_path / "run").run()
    return tmp_path / "run"


def test_a_run_is_read_back(trained: Path, movielens_folder: Path) -> None:
    recommender, dataset = load_run(Run(trained))
    assert dataset.catalog is not None
    pipeline = NextItemPipeline(small(movielens_folder), trained, resume=True)
    measured = next_item.measured(pipeline.log, recommender, "test", pipeline.info.counts)
    assert measured == pipeline.run()["dense"]["test"]
    with pytest.raises(UserError, match="holds a model of the next item, which has no scores of rows"):
        load_recommender(trained / "dense", pipeline.info)


def test_a_killed_run_goes_on_with_equal_numbers(
    movielens_folder: Path, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small(movielens_folder, "train.epochs=3")
    whole = NextItemPipeline(config, tmp_path / "whole").run()
    original = Fit._one_epoch

    def killed(self: Fit) -> None:
        if self.epoch == 2:
            raise KeyboardInterrupt
        original(self)

    monkeypatch.setattr(Fit, "_one_epoch", killed)
    with pytest.raises(KeyboardInterrupt):
        NextItemPipeline(config, tmp_path / "cut").run()
    monkeypatch.setattr(Fit, "_one_epoch", original)
    assert lasting(NextItemPipeline(config, tmp_path / "cut", resume=True).run()) == lasting(whole)


def test_a_dense_model_goes_on_from_another_runs(movielens_folder: Path, tmp_path: Path, cache: Path) -> None:
    """In steps of no length it stays what it began with."""
    (path,) = (each for each in CONFIGS if each.stem.endswith("sasrec"))
    first = NextItemPipeline(small(movielens_folder, path=path), tmp_path / "first").run()
    still = ("train.learning_rate=1e-12", "train.epochs=1", "train.ema_decay=0")

    def goes_on(start: str, *overrides: str) -> dict[str, Any]:
        begun = (f"research.start={tmp_path / start}", *still, *overrides)
        return NextItemPipeline(small(movielens_folder, *begun, path=path), tmp_path / "on").run()

    assert goes_on("first")["dense"]["test"] == first["dense"]["test"]
    shutil.rmtree(tmp_path / "on")
    path, teachers = TAUGHT, f"teach.teachers=[{tmp_path / 'first'}]"
    assert goes_on("first", teachers)["dense"]["test"] == first["dense"]["test"]
    for other in ("embedding.dim=8", "model.last=7"):
        shutil.rmtree(tmp_path / "on")
        with pytest.raises(ConfigError, match=r"research\.start: the dense model of .* has another shape"):
            goes_on("first", teachers, other)
    shutil.rmtree(tmp_path / "on")
    with pytest.raises(UserError, match=r"research\.start .*gone"):
        goes_on("gone", teachers)


def test_without_the_test_split(movielens_folder: Path, tmp_path: Path, cache: Path) -> None:
    metrics = NextItemPipeline(small(movielens_folder, "run.test=false"), tmp_path / "run").run()
    assert "test" not in metrics["dense"]
    assert "valid split" in (tmp_path / "run" / "report.html").read_text()
    assert table_lines(metrics)[0].startswith("valid split")


def test_data_without_sequences(movielens_folder: Path, tmp_path: Path, cache: Path) -> None:
    config = small(movielens_folder, "data.fields=full", "data.split=random")
    with pytest.raises(ConfigError, match=r"has no sequences.*choose data\.fields=next_item"):
        NextItemPipeline(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def values(**sections: dict[str, Any]) -> dict[str, Any]:
    return {"model": {"name": "sasrec"}, "train": {"loss": "softmax"}, **sections}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"train": {}}, r"train\.loss: got bce, .* use softmax, sampled_softmax, bpr"),
        (
            {"model": {"name": "deepfm"}},
            r"train\.loss: got softmax, .* use bce, or model\.name=decayed_pooling",
        ),
        ({"model": {"name": "sasrek"}}, r"unknown model 'sasrek' .*sasrec"),
        (
            {"model": {"name": "sasrec", "hidden": 3}},
            r"model\.hidden: sequence model 'sasrec' has no such option",
        ),
        (
            {"model": {"name": "sasrec", "num_heads": 5}},
            r"model: 'sasrec' does not take .*multiple of num_heads",
        ),
        ({"distributed": {"mode": "ddp"}}, r"distributed\.mode: got ddp, .* use none"),
        ({"compact": {"budgets": [7]}}, r"compact\.budgets: got 7, .* write 64KB"),
        (
            {"compact": {"sizes": {"name": "uniform"}}},
            r"compact\.sizes\.name: .* no compact model is asked for; name the bytes of one",
        ),
        ({"teach": {"teachers": ["dense"]}}, r"teach\.teachers: got dense; .* folders of finished runs"),
        ({"teach": {"pairs": 0.5}}, r"teach\.pairs: .* the training has no teacher"),
        (
            {"train": {"loss": "bpr"}, "teach": {"teachers": ["runs/x"]}},
            r"train\.loss: got bpr, but teachers rank all items; use softmax",
        ),
        ({"research": {"start": "fresh"}}, r"research\.start: got 'fresh'"),
        ({"embedding": {"first_order": "pep"}}, r"embedding\.first_order: got 'pep'"),
        (
            {"train": {"loss": "softmax", "num_negatives": 9}},
            r"num_negatives: .* set train\.loss=sampled_softmax",
        ),
        ({"train": {"loss": "softmax", "row_wise": True}}, r"train\.row_wise: got True, .* reads every item"),
        ({"train": {"loss": "softmax", "embedding_penalty": 1}}, r"train\.embedding_penalty: got 1\.0"),
        ({"model": {"name": "fm"}, "train": {"windows": 3}}, r"train\.windows: got 3, .* 'fm' learns rows"),
    ],
)
def test_an_option_without_effect_is_refused(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says) as error:
        check_options(from_dict(values(**given)))
    assert "\n" not in str(error.value)


def test_a_study_says_that_it_compares_auc() -> None:
    space = Space("dense", ())
    with pytest.raises(ConfigError, match="a study compares AUC"):
        space.check(CONFIGS[0])


def test_the_benchmark_says_what_measures_such_a_run(trained: Path) -> None:
    pytest.importorskip("executorch", reason="the benchmark needs ExecuTorch")
    from ondevice.cli import benchmark

    parser = argparse.ArgumentParser()
    benchmark.add_arguments(parser)
    with pytest.raises(ConfigError, match="a run of the next item, which has no budgets to compare"):
        benchmark.run(parser.parse_args([str(trained)]))
