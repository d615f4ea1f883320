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
from ondevice.config.sections import Choice, CompactConfig, Config, SizesConfig, TrainConfig
from ondevice.config.stores import Positions
from ondevice.errors import ConfigError, UserError
from ondevice.methods import METHODS
from ondevice.run.pipeline import Pipeline
from ondevice.training.fit import Fit
from ondevice.training.teacher import dense_number

from ..data.preparation.rows import HEADER, avazu_lines, criteo_lines, write_lines
from ..optional import torchao_or_skip

CONFIGS = sorted(
    path
    for path in (Path(__file__).resolve().parents[2] / "train" / "configs").glob("*.yaml")
    if not path.name.endswith((".schema.yaml", ".space.yaml"))
)
OF_ROWS = [path for path in CONFIGS if "next_item" not in path.name]
"""Those of the next item: tests/run/test_next_item.py."""


def test_overrides_win_over_the_file_and_the_file_over_defaults(written: Callable[[str], Path]) -> None:
    path = written("train: {epochs: 4, batch_size: 64}\nembedding: {dim: 8}\n")
    config = load(path, ["train.epochs=7", "run.seed=3"])
    assert (config.train.epochs, config.train.batch_size) == (7, 64)
    assert (config.embedding.dim, config.run.seed) == (8, 3)
    assert config.train.patience == TrainConfig().patience


def test_an_override_may_give_a_whole_section(written: Callable[[str], Path]) -> None:
    """The options of what was named before go, whatever the order of the keys is; it was a traceback."""
    path = written("model: {name: deepfm, hidden: [8]}\n")
    for text in ("{name: autoint, num_heads: 2}", "{num_heads: 2, name: autoint}"):
        assert load(path, [f"model={text}"]).model == Choice("autoint", {"num_heads": 2})
    store = load(path, ["compact.store={code_dims: 4, size_step: 4, max_size: 8, name: codes}"]).compact.store
    assert store == load(path, ["compact.store=codes", *OF_CODES]).compact.store
    assert load(path, ["model={hidden: [9]}"]).model == Choice("deepfm", {"hidden": [9]})


OF_CODES = ("compact.store.code_dims=4", "compact.store.size_step=4", "compact.store.max_size=8")


def test_an_empty_file_is_all_defaults(written: Callable[[str], Path]) -> None:
    assert load(written("")) == Config() == from_dict({})
    assert load(written("train:\ncompact: {store: null, sizes:}\n")) == Config()


def test_overrides_are_read_as_yaml(written: Callable[[str], Path]) -> None:
    config = load(
        written("model: deepfm\n"),
        [
            "model.hidden=[64, 32]",
            "run.threads=null",
            "run.progress=false",
            "data.path=a=b",
            "compact.budgets=5%",
        ],
    )
    assert config.model == Choice("deepfm", {"hidden": [64, 32]})
    assert config.run.threads is None
    assert config.run.progress is False
    assert config.data.options == {"path": "a=b"}
    assert config.compact.budgets == ("5%",)


def test_another_entry_does_not_inherit_options(written: Callable[[str], Path]) -> None:
    path = written("model: {name: deepfm, hidden: [8]}\n")
    assert load(path, ["model.name=fm"]).model == Choice("fm", {})
    assert load(path, ["model.name=deepfm"]).model == Choice("deepfm", {"hidden": [8]})
    assert load(path, ["model.name=autoint", "model.num_heads=1"]).model.options == {"num_heads": 1}


def test_numbers_widen_and_nothing_else_is_guessed() -> None:
    """YAML 1.1 reads 1e-3 as text and 1 as an integer."""
    train = from_dict(yaml.safe_load("train: {learning_rate: 1e-3, weight_decay: 0}")).train
    assert (train.learning_rate, train.weight_decay) == (0.001, 0.0)
    assert isinstance(train.weight_decay, float)
    assert from_dict({"embedding": {"init_std": "1e-2"}}).embedding.init_std == 0.01
    assert from_dict({"compact": {"teach": {"teachers": "dense"}}}).compact.teach.teachers == ("dense",)


