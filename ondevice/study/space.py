"""A study's search space: which keys of a configuration are tried over which values, read from YAML.

objective: dense                  # or a budget of compact.budgets, as written there
parameters:
  train.learning_rate: {type: float, low: 1.0e-4, high: 1.0e-2, log: true}
  compact.train.patience: {type: int, low: 2, high: 10, step: 2}
  model.hidden: {type: categorical, choices: [[100, 100], [200]]}
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ondevice.config.file import load
from ondevice.config.sections import Config
from ondevice.errors import ConfigError, nearest

KEYS = {
    "float": ("low", "high", "step", "log"),
    "int": ("low", "high", "step", "log"),
    "categorical": ("choices",),
}


@dataclass(frozen=True)
class Parameter:
    """The values that one key of a configuration may take.

    Args:
        key: ``section.key``.
        kind: ``float``, ``int`` or ``categorical``.
        low: smallest number.
        high: largest number.
        step: distance of the numbers tried; None for any.
        log: whether numbers are drawn evenly over their logarithm.
        choices: what a categorical parameter may be.
    """

    key: str
    kind: str
    low: Any = None
    high: Any = None
    step: Any = None
    log: bool = False
    choices: tuple[Any, ...] = ()

    def suggest(self, trial: Any) -> Any:
        """The value that an Optuna trial tries."""
        if self.kind == "float":
            return trial.suggest_float(self.key, self.low, self.high, step=self.step, log=self.log)
        if self.kind == "int":
            return trial.suggest_int(self.key, self.low, self.high, step=self.step or 1, log=self.log)
        return self.value(trial.suggest_categorical(self.key, [self.label(c) for c in self.choices]))

    @staticmethod
    def label(choice: Any) -> Any:
        """A choice as a study's storage takes it: lists and sections as JSON."""
        return json.dumps(choice) if isinstance(choice, (list, dict)) else choice

    def value(self, stored: Any) -> Any:
        """The value that `label` stands for."""
        if self.kind != "categorical":
            return stored
        return next(choice for choice in self.choices if self.label(choice) == stored)

    def extremes(self) -> tuple[Any, ...]:
        """Values that must be allowed for all to be."""
        return self.choices if self.kind == "categorical" else (self.low, self.high)


@dataclass(frozen=True)
class Space:
    """What a study optimizes, and over what."""

    objective: str
    parameters: tuple[Parameter, ...]

    def config(
        self, path: str | Path, overrides: Iterable[str] = (), values: Mapping[str, Any] | None = None
    ) -> Config:
        """The configuration at ``values`` by key, which win over the file and the overrides."""
        import yaml

        tried = [f"{k}={yaml.safe_dump(v, default_flow_style=True)}" for k, v in (values or {}).items()]
        return load(path, [*overrides, *tried])

    def check(self, path: str | Path, overrides: Iterable[str] = ()) -> None:
        """Make the configuration at the ends of every parameter.

        Raises: ConfigError: for a key that there is not, a value out of its range, or an objective that is neither
            ``dense`` nor a budget of the configuration.
        """
        from ondevice.run.effects import is_next_item
        from ondevice.run.preflight import check_options

        model = self.config(path, overrides).model.name
        if is_next_item(self.config(path, overrides)):
            raise ConfigError(
                f"model.name: got {model}, but a study compares AUC, which a model of the next item has not; train it "
                "with ondevice train"
            )
        for parameter in self.parameters:
            for value in parameter.extremes():
                check_options(self.config(path, overrides, {parameter.key: value}))
        budgets = [str(budget) for budget in self.config(path, overrides).compact.budgets]
        if self.objective not in ("dense", *budgets):
            raise ConfigError(
                f"space objective '{self.objective}': no such phase {nearest(self.objective, ['dense', *budgets])}"
            )


def load_space(path: str | Path) -> Space:
    """Read a search space from YAML.

    Raises: ConfigError: when the file is missing, no YAML, or describes no space.
    """
    import yaml

    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not a YAML file: {error}") from None
    if not isinstance(content, dict) or not isinstance(content.get("parameters"), dict):
        raise ConfigError(
            f"{path}: got no parameters; a space has 'parameters', by section.key, and 'objective'"
        )
    for key in content:
        if key not in ("objective", "parameters"):
            raise ConfigError(f"{path}: no such key '{key}' {nearest(key, ['objective', 'parameters'])}")
    if not content["parameters"]:
        raise ConfigError(f"{path}: 'parameters' is empty; name at least one section.key")
    parameters = tuple(_parameter(f"{path}: {k}", k, v) for k, v in content["parameters"].items())
    return Space(str(content.get("objective", "dense")), parameters)


def _parameter(where: str, key: Any, given: Any) -> Parameter:
    if not isinstance(key, str) or "." not in key:
        raise ConfigError(f"{where}: parameters are named section.key")
    if not isinstance(given, dict) or given.get("type") not in KEYS:
        raise ConfigError(f"{where}: got {given!r}; it must have a 'type': {', '.join(KEYS)}")
    kind = given["type"]
    for name in given:
        if name not in ("type", *KEYS[kind]):
            raise ConfigError(
                f"{where}.{name}: a {kind} parameter has no such key {nearest(name, KEYS[kind])}"
            )
    if kind == "categorical":
        choices = given.get("choices")
        if not isinstance(choices, list) or not choices:
            raise ConfigError(f"{where}.choices: got {choices!r}; it must be a list of at least one value")
        return Parameter(key, kind, choices=tuple(choices))
    low, high = (_number(f"{where}.{end}", given.get(end), kind) for end in ("low", "high"))
    step = None if given.get("step") is None else _number(f"{where}.step", given["step"], kind)
    log = given.get("log", False)
    if not isinstance(log, bool):
        raise ConfigError(f"{where}.log: got {log!r}; it must be true or false")
    if low > high:
        raise ConfigError(f"{where}: low {low} is above high {high}")
    if log and (low <= 0 or step is not None):
        raise ConfigError(f"{where}.log: needs low above 0 and no step, got low {low} and step {step}")
    if step is not None and step <= 0:
        raise ConfigError(f"{where}.step: got {step}; it must be above 0")
    return Parameter(key, kind, low, high, step, log)


def _number(where: str, value: Any, kind: str) -> float | int:
    if kind == "int":
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    elif isinstance(value, (int, float, str)) and not isinstance(value, bool):
        try:
            return float(value)  # YAML reads 1e-3 as text
        except ValueError:
            pass
    raise ConfigError(
        f"{where}: got {value!r}; it must be {'a whole number' if kind == 'int' else 'a number'}"
    )
