"""Mistakes are found before anything is written or trained, and a run goes on only as it began."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ondevice.config.file import from_dict
from ondevice.data.schema import Schema
from ondevice.errors import UserError
from ondevice.run.directory import Run
from ondevice.run.pipeline import Pipeline
from ondevice.run.preflight import check_options

Make = Callable[..., dict[str, Any]]

WRONG = [
    ({"model": {"name": "deepfn"}}, "unknown model 'deepfn' (did you mean 'deepfm'?"),
    ({"model": {"name": "deepfm", "hiden": [8]}}, "model.hiden: model 'deepfm' has no such option (did you"),
    (
        {"model": {"name": "deepfm", "dropout": 7}},
        "model: 'deepfm' does not take {'dropout': 7}: dropout prob",
    ),
    ({"model": {"name": "deepfm", "hidden": 8}}, "model: 'deepfm' does not take {'hidden': 8}: "),
    ({"compact": {"sizes": {"name": "pepp"}}}, "unknown method 'pepp' (did you mean 'pep'?"),
    (
        {"compact": {"sizes": {"name": "pep", "regimes": "data"}}},
        "compact.sizes.regimes: method 'pep' has no such option",
    ),
    (
        {"compact": {"sizes": {"name": "pep", "regime": "dekay"}}},
        "compact.sizes.regime: unknown 'dekay' (did you mean 'decay'?",
    ),
    (
        {"compact": {"sizes": {"name": "pep", "granularity": "fields"}}},
        "compact.sizes.granularity: unknown 'fields' (did you",
    ),
    (
        {"compact": {"sizes": {"name": "pep", "threshold_init": "x"}}},
        "compact.sizes: 'pep' does not take {'threshold_init': 'x'}",
    ),
    ({"embedding": {"first_order": "unifrom"}}, "unknown method 'unifrom' (did you mean 'uniform'?"),
    ({"teach": {"teachers": "dense"}}, "teach.teachers: the dense model cannot be its own teacher"),
    ({"compact": {"teach": {"teachers": ["nosuch"]}}}, "nosuch: no run directory (config.yaml is missing)"),
    ({"research": {"start": "trained"}}, "research.start: got 'trained'; it must be initial, fresh or dense"),
    ({"run": {"device": "cudda"}}, "run.device: 'cudda' cannot be used here"),
    ({"data": {"name": "tabel"}}, "unknown data set 'tabel' (did you mean 'table'?"),
    ({"data": {"name": "table", "pathh": "x"}}, "data.pathh: data set 'table' has no such option"),
    ({"data": {"name": "table"}}, "data.schema: data set 'table' needs it"),
    (
        {"compact": {"budgets": [100, "64KB"], "store": {"name": "positions"}}},
        "compact.budgets: 64KB is in bytes, which are met by sizes; use compact.store=int8",
    ),
    (
        {"compact": {"sizes": {"name": "uniform"}, "store": {"name": "positions"}}},
        "compact.store.name: method 'uniform' ends in sizes, not positions",
    ),
]


@pytest.mark.parametrize(("sections", "message"), WRONG)
def test_a_mistake_leaves_no_directory(
    tiny_config: Make, tmp_path: Path, sections: dict[str, Any], message: str
) -> None:
    """So that the corrected command is not told that the directory is in use."""
    with pytest.raises(UserError) as caught:
        Pipeline(from_dict(tiny_config(**sections)), tmp_path / "run")
    assert message in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_options_that_fit_pass() -> None:
    check_options(from_dict({}))
    check_options(
        from_dict({"model": {"name": "autoint", "hidden": []}, "compact": {"sizes": {"name": "magnitude"}}})
    )


def test_layers_that_are_not_there_cannot_be_rounded(tiny_config: Make) -> None:
    pytest.importorskip("torchao", reason="rounds layers in training; without it, that is what is said")
    store = {"linear_bits": 4}
    with pytest.raises(UserError, match="the model has no hidden linear layer"):
        check_options(from_dict(tiny_config(model={"name": "fm"}, compact={"store": store})))
    with pytest.raises(UserError, match="the model has no hidden linear layer"):
        check_options(from_dict(tiny_config(compact={"store": store, "model": {"hidden": []}})))
    check_options(from_dict(tiny_config(compact={"store": store})))


def begun(tiny_config: Make, folder: Path) -> None:
    Pipeline(from_dict(tiny_config()), folder).progress.close()


def test_a_directory_in_use_is_left_as_it_is(tiny_config: Make, tmp_path: Path) -> None:
    begun(tiny_config, tmp_path / "run")
    before = (tmp_path / "run" / "config.yaml").read_text()
    with pytest.raises(UserError, match=r"already holds a run; add --resume"):
        Pipeline(from_dict(tiny_config(train={"epochs": 9})), tmp_path / "run")
    assert (tmp_path / "run" / "config.yaml").read_text() == before


@pytest.mark.parametrize("name", ["thesis.txt", "config.yml"])
def test_a_directory_of_something_else_is_refused(tiny_config: Make, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    for folder in (tmp_path, tmp_path / name):
        with pytest.raises(UserError, match="not empty and not a run directory"):
            Pipeline(from_dict(tiny_config()), folder, resume=True)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_what_a_killed_write_leaves_does_not_stop_a_run(tiny_config: Make, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".config.yaml.x3f9").write_text("data: {na")
    begun(tiny_config, tmp_path / "run")
    assert (tmp_path / "run" / "config.yaml").exists()


def test_a_resume_with_other_settings_names_the_key(tiny_config: Make, tmp_path: Path) -> None:
    begun(tiny_config, tmp_path / "run")
    before = (tmp_path / "run" / "config.yaml").read_text()
    for sections, message in (
        ({"train": {"epochs": 3}}, r"was started with train\.epochs=2, not 3; resume with the same"),
        ({"model": {"name": "fm"}}, r"was started with model\.name='deepfm', not 'fm'"),
        ({"run": {"seed": 4}}, r"was started with run\.seed=0, not 4"),
    ):
        with pytest.raises(UserError, match=message):
            Pipeline(from_dict(tiny_config(**sections)), tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "config.yaml").read_text() == before
    for sections in ({"run": {"threads": 1, "progress": False}}, {"compact": {"budgets": [200]}}):
        Pipeline(from_dict(tiny_config(**sections)), tmp_path / "run", resume=True).progress.close()


def test_a_resume_on_other_data_is_refused(tiny_config: Make, tmp_path: Path) -> None:
    """The table was written again in the meantime."""
    values = tiny_config()
    table = tmp_path / "own.csv"
    table.write_bytes(Path(values["data"]["path"]).read_bytes())
    values["data"]["path"] = str(table)
    Pipeline(from_dict(values), tmp_path / "run").progress.close()
    recorded = (tmp_path / "run" / "fingerprint").read_text()
    table.write_text(table.read_text() + "1,2,film 3,1\n")
    with pytest.raises(UserError, match=r"was started on other data \(fingerprint .*, now "):
        Pipeline(from_dict(values), tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "fingerprint").read_text() == recorded


def test_a_teacher_of_other_data_is_refused(tiny_config: Make, tmp_path: Path) -> None:
    values = tiny_config()
    Pipeline(
        from_dict({**values, "data": {**values["data"], "seed": 5}}), tmp_path / "other"
    ).progress.close()
    (tmp_path / "other" / "dense").mkdir()  # the model itself is read later
    taught = tiny_config(compact={"teach": {"teachers": [str(tmp_path / "other")]}})
    with pytest.raises(UserError, match="trained on other data or another split"):
        Pipeline(from_dict(taught), tmp_path / "run")


@pytest.mark.parametrize("section", ["dense", "compact"])
def test_a_missing_teacher_is_told_before_data_are_fetched(
    tiny_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, section: str
) -> None:
    def fetched(*_: object, **__: object) -> None:
        raise AssertionError("the data were fetched")

    monkeypatch.setattr("ondevice.run.prepared.load_dataset", fetched)
    missing, empty = tmp_path / "none", tmp_path / "untrained"
    empty.mkdir()
    (empty / "config.yaml").write_text("{}")
    for folder, message in (
        (missing, f"teacher {missing}: {missing}: no run directory (config.yaml is missing)"),
        (empty, f"teacher {empty}: {empty}/dense: no dense model of that name; there are: none"),
    ):
        teach = {"teach": {"teachers": [str(folder)]}}
        values = tiny_config(**(teach if section == "dense" else {"compact": teach}))
        with pytest.raises(UserError) as caught:
            Pipeline(from_dict(values), tmp_path / "run")
        assert str(caught.value).startswith(message)
    assert not (tmp_path / "run").exists()


def test_pairs_of_a_schema_without_sides_are_told_at_once(
    tiny_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Schema, "item_fields", property(lambda self: ()))
    taught = tiny_config(compact={"teach": {"teachers": ["dense"]}})
    with pytest.raises(
        UserError, match=r"compact.teach.pairs: .* are on one side; set compact.teach.pairs=0"
    ):
        Pipeline(from_dict(taught), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    alone = tiny_config(compact={"teach": {"teachers": ["dense"], "pairs": 0}})
    Pipeline(from_dict(alone), tmp_path / "run")


def test_a_run_of_an_earlier_version_is_told_apart(tiny_config: Make, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("training: {epochs: 2}\nretrain: {form: sizes}\n")
    message = f"{tmp_path}: written by an earlier version of ondevice, whose config.yaml had other sections; "
    for use in (lambda: Run(tmp_path), lambda: Pipeline(from_dict(tiny_config()), tmp_path, resume=True)):
        with pytest.raises(UserError) as caught:
            use()
        assert str(caught.value) == message + "train it again"
