"""A study of hyper-parameters: trials over a search space, each scored by its validation AUC.

Trials never read the test split. They are shared, through Optuna's storage, by all processes that name it; a
trial whose process was killed is taken up again from its last checkpoint.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import shutil
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ondevice.config.budget import budget_label
from ondevice.config.sections import Config
from ondevice.errors import ConfigError, MissingPackage, UserError
from ondevice.files import atomic_write
from ondevice.run.pipeline import Pipeline
from ondevice.study.space import Space

PLOTS = ("optimization_history", "param_importances", "parallel_coordinate")


@dataclass(frozen=True)
class StudyOptions:
    """How a study is run.

    Args:
        output: folder of the study: trials, plots, best.yaml.
        trials: how many the study has when it is finished, over all its processes and restarts.
        storage: URL of Optuna's storage; None for a SQLite file in ``output``.
        name: of the study in the storage; None for the folder's.
        seed: of the sampler; None draws one. With several processes the order of trials is not reproducible.
        startup: trials before any is pruned.
        heartbeat: seconds between signs of life of a trial; after two without one it counts as killed.
    """

    output: Path
    trials: int
    storage: str | None = None
    name: str | None = None
    seed: int | None = None
    startup: int = 5
    heartbeat: int = 60

    def __post_init__(self) -> None:
        if self.trials < 1:
            raise ConfigError(f"--trials: got {self.trials}; it must be at least 1")

    @property
    def url(self) -> str:
        return self.storage or f"sqlite:///{self.output / 'study.db'}"


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise MissingPackage("a study needs Optuna: pip install 'ondevice-recommender[study]'") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


@contextlib.contextmanager
def _without_notices() -> Iterator[None]:
    """Heartbeats and plots are marked experimental; what is used of them is tested here."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=_optuna().exceptions.ExperimentalWarning)
        yield


class Study:
    """Trials of a configuration over a space.

    Args:
        config: the YAML file that all trials begin with.
        overrides: ``section.key=value`` changes to it.
        space: objective and parameters.
        options: how the study is run.

    Raises: UserError: when the space does not fit the configuration, Optuna is missing, or the storage holds
        another study under this name.
    """

    def __init__(
        self, config: str | Path, overrides: Sequence[str], space: Space, options: StudyOptions
    ) -> None:
        self.path, self.overrides, self.space, self.options = config, tuple(overrides), space, options
        space.check(config, overrides)
        options.output.mkdir(parents=True, exist_ok=True)
        with _without_notices():
            self.study = self._open()

    def _open(self) -> Any:
        optuna = _optuna()
        options = self.options
        pruner = optuna.pruners.MedianPruner(n_startup_trials=options.startup, n_warmup_steps=1)
        self._retry = optuna.storages.RetryHeartbeatStaleTrialCallback(inherit_intermediate_values=True)
        for attempt in range(4):
            try:
                storage = optuna.storages.RDBStorage(
                    options.url,
                    engine_kwargs={"connect_args": {"timeout": 60}} if "sqlite" in options.url else None,
                    heartbeat_interval=options.heartbeat,
                    heartbeat_stale_trial_callback=self._retry,
                )
                study = optuna.create_study(
                    storage=storage,
                    pruner=pruner,
                    study_name=options.name or options.output.resolve().name,
                    direction="maximize",
                    load_if_exists=True,
                )
                break
            except Exception as error:
                # of two processes that make the tables at the same moment the slower one fails, and finds them made
                if attempt == 3:
                    reason = str(error).splitlines()[0]
                    raise UserError(f"--storage {options.url}: cannot be opened: {reason}") from None
                time.sleep(0.3)
        self._check_same(study)
        # a seed that began anew at every start would try the first trials again
        seed = None if options.seed is None else options.seed + len(study.trials)
        study.sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=True)
        return study

    def _check_same(self, study: Any) -> None:
        """Trials of other settings are not comparable."""
        plain = self.space.config(self.path, self.overrides).to_dict()
        plain["run"] = {"seed": plain["run"]["seed"]}
        parameters = [str(parameter) for parameter in self.space.parameters]
        identity = {"config": plain, "objective": self.space.objective, "parameters": parameters}
        given = study.user_attrs.get("identity")
        if given is None:
            study.set_user_attr("identity", identity)
            return
        for part, value in json.loads(json.dumps(identity)).items():
            if given[part] != value:
                raise UserError(
                    f"study '{study.study_name}' in {self.options.url}: was started with another {part}; resume "
                    "it with the same files, or name another --output or --name"
                )

    def run(self) -> dict[str, Any]:
        """Make the trials that are missing, then write the plots and ``best.yaml``; returns what was found.

        Raises: UserError: when no trial could be completed.
        """
        optuna = _optuna()
        with _without_notices():
            while self._some_missing():
                self.study.optimize(self._trial, n_trials=1, catch=(ValueError,))
            return self._finish(optuna)

    def _some_missing(self) -> bool:
        """Whether a trial is to be made: one that waits to be taken up again, or one more of those wanted."""
        optuna = _optuna()
        optuna.storages.fail_stale_trials(self.study)
        trials = self.study.get_trials(deepcopy=False)
        waiting = any(t.state == optuna.trial.TrialState.WAITING for t in trials)
        return waiting or len({self._root(t) for t in trials}) < self.options.trials

    def _stored(self, trial: Any) -> Any:
        """A trial as the storage has it."""
        return self.study.get_trials()[trial.number]

    @staticmethod
    def _root(trial: Any) -> int:
        """The number of the trial that this one is, or takes up again."""
        first = _optuna().storages.RetryHeartbeatStaleTrialCallback.retried_trial_number(trial)
        return int(trial.number if first is None else first)

    def _trial(self, trial: Any) -> float:
        """One trial, or the rest of one; returns the objective's validation AUC."""
        optuna = _optuna()
        values = {p.key: p.suggest(trial) for p in self.space.parameters}
        folder = self.options.output / "trials" / f"{self._root(self._stored(trial)):04d}"
        try:
            auc = self._train(trial, values, folder)
        except optuna.TrialPruned as pruned:
            _remove_weights(folder)
            self._say(trial, f"stopped {pruned}")
            raise
        except KeyboardInterrupt:
            # a stop from the keyboard is no failure: the next start goes on where this one was
            self._retry(self.study, self._stored(trial))
            raise
        except ValueError as error:
            trial.set_user_attr("reason", str(error))
            self._say(trial, f"failed: {error}")
            raise
        _remove_weights(folder)
        self._say(trial, f"valid AUC {auc:.4f}")
        return auc

    def _train(self, trial: Any, values: dict[str, Any], folder: Path) -> float:
        config = self.space.config(self.path, self.overrides, values)
        config = replace(config, run=replace(config.run, test=False, output=None))
        objective = self.space.objective
        phase = "dense" if objective == "dense" else f"retrain-{budget_label(objective)}"

        def report(trained: str, epoch: int, values: dict[str, float]) -> None:
            """Tell the pruner each epoch's validation AUC of the phase that counts."""
            if trained == phase:
                trial.report(values["valid_auc"], epoch)
                if trial.should_prune():
                    raise _optuna().TrialPruned(f"after {epoch} epochs")

        pipeline = Pipeline(config, folder, resume=True, on_epoch=report)
        try:
            return valid_auc(pipeline, objective)
        finally:
            pipeline.progress.close()

    def _say(self, trial: Any, text: str) -> None:
        print(f"trial {trial.number}: {text}  {json.dumps(trial.params)}", flush=True)

    def _finish(self, optuna: Any) -> dict[str, Any]:
        states = optuna.trial.TrialState
        trials = self.study.get_trials(deepcopy=False)
        running = sum(t.state == states.RUNNING for t in trials)
        if running:
            print(
                f"{running} trials are still running in other processes; if one of those was killed, start again "
                f"after {2 * self.options.heartbeat} s to take it up"
            )
        complete = [t for t in trials if t.state == states.COMPLETE]
        if not complete:
            reasons = {t.user_attrs["reason"] for t in trials if "reason" in t.user_attrs}
            raise UserError(
                f"study: no trial was completed; {'; '.join(sorted(reasons)) or 'all were stopped'}"
            )
        best = self.study.best_trial
        values = {p.key: p.value(best.params[p.key]) for p in self.space.parameters}
        write_config(self.options.output / "best.yaml", self.space.config(self.path, self.overrides, values))
        atomic_write(self.options.output / "trials.csv", self._table(trials))
        write_plots(self.study, self.options.output)
        return {
            "valid_auc": best.value,
            "trial": best.number,
            "parameters": values,
            "trials": {state.name.lower(): sum(t.state == state for t in trials) for state in states},
        }

    def _table(self, trials: Sequence[Any]) -> str:
        """All trials as CSV."""
        text = io.StringIO()
        keys = [parameter.key for parameter in self.space.parameters]
        table = csv.writer(text, lineterminator="\n")
        table.writerow(["trial", "state", "valid_auc", "epochs", *keys])
        for t in trials:
            given = [t.params.get(key, "") for key in keys]
            table.writerow([t.number, t.state.name.lower(), t.value, len(t.intermediate_values), *given])
        return text.getvalue()