def test_retraining_takes_nothing_from_training() -> None:
    config = from_dict(
        {
            "train": {"epochs": 4, "batch_size": 64},
            "compact": {"train": {"epochs": 9}, "store": {"max_size": 8}},
        }
    )
    assert (config.compact.train.epochs, config.compact.store.max_size) == (9, 8)
    assert config.compact.train.batch_size == TrainConfig().batch_size
    assert from_dict({"train": {"epochs": 4}}).compact == CompactConfig()


WRONG = [
    (
        {"trainig": {"epochs": 3}},
        "no such section 'trainig' (did you mean 'train'? choose from: compact, data, distributed, embedding, model, "
        "plugins, recipe, research, run, teach, train)",
    ),
    (
        {"train": {"epoch": 3}},
        "train.epoch: no such key (did you mean 'epochs'? choose from: batch_size",
    ),
    (
        {"compact": {"store": {"max_sise": 3}}},
        "compact.store.max_sise: store 'int8' has no such option (did you mean 'max_size'?",
    ),
    (
        {"compact": {"store": {"code_levels": 2}}},
        "compact.store.code_levels: store 'int8' has no such option (choose from: fingerprint_bits, first_order,",
    ),
    ({"compact": {"store": "positions", "size": {}}}, "compact.size: no such key (did you mean 'sizes'?"),
    (
        {"compact": {"store": {"name": "codes", "code_dims": 3}}},
        "compact.store.size_step: got 2; it must be a multiple of code_dims, and max_size as well",
    ),
    (
        {"compact": {"store": {"name": "codes", "code_levels": 2}}},
        "compact.store.code_levels: got 2; it must be 1 without max_size",
    ),
    (
        {"compact": {"endpoints": ["recommend"]}},
        "compact.endpoints: got ('recommend',); it must be forward or rank, too: a bundle is proven by scores of rows",
    ),
    ({"compact": 3}, "compact: got 3; it must be a section of keys and values"),
    ({"compact": {"train": 3}}, "compact.train: got 3; it must be a section of keys and values"),
    ({"compact": {"sizes": 3}}, "compact.sizes: got 3; it must be a section of keys and values"),
    ({"compact": {"sizes": {"name": 3}}}, "compact.sizes.name: got 3; it must be of type str"),
    ({"train": {1: 2}}, "train.1: no such key (choose from:"),
    ({"train": {"epochs": 2.5}}, "train.epochs: got 2.5; it must be of type int"),
    ({"train": {"epochs": True}}, "train.epochs: got True; it must be of type int"),
    ({"train": {"epochs": "three"}}, "train.epochs: got 'three'; it must be of type int"),
    ({"train": {"learning_rate": "fast"}}, "train.learning_rate: got 'fast'; it must be of type float"),
    ({"train": {"learning_rate": True}}, "train.learning_rate: got True; it must be of type float"),
    ({"train": {"learning_rate": None}}, "train.learning_rate: got None; it must be of type float"),
    ({"teach": {"teachers": [1]}}, "teach.teachers: got 1; it must be of type str"),
    ({"run": {"threads": "all"}}, "run.threads: got 'all'; it must be of type int | null"),
    ({"run": {"progress": "yes"}}, "run.progress: got 'yes'; it must be of type bool"),
    ({"train": 3}, "train: got 3; it must be a section of keys and values"),
    ({"model": 3}, "model: got 3; it must have a 'name'"),
    ({"model": {"hidden": [3]}}, "model: got {'hidden': [3]}; it must have a 'name'"),
    ({"train": {"epochs": 0}}, "train.epochs: got 0; it must be at least 1"),
    ({"train": {"batch_size": 1}}, "train.batch_size: got 1; it must be at least 2"),
    ({"train": {"patience": 0}}, "train.patience: got 0; it must be at least 1"),
    ({"train": {"learning_rate": 0}}, "train.learning_rate: got 0.0; it must be above 0"),
    ({"train": {"learning_rate": "nan"}}, "train.learning_rate: got nan; it must be above 0"),
    ({"train": {"schedule": "cosin"}}, "train.schedule: got 'cosin'; it must be constant or cosine"),
    ({"train": {"weight_decay": -1}}, "train.weight_decay: got -1.0; it must be at least 0"),
    ({"train": {"embedding_penalty": -1}}, "train.embedding_penalty: got -1.0; it must be at least 0"),
    ({"research": {"embedding_dropout": 1}}, "research.embedding_dropout: got 1.0; it must be in [0, 1)"),
    ({"train": {"ema_decay": 1}}, "train.ema_decay: got 1.0; it must be in [0, 1)"),
    ({"train": {"ema_every": 0}}, "train.ema_every: got 0; it must be at least 1"),
    ({"teach": {"label_weight": 2}}, "teach.label_weight: got 2.0; it must be in [0, 1]"),
    ({"teach": {"pairs": -1}}, "teach.pairs: got -1.0; it must be at least 0"),
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
        {"compact": {"train": {"start": "fresh"}}},
        "compact.train.start: no such key; it is research.start",
    ),
    (
        {"train": {"teacher_mean": "logit"}},
        "train.teacher_mean: no such key; it is research.teacher_mean",
    ),
    ({"research": {"strat": "fresh"}}, "research.strat: no such key (did you mean 'start'?"),
    ({"research": {1: 2}}, "research.1: no such key (choose from:"),
    ({"research": 3}, "research: got 3; it must be a section of keys and values"),
    ({"research": {"teacher_mean": 3}}, "research.teacher_mean: got 3; it must be of type str"),
    ({"compact": {"budgets": []}}, "compact.budgets: got (); it must be at least one"),
    ({"compact": {"budgets": ["5 kg"]}}, "budget '5 kg': allowed are kept values (20000), a share (5%) or"),
    ({"compact": {"budgets": [True]}}, "compact.budgets: got True; it must be of type"),
    ({"compact": {"sizes": {"epochs": 0}}}, "compact.sizes.epochs: got 0; it must be at least 1"),
    ({"compact": {"sizes": {"batch_size": 1}}}, "compact.sizes.batch_size: got 1; it must be at least 2"),
    (
        {"compact": {"sizes": {"learning_rate": -1}}},
        "compact.sizes.learning_rate: got -1.0; it must be above 0",
    ),
    (
        {"compact": {"sizes": {"threshold_learning_rate": 0}}},
        "compact.sizes.threshold_learning_rate: got 0.0; it must be above 0",
    ),
    (
        {"compact": {"sizes": {"weight_decay": -1}}},
        "compact.sizes.weight_decay: got -1.0; it must be at least 0",
    ),
    (
        {"compact": {"sizes": {"embedding_penalty": -1}}},
        "compact.sizes.embedding_penalty: got -1.0; it must be at least 0",
    ),
    ({"compact": {"sizes": {"check_every": 0}}}, "compact.sizes.check_every: got 0; it must be at least 1"),
    (
        {"compact": {"store": {"name": "mask"}}},
        "compact.store.name: unknown store 'mask' (choose from: codes, int8, positions)",
    ),
    ({"compact": {"store": {"max_size": 0}}}, "compact.store.max_size: got 0; it must be at least 1 or null"),
    ({"compact": {"store": {"size_step": 0}}}, "compact.store.size_step: got 0; it must be at least 1"),
    ({"compact": {"train": {"epochs": 0}}}, "compact.train.epochs: got 0; it must be at least 1"),
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
        (["train.epochs"], "'train.epochs': overrides are written section.key=value"),
        ([".epochs=3"], "'.epochs=3': overrides are written section.key=value"),
        (["train.epochs=[3"], "'train.epochs=[3': the value is not YAML"),
        (["trainig.epochs=3"], "no such section 'trainig' (did you mean 'train'?"),
        (["train.epochz=3"], "train.epochz: no such key (did you mean 'epochs'?"),
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
        ("train: {epochs: 3", "not a YAML file"),
        ("- a\n- b\n", "got a list; a config is sections of keys and values"),
        ("only text", "got a str; a config is sections of keys and values"),
        ("train: 5\n", "train: got 5; it must be a section of keys and values"),
        ("data: [a]\n", "data: got ['a']; it must have a 'name'"),
    ],
)
def test_a_mistaken_file_is_named(written: Callable[[str], Path], text: str, message: str) -> None:
    for overrides in ([], ["train.epochs=3"], ["data.name=table"]):
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
        "compact": {
            "sizes": {"name": "pep", "regime": "decay", "threshold_learning_rate": 0.5},
            "budgets": ["5%", 300],
            "store": {"name": "positions", "linear_bits": 4},
            "teach": {"teachers": ["dense"]},
            "train": {"elastic": False, "epochs": 3},
        },
        "teach": {"teachers": ["runs/a", "runs/b"]},
        "train": {"schedule": "cosine", "learning_rate": "1e-4"},
        "embedding": {"dim": 5, "init_std": 0.1, "first_order": "uniform"},
        "research": {"start": "fresh", "embedding_dropout": 0.1},
        "run": {"threads": 2, "output": "here", "progress": False},
    }


