"""Studies: what is tried, that the test split stays unseen, and that trials are shared, stopped and taken up."""

from __future__ import annotations

import csv
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from ondevice.config.file import load
from ondevice.data import load_dataset
from ondevice.errors import UserError
from ondevice.run import prepared as prepared_run
from ondevice.run.pipeline import Pipeline
from ondevice.study.space import Parameter, Space, load_space
from ondevice.study.study import Study, StudyOptions
from ondevice.training.fit import Fit

from ..run.test_pipeline import UnreadSplit, with_splits
from ..runs import Make

optuna = pytest.importorskip("optuna", reason="studies need the extra ondevice-recommender[study]")
ROOT = Path(__file__).resolve().parents[2]
STATES = optuna.trial.TrialState

RATE = Parameter("train.learning_rate", "float", 1e-5, 1e-1, log=True)
DIM = Parameter("embedding.dim", "int", 2, 8, 2)
HIDDEN = Parameter("model.hidden", "categorical", choices=([8], [4, 4]))


@pytest.fixture
def config(tiny_config: Make, tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(tiny_config()))
    return path


def write(path: Path, content: Any) -> Path:
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def space_file(tmp_path: Path, objective: str = "dense", **parameters: Any) -> Path:
    given = parameters or {"train.learning_rate": {"type": "float", "low": 1e-4, "high": 0.1, "log": True}}
    return write(tmp_path / "space.yaml", {"objective": objective, "parameters": given})


def test_a_space_is_read(tmp_path: Path) -> None:
    path = write(
        tmp_path / "space.yaml",
        {
            "objective": "64KB",
            "parameters": {
                "train.learning_rate": {"type": "float", "low": "1e-5", "high": 0.1, "log": True},
                "embedding.dim": {"type": "int", "low": 2, "high": 8, "step": 2},
                "model.hidden": {"type": "categorical", "choices": [[8], [4, 4]]},
            },
        },
    )
    assert load_space(path) == Space("64KB", (RATE, DIM, HIDDEN))


