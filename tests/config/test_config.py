"""Configurations: what wins, what is refused and how it is said, and the ones that come along."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from ondevice.config.file import from_dict, load
from ondevice.config.sections import Choice, Config, RetrainConfig, SearchConfig, TrainingConfig
from ondevice.errors import ConfigError, UserError
from ondevice.methods import METHODS
from ondevice.run.pipeline import Pipeline
from ondevice.training.fit import Fit
from ondevice.training.teacher import own_teacher

from ..data.large.rows import HEADER, avazu_lines, criteo_lines, write_lines

CONFIGS = sorted(
    path
    for path in (Path(__file__).resolve().parents[2] / "train" / "configs").glob("*.yaml")
    if not path.name.endswith((".schema.yaml", ".space.yaml"))
)


@pytest.fixture
def written(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        path = tmp_path / "config.yaml"
        path.write_text(text)
        return path

    return write


def test_overrides_win_over_the_file_and_the_file_over_defaults(written: Callable[[str], Path]) -> None:
    path = written("training: {epochs: 4, batch_size: 64}\nembedding: {dim: 8}\n")
    config = load(path, ["training.epochs=7", "run.seed=3"])
    assert (config.training.epochs, config.training.batch_size) == (7, 64)
    assert (config.embedding.dim, config.run.seed) == (8, 3)
    assert config.training.patience == TrainingConfig().patience


def test_an_empty_file_is_all_defaults(written: Callable[[str], Path]) -> None:
    assert load(written("")) == Config() == from_dict({})
    assert load(written("training:\n")) == Config()


def test_overrides_are_read_as_yaml(written: Callable[[str], Path]) -> None:
    config = load(
        written("model: deepfm\n"),
        [
            "model.hidden=[64, 32]",
            "run.threads=null",
            "run.progress=false",
            "data.path=a=b",
            "search.budgets=5%",
        ],
    )
    assert config.model == Choice("deepfm", {"hidden": [64, 32]})
    assert config.run.threads is None
    assert config.run.progress is False
    assert config.data.options == {"path": "a=b"}
    assert config.search.budgets == ("5%",)


def test_another_entry_does_not_inherit_options(written: Callable[[str], Path]) -> None:
    path = written("model: {name: deepfm, hidden: [8]}\n")
    assert load(path, ["model.name=fm"]).model == Choice("fm", {})
    assert load(path, ["model.name=deepfm"]).model == Choice("deepfm", {"hidden": [8]})
    assert load(path, ["model.name=autoint", "model.num_heads=1"]).model.options == {"num_heads": 1}


def test_numbers_widen_and_nothing_else_is_guessed() -> None:
    """YAML 1.1 reads 1e-3 as text and 1 as an integer."""
    training = from_dict(yaml.safe_load("training: {learning_rate: 1e-3, weight_decay: 0}")).training
    assert (training.learning_rate, training.weight_decay) == (0.001, 0.0)
    assert isinstance(training.weight_decay, float)
    assert from_dict({"embedding": {"init_std": "1e-2"}}).embedding.init_std == 0.01
    assert from_dict({"training": {"teacher": "dense"}}).training.teacher == ("dense",)


def test_retraining_takes_nothing_from_training() -> None:
    config = from_dict({"training": {"epochs": 4, "batch_size": 64}, "retrain": {"epochs": 9, "max_size": 8}})
    assert (config.retrain.epochs, config.retrain.max_size) == (9, 8)
    assert config.retrain.batch_size == TrainingConfig().batch_size
    assert from_dict({"training": {"epochs": 4}}).retrain == RetrainConfig()


WRONG = [
    (
        {"trainig": {"epochs": 3}},
        "no such section 'trainig' (did you mean 'training'? choose from: data, dist",
    ),
    (
        {"training": {"epoch": 3}},
        "training.epoch: no such key (did you mean 'epochs'? choose from: batch_size",
    ),
    ({"retrain": {"max_sise": 3}}, "retrain.max_sise: no such key (did you mean 'max_size'?"),
    ({"training": {1: 2}}, "training.1: no such key (choose from:"),
    ({"training": {"epochs": 2.5}}, "training.epochs: got 2.5; it must be of type int"),
    ({"training": {"epochs": True}}, "training.epochs: got True; it must be of type int"),
    ({"training": {"epochs": "three"}}, "training.epochs: got 'three'; it must be of type int"),
    ({"training": {"learning_rate": "fast"}}, "training.learning_rate: got 'fast'; it must be of type float"),
    ({"training": {"learning_rate": True}}, "training.learning_rate: got True; it must be of type float"),
    ({"training": {"learning_rate": None}}, "training.learning_rate: got None; it must be of type float"),
    ({"training": {"teacher": [1]}}, "training.teacher: got 1; it must be of type str"),
    ({"run": {"threads": "all"}}, "run.threads: got 'all'; it must be of type int | null"),
    ({"run": {"progress": "yes"}}, "run.progress: got 'yes'; it must be of type bool"),
    ({"training": 3}, "training: got 3; it must be a section of keys and values"),
    ({"model": 3}, "model: got 3; it must have a 'name'"),
    ({"model": {"hidden": [3]}}, "model: got {'hidden': [3]}; it must have a 'name'"),
    ({"training": {"epochs": 0}}, "training.epochs: got 0; it must be at least 1"),
    ({"training": {"batch_size": 1}}, "training.batch_size: got 1; it must be at least 2"),
    ({"training": {"patience": 0}}, "training.patience: got 0; it must be at least 1"),
    ({"training": {"learning_rate": 0}}, "training.learning_rate: got 0.0; it must be above 0"),
    ({"training": {"learning_rate": "nan"}}, "training.learning_rate: got nan; it must be above 0"),
    ({"training": {"schedule": "cosin"}}, "training.schedule: got 'cosin'; it must be constant or cosine"),
    ({"training": {"weight_decay": -1}}, "training.weight_decay: got -1.0; it must be at least 0"),
    ({"training": {"embedding_penalty": -1}}, "training.embedding_penalty: got -1.0; it must be at least 0"),
    ({"research": {"embedding_dropout": 1}}, "research.embedding_dropout: got 1.0; it must be in [0, 1)"),
    ({"training": {"ema_decay": 1}}, "training.ema_decay: got 1.0; it must be in [0, 1)"),
    ({"training": {"ema_every": 0}}, "training.ema_every: got 0; it must be at least 1"),
    ({"training": {"label_weight": 2}}, "training.label_weight: got 2.0; it must be in [0, 1]"),
    ({"training": {"pairs": -1}}, "training.pairs: got -1.0; it must be at least 0"),
    (
        {"research": {"pairs_sampling": "row"}},
        "research.pairs_sampling: got 'row'; it must be rows, uniform,",
    ),
    ({"research": {"pairs_popularity": -1}}, "research.pairs_popularity: got -1.0; it must be at least 0"),
    (
        {"research": {"teacher_mean": "median"}},
        "research.teacher_mean: got 'median'; it must be probability or",
    ),
    (
        {"research": {"teacher_temperature": 0}},
        "research.teacher_temperature: got 0.0; it must be above 0 or",
    ),
    (
        {"research": {"teacher_temperature": "fit"}},
        "teacher_temperature: got 'fit'; it must be above 0 or fitted",
    ),
    ({"embedding": {"dim": 0}}, "embedding.dim: got 0; it must be at least 1"),
    ({"embedding": {"init_std": -1}}, "embedding.init_std: got -1.0; it must be above 0 or null"),
    (
        {"retrain": {"start": "fresh"}},
        "retrain.start: no such key; it is research.start, of the compact model's",
    ),
    (
        {"training": {"teacher_mean": "logit"}},
        "training.teacher_mean: no such key; it is research.teacher_mean",
    ),
    ({"research": {"strat": "fresh"}}, "research.strat: no such key (did you mean 'start'?"),
    ({"research": {1: 2}}, "research.1: no such key (choose from:"),
    ({"research": 3}, "research: got 3; it must be a section of keys and values"),
    ({"research": {"teacher_mean": 3}}, "research.teacher_mean: got 3; it must be of type str"),
    ({"search": {"budgets": []}}, "search.budgets: got (); it must be at least one"),
    ({"search": {"budgets": ["5 kg"]}}, "budget '5 kg': allowed are kept values (20000), a share (5%) or"),
    ({"search": {"budgets": [True]}}, "search.budgets: got True; it must be of type"),
    ({"search": {"epochs": 0}}, "search.epochs: got 0; it must be at least 1"),
    ({"search": {"batch_size": 1}}, "search.batch_size: got 1; it must be at least 2"),
    ({"search": {"learning_rate": -1}}, "search.learning_rate: got -1.0; it must be above 0"),
    (
        {"search": {"threshold_learning_rate": 0}},
        "search.threshold_learning_rate: got 0.0; it must be above 0",
    ),
    ({"search": {"weight_decay": -1}}, "search.weight_decay: got -1.0; it must be at least 0"),
    ({"search": {"embedding_penalty": -1}}, "search.embedding_penalty: got -1.0; it must be at least 0"),
    ({"search": {"check_every": 0}}, "search.check_every: got 0; it must be at least 1"),
    ({"retrain": {"form": "mask"}}, "retrain.form: got 'mask'; it must be sizes or positions"),
    ({"research": {"start": "trained"}}, "research.start: got 'trained'; it must be initial, fresh or dense"),
    ({"retrain": {"max_size": 0}}, "retrain.max_size: got 0; it must be at least 1 or null"),
    ({"retrain": {"size_step": 0}}, "retrain.size_step: got 0; it must be at least 1"),
    ({"retrain": {"epochs": 0}}, "retrain.epochs: got 0; it must be at least 1"),
    ({"run": {"threads": 0}}, "run.threads: got 0; it must be at least 1 or null"),
]


@pytest.mark.parametrize(("values", "message"), WRONG, ids=lambda value: str(value)[:30])
def test_a_mistake_is_named_with_what_is_allowed(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        from_dict(values)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["epochs=3"], "'epochs=3': overrides are written section.key=value"),
        (["training.epochs"], "'training.epochs': overrides are written section.key=value"),
        ([".epochs=3"], "'.epochs=3': overrides are written section.key=value"),
        (["training.epochs=[3"], "'training.epochs=[3': the value is not YAML"),
        (["trainig.epochs=3"], "no such section 'trainig' (did you mean 'training'?"),
        (["training.epochz=3"], "training.epochz: no such key (did you mean 'epochs'?"),
    ],
)
def test_a_mistaken_override_is_named(
    written: Callable[[str], Path], overrides: list[str], message: str
) -> None:
    with pytest.raises(UserError) as caught:
        load(written("model: deepfm\n"), overrides)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("training: {epochs: 3", "not a YAML file"),
        ("- a\n- b\n", "got a list; a config is sections of keys and values"),
        ("only text", "got a str; a config is sections of keys and values"),
        ("training: 5\n", "training: got 5; it must be a section of keys and values"),
        ("data: [a]\n", "data: got ['a']; it must have a 'name'"),
    ],
)
def test_a_mistaken_file_is_named(written: Callable[[str], Path], text: str, message: str) -> None:
    for overrides in ([], ["training.epochs=3"], ["data.name=table"]):
        with pytest.raises(UserError) as caught:
            load(written(text), overrides)
        assert message in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nosuch\.yaml: no such file; .* train/configs/"):
        load(tmp_path / "nosuch.yaml")
    with pytest.raises(UserError, match="cannot be read"):
        load(tmp_path)
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"binary\.yaml: not a YAML file"):
        load(tmp_path / "binary.yaml")


def changed() -> dict[str, Any]:
    """No value is the default."""
    return {
        "data": {"name": "table", "path": "x.csv", "fractions": [0.5, 0.25, 0.25]},
        "model": {"name": "autoint", "hidden": [4], "num_heads": 3},
        "method": {"name": "pep", "regime": "decay"},
        "embedding": {"dim": 5, "init_std": 0.1, "first_order": "uniform"},
        "training": {"teacher": ["runs/a", "runs/b"], "schedule": "cosine", "learning_rate": "1e-4"},
        "search": {"budgets": ["5%", 300], "threshold_learning_rate": 0.5},
        "retrain": {"max_size": None, "form": "positions", "teacher": []},
        "research": {"start": "fresh", "embedding_dropout": 0.1},
        "run": {"threads": 2, "output": "here", "progress": False},
    }


def test_a_config_reads_back_from_its_plain_values() -> None:
    for config in (from_dict(changed()), Config()):
        plain = config.to_dict()
        assert from_dict(plain) == config
        assert from_dict(yaml.safe_load(yaml.safe_dump(plain))) == config
    assert from_dict(changed()).retrain.teacher == ()
    assert from_dict(changed()).retrain.start == "fresh"


def test_every_key_says_what_it_means() -> None:
    """A sentence under each field."""
    import inspect

    from ondevice.config import sections as config

    source = inspect.getsource(config)
    for section in dataclasses.fields(Config):
        kind = type(getattr(Config(), section.name))
        if kind is not Choice:
            for entry in dataclasses.fields(kind):
                after = source.split(f"    {entry.name}: ", 1)[1].split("\n", 2)[1]
                assert after.strip().startswith('"""'), f"{section.name}.{entry.name}"