def test_a_config_reads_back_from_its_plain_values() -> None:
    for config in (from_dict(changed()), Config()):
        plain = config.to_dict()
        assert from_dict(plain) == config
        assert from_dict(yaml.safe_load(yaml.safe_dump(plain))) == config
    assert from_dict(changed()).compact.teach.teachers == ("dense",)
    assert from_dict(changed()).compact.store == Positions(linear_bits=4)


def own_copy(name: str, folders: dict[str, Path], folder: Path) -> str:
    """An override that names a few rows in the data set's own format."""
    if name in folders:
        return f"data.folder={folders[name]}"
    pytest.importorskip("pyarrow", reason="large data are read with pyarrow")
    lines = {"criteo": lambda: criteo_lines(800), "avazu": lambda: [HEADER, *avazu_lines(800)]}[name]()
    return f"data.path={write_lines(folder / 'train', lines)}"


@pytest.mark.parametrize("path", OF_ROWS, ids=lambda path: path.stem)
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
        "train.epochs=1",
        "train.patience=1",
        "compact.train.epochs=1",
        "compact.train.patience=1",
        "run.progress=false",
        "run.device=cpu",
    ]
    if "epochs" in METHODS[load(path).compact.sizes.name].search_keys:
        small.append("compact.sizes.epochs=1")
    config = load(path, small)
    steps = []
    original = Fit._one_epoch
    monkeypatch.setattr(Fit, "_one_epoch", lambda self: steps.append(self.phase) or original(self))
    if config.compact.sizes.options.get("regime") == "decay":  # its thresholds climb for thousands of steps
        # 20,000 values are more than there are here
        compact = dataclasses.replace(config.compact, budgets=("50%",), sizes=SizesConfig("magnitude"))
        config = dataclasses.replace(config, compact=compact)
    with torchao_or_skip():
        metrics = Pipeline(config, tmp_path / "run").run()
    further = sum(bool(dense_number(name)) for name in config.compact.teach.teachers)
    assert steps[: 1 + further] == ["dense"] * (1 + further)
    ranked = config.compact.sizes.name in ("code_saliency", "gem")  # in a model that is trained first
    assert len(steps) == 1 + further + ranked + len(config.compact.budgets)
    assert 0 < metrics["compact"]["kept_parameters"] < metrics["dense"]["parameters"]
    assert torch.isfinite(torch.tensor(metrics["dense"]["test_logloss"]))