@pytest.mark.parametrize(
    "path", sorted((ROOT / "train" / "configs").glob("*.space.yaml")), ids=lambda p: p.name
)
def test_the_spaces_that_come_along_fit_their_configs(path: Path) -> None:
    load_space(path).check(path.with_name(path.name.replace(".space", "")))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"type": "float", "low": 1}, r"train.epochs.high: got None; it must be a number"),
        ({"type": "float", "low": 2, "high": 1}, "low 2.0 is above high 1.0"),
        ({"type": "float", "low": 0, "high": 1, "log": True}, "needs low above 0"),
        ({"type": "int", "low": 1.5, "high": 2}, "low: got 1.5; it must be a whole number"),
        ({"type": "int", "low": 1, "high": 4, "step": 0}, "step: got 0; it must be above 0"),
        ({"type": "int", "low": 1, "high": 4, "log": 3}, "log: got 3; it must be true or false"),
        ({"type": "integer", "low": 1, "high": 4}, "it must have a 'type': float, int, categorical"),
        ({"type": "int", "min": 1, "high": 4}, r"has no such key \(choose from"),
        ({"type": "categorical", "choices": []}, "a list of at least one value"),
        (3, "it must have a 'type'"),
    ],
)
def test_a_parameter_that_is_none(tmp_path: Path, given: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_space(space_file(tmp_path, **{"train.epochs": given}))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1], "got no parameters"),
        ({"parameters": {}}, "'parameters' is empty"),
        ({"parameters": {"lr": {"type": "float", "low": 1, "high": 2}}}, "named section.key"),
        ({"parameters": {"a.b": {}}, "objectiv": "dense"}, "did you mean 'objective'"),
    ],
)
def test_a_file_that_is_no_space(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_space(write(tmp_path / "space.yaml", content))


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (
            Space("dense", (Parameter("train.learnin_rate", "float", 1e-3, 1e-2),)),
            "did you mean 'learning_rate'",
        ),
        (Space("dense", (Parameter("train.ema_decay", "float", 0.5, 1.5),)), r"ema_decay: got 1.5"),
        (
            Space("dense", (Parameter("compact.sizes.regime", "categorical", choices=("budget", "x")),)),
            "unknown 'x'",
        ),
        (Space("64KB", (RATE,)), "no such phase"),
    ],
)
def test_a_space_that_does_not_fit_is_told_before_anything_is_written(
    config: Path, tmp_path: Path, space: Space, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        Study(config, [], space, StudyOptions(tmp_path / "study", 3))
    assert not (tmp_path / "study").exists()


def test_values_are_those_of_the_command_line(config: Path) -> None:
    result = Space("dense", (RATE, HIDDEN)).config(
        config, ["train.epochs=3"], {"train.learning_rate": 1e-5, "model.hidden": [4, 4]}
    )
    assert result == load(config, ["train.epochs=3", "train.learning_rate=1.0e-5", "model.hidden=[4,4]"])
    assert result.train.learning_rate == 1e-5


def rows_of(study: Path) -> list[dict[str, str]]:
    with open(study / "trials.csv") as file:
        return list(csv.DictReader(file))


def test_a_study_ends_with_a_config_that_gives_its_best_value(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_config: Make
) -> None:
    """The test split is not read, and what train/run.py makes of best.yaml has the AUC of the best trial."""
    dataset = load_dataset(**tiny_config()["data"])
    unread = with_splits(dataset, test=UnreadSplit())  # type: ignore[arg-type]
    space = Space("50%", (RATE, DIM, HIDDEN))
    folder = tmp_path / "study"
    with monkeypatch.context() as patched:
        patched.setattr(prepared_run, "load_dataset", lambda *_, **__: unread)
        result = Study(config, ["train.epochs=1"], space, StudyOptions(folder, 4, seed=1)).run()
    assert result["trials"]["complete"] == 4
    rows = rows_of(folder)
    assert max(float(row["valid_auc"]) for row in rows) == result["valid_auc"]
    assert len({row["train.learning_rate"] for row in rows}) == 4
    for plot in ("optimization_history", "param_importances", "parallel_coordinate"):
        assert (folder / f"{plot}.png").read_bytes()[:4] == b"\x89PNG"
    assert not list((folder / "trials").rglob("*.safetensors"))
    best = load(folder / "best.yaml")
    assert best.run.test
    assert best.train.learning_rate == result["parameters"]["train.learning_rate"]
    metrics = Pipeline(best, tmp_path / "best").run()
    assert metrics["budgets"]["50pct"]["valid_auc"] == result["valid_auc"]
    assert 0 < metrics["budgets"]["50pct"]["test_auc"] < 1


def test_a_study_goes_on_where_it_was(config: Path, tmp_path: Path) -> None:
    space, folder = Space("dense", (RATE,)), tmp_path / "study"
    Study(config, ["train.epochs=1"], space, StudyOptions(folder, 2, seed=1)).run()
    result = Study(config, ["train.epochs=1"], space, StudyOptions(folder, 4, seed=1)).run()
    assert result["trials"]["complete"] == 4
    assert len({row["train.learning_rate"] for row in rows_of(folder)}) == 4
    for changed in (
        ("train.epochs=2", space, "config"),
        ("train.epochs=1", Space("dense", (DIM,)), "param"),
    ):
        with pytest.raises(UserError, match=f"was started with another {changed[2]}"):
            Study(config, [changed[0]], changed[1], StudyOptions(folder, 4))


def test_bad_trials_are_stopped_by_the_median(config: Path, tmp_path: Path) -> None:
    space = Space("dense", (Parameter("train.learning_rate", "float", 1e-6, 1e-1, log=True),))
    options = StudyOptions(tmp_path / "study", 12, seed=3, startup=3)
    result = Study(config, ["train.epochs=4", "train.patience=4"], space, options).run()
    pruned = [row for row in rows_of(tmp_path / "study") if row["state"] == "pruned"]
    complete = [row for row in rows_of(tmp_path / "study") if row["state"] == "complete"]
    assert pruned
    assert all(int(row["epochs"]) < 4 for row in pruned)
    assert all(int(row["epochs"]) == 4 for row in complete)
    assert result["valid_auc"] == max(float(row["valid_auc"]) for row in complete)


def test_trials_that_fail_are_counted_and_named(config: Path, tmp_path: Path) -> None:
    """A budget that some widths cannot meet."""
    space = Space("9KB", (Parameter("model.hidden", "categorical", choices=([900], [901])),))
    study = Study(config, ["compact.budgets=[9KB]"], space, StudyOptions(tmp_path / "study", 3))
    with pytest.raises(UserError, match="no trial was completed; budget 9KB"):
        study.run()
    assert [t.state for t in study.study.trials] == [STATES.FAIL] * 3


def test_a_trial_stopped_from_the_keyboard_is_taken_up_again(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space, folder = Space("dense", (RATE,)), tmp_path / "study"
    overrides = ["train.epochs=3", "train.patience=3"]
    finish, calls = Fit._finish_epoch, itertools.count()

    def interrupted(*arguments: Any) -> None:
        if next(calls) == 2:
            raise KeyboardInterrupt
        finish(*arguments)

    monkeypatch.setattr(Fit, "_finish_epoch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Study(config, overrides, space, StudyOptions(folder, 1)).run()
    calls = itertools.count(100)
    Study(config, overrides, space, StudyOptions(folder, 1)).run()
    assert next(calls) == 101  # the third epoch alone
    assert [(row["state"], row["epochs"]) for row in rows_of(folder)] == [("fail", "2"), ("complete", "3")]


def start(config: Path, space: Path, folder: Path, trials: int, *more: str) -> subprocess.Popen[str]:
    command = ["train/study.py", str(config), *more, "--space", str(space), f"--trials={trials}"]
    return subprocess.Popen(
        [sys.executable, *command, f"--output={folder}"],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


@pytest.mark.distributed
def test_two_processes_share_the_trials(config: Path, tmp_path: Path) -> None:
    space, folder = space_file(tmp_path), tmp_path / "study"
    both = [start(config, space, folder, 8) for _ in range(2)]
    outputs = [process.communicate(timeout=300)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    made = [output.count("valid AUC") - 1 + output.count("stopped after") for output in outputs]
    assert min(made) > 0, outputs
    assert 8 <= sum(made) <= 9, outputs  # the two may begin the last one at the same moment
    assert len(rows_of(folder)) == sum(made)


@pytest.mark.distributed
def test_a_killed_trial_is_taken_up_from_its_checkpoint(config: Path, tmp_path: Path) -> None:
    folder = tmp_path / "study"
    overrides = ["train.epochs=60", "train.patience=60"]
    killed = start(config, space_file(tmp_path), folder, 1, *overrides)
    checkpoint = folder / "trials" / "0000" / "checkpoints" / "dense.pt"
    wait_for(checkpoint.exists, killed)
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert not (folder / "trials.csv").exists()
    space = load_space(tmp_path / "space.yaml")
    study = Study(config, overrides, space, StudyOptions(folder, 1, heartbeat=1))
    assert [t.state for t in study.study.trials] == [STATES.RUNNING]
    time.sleep(2.5)  # two signs of life missed
    result = study.run()
    assert result["trials"] == {"running": 0, "complete": 1, "pruned": 0, "fail": 1, "waiting": 0}
    assert [path.name for path in (folder / "trials").iterdir()] == ["0000"]
    assert [row["epochs"] for row in rows_of(folder)][1] == "60"


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 300
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.005)