def valid_auc(pipeline: Pipeline, objective: str) -> float:
    """Train as far as a phase needs, and return its validation AUC.

    Args:
        pipeline: of the trial.
        objective: ``dense`` or a budget.
    """
    dense = pipeline.dense()
    if objective == "dense":
        return float(pipeline.state["dense"]["valid_auc"])
    targets = pipeline.targets()
    forms = pipeline.search(dense, sorted(set(targets.values()), reverse=True))
    budget = next(budget for budget in targets if str(budget) == objective)
    pipeline.retrain(budget, forms[targets[budget]], targets[budget], dense)
    return float(pipeline.state["compact"][budget_label(budget)]["valid_auc"])


def write_config(path: Path, config: Config) -> None:
    """Write a configuration for ``train/run.py``."""
    import yaml

    atomic_write(path, yaml.safe_dump(config.to_dict(), sort_keys=False))


def write_plots(study: Any, folder: Path) -> None:
    """The study's plots as PNG; importances only where two completed trials differ in value."""
    try:
        import matplotlib
    except ImportError:
        raise MissingPackage(
            "a study's plots need matplotlib: pip install 'ondevice-recommender[study]'"
        ) from None
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from optuna.visualization import matplotlib as drawn

    complete = study.get_trials(deepcopy=False, states=(_optuna().trial.TrialState.COMPLETE,))
    for name in PLOTS:
        if name == "param_importances" and len({trial.value for trial in complete}) < 2:
            continue
        image = io.BytesIO()
        with warnings.catch_warnings(), plt.rc_context():  # Optuna sets a style for all figures, for good
            warnings.filterwarnings(
                "ignore", message="Attempting to set identical"
            )  # one trial, or one value
            axes = getattr(drawn, f"plot_{name}")(study)
            axes.figure.savefig(image, format="png", dpi=120, bbox_inches="tight")
            plt.close(axes.figure)
        atomic_write(folder / f"{name}.png", image.getvalue())


def _remove_weights(folder: Path) -> None:
    """Of a finished trial its configuration and curves stay; best.yaml trains the weights again."""
    for part in ("dense", "budgets", "checkpoints", "vocabulary"):
        path = folder / part
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    for path in folder.glob("*.safetensors"):
        path.unlink()