def test_configs_come_along() -> None:
    assert OF_ROWS


def test_a_section_can_be_written_as_its_name(written: Callable[[str], Path]) -> None:
    path = written("distributed: ddp\nmodel: fm\n")
    config = load(path, ["compact.sizes=uniform", "distributed.timeout=60"])
    assert (config.distributed.mode, config.distributed.timeout) == ("ddp", 60)
    assert (config.model.name, config.compact.sizes.name) == ("fm", "uniform")
    assert load(path, ["distributed=none"]).distributed.mode == "none"
    assert load(written("model: {name: deepfm, hidden: [8]}\n"), ["model=fm"]).model == Choice("fm")
    with pytest.raises(UserError, match=r"distributed.mode: got 'dpp'; it must be none, ddp or sharded"):
        load(path, ["distributed=dpp"])


def test_the_base_model_of_compact_models() -> None:
    model = {"name": "deepfm", "hidden": [8], "dropout": 0.5}

    def compact(**given: Any) -> Choice:
        return from_dict({"model": model, "compact": {"model": given}}).compact_model

    assert compact() == Choice("deepfm", {"hidden": [8], "dropout": 0.5})
    assert compact(dropout=0) == Choice("deepfm", {"hidden": [8], "dropout": 0})
    assert compact(name="deepfm", hidden=[4]) == Choice("deepfm", {"hidden": [4], "dropout": 0.5})
    assert compact(name="fm") == Choice("fm")