def own_copy(name: str, folders: dict[str, Path], folder: Path) -> str:
    """An override that names a few rows in the data set's own format."""
    if name in folders:
        return f"data.folder={folders[name]}"
    pytest.importorskip("pyarrow", reason="large data are read with pyarrow")
    lines = {"criteo": lambda: criteo_lines(800), "avazu": lambda: [HEADER, *avazu_lines(800)]}[name]()
    return f"data.path={write_lines(folder / 'train', lines)}"


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_that_comes_along_trains(
    path: Path,
    movielens_folder: Path,
    book_crossing_folder: Path,
    tmp_path: Path,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On a few rows in the data set's own files: a step of the dense model, then a whole compact run."""
    small = [
        own_copy(
            load(path).data.name,
            {"movielens_1m": movielens_folder, "book_crossing": book_crossing_folder},
            tmp_path,
        ),
        "data.max_rows=800",
        "embedding.dim=4",
        "training.epochs=1",
        "training.patience=1",
        "retrain.epochs=1",
        "retrain.patience=1",
        "run.progress=false",
        "run.device=cpu",
    ]
    if "epochs" in METHODS[load(path).method.name].search_keys:
        small.append("search.epochs=1")
    config = load(path, small)
    steps = []
    original = Fit._one_epoch
    monkeypatch.setattr(Fit, "_one_epoch", lambda self: steps.append(self.phase) or original(self))
    if config.method.options.get("regime") == "decay":  # its thresholds climb for thousands of steps
        search = SearchConfig(budgets=("50%",))  # 20,000 values are more than there are here
        config = dataclasses.replace(config, method=Choice("magnitude"), search=search)
    metrics = Pipeline(config, tmp_path / "run").run()
    further = sum(bool(own_teacher(name)) for name in config.retrain.teacher)
    assert steps[: 1 + further] == ["dense"] * (1 + further)
    ranked = config.method.name == "code_saliency"  # in a compact model that is trained first
    assert len(steps) == 1 + further + ranked + len(config.search.budgets)
    assert 0 < metrics["compact"]["kept_parameters"] < metrics["dense"]["parameters"]
    assert torch.isfinite(torch.tensor(metrics["dense"]["test_logloss"]))


def test_configs_come_along() -> None:
    assert CONFIGS


def test_a_section_can_be_written_as_its_name(written: Callable[[str], Path]) -> None:
    path = written("distributed: ddp\nmodel: fm\n")
    config = load(path, ["method=uniform", "distributed.timeout=60"])
    assert (config.distributed.mode, config.distributed.timeout) == ("ddp", 60)
    assert (config.model.name, config.method.name) == ("fm", "uniform")
    assert load(path, ["distributed=none"]).distributed.mode == "none"
    assert load(written("model: {name: deepfm, hidden: [8]}\n"), ["model=fm"]).model == Choice("fm")
    with pytest.raises(UserError, match=r"distributed.mode: got 'dpp'; it must be none, ddp or sharded"):
        load(path, ["distributed=dpp"])


def test_the_base_model_of_compact_models() -> None:
    model = {"name": "deepfm", "hidden": [8], "dropout": 0.5}

    def compact(**retrain: Any) -> Choice:
        return from_dict({"model": model, "retrain": {"model": retrain}}).compact_model

    assert compact() == Choice("deepfm", {"hidden": [8], "dropout": 0.5})
    assert compact(dropout=0) == Choice("deepfm", {"hidden": [8], "dropout": 0})
    assert compact(name="deepfm", hidden=[4]) == Choice("deepfm", {"hidden": [4], "dropout": 0.5})
    assert compact(name="fm") == Choice("fm")
