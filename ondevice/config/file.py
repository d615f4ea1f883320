"""Configurations as they are written: plain values, or a YAML file with ``section.key=value`` on top of it.

Precedence: defaults, the recipe, the YAML file, the command line. Unknown keys fail with the nearest match.
"""

from __future__ import annotations

import dataclasses
import datetime
import os
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ondevice.config.recipes import with_recipe
from ondevice.config.sections import RESEARCH, Choice, Config, DistributedConfig, RetrainConfig
from ondevice.errors import ConfigError, UserError, nearest


def _convert(where: str, value: Any, annotation: Any) -> Any:
    """Check ``value`` against a field's type; numbers widen, lists become tuples, nothing else is guessed."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        for option in arguments:
            try:
                return _convert(where, value, option)
            except UserError:
                continue
    elif annotation is type(None):
        if value is None:
            return None
    elif origin is tuple:
        items = value if isinstance(value, (list, tuple)) else [value]
        return tuple(_convert(where, item, arguments[0]) for item in items)
    elif origin is dict:
        if isinstance(value, Mapping):
            return dict(value)
    elif annotation is bool:
        if isinstance(value, bool):
            return value
    elif annotation is float:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
        if isinstance(value, str):  # YAML reads 1e-3 as text
            try:
                return float(value)
            except ValueError:
                pass
    elif isinstance(value, annotation) and not (annotation is int and isinstance(value, bool)):
        return value
    shown = str(getattr(annotation, "__name__", annotation)) if origin is None else str(annotation)
    raise ConfigError(f"{where}: got {value!r}; it must be of type {shown.replace('None', 'null')}")


def _keys(name: str, given: Any) -> Mapping[str, Any]:
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise ConfigError(f"{name}: got {given!r}; it must be a section of keys and values")
    return given


def _research(given: Any) -> Mapping[str, Any]:
    keys = _keys("research", given)
    for key in keys:
        if key not in RESEARCH:
            raise ConfigError(f"research.{key}: no such key {nearest(key, RESEARCH)}")
    return keys


def _section(name: str, kind: type, given: Any, research: Mapping[str, Any] | None = None) -> Any:
    given = _keys(name, given)
    hints = typing.get_type_hints(kind)
    names = [f.name for f in dataclasses.fields(kind) if f.name not in RESEARCH]
    for key in given:
        if key in RESEARCH:
            raise ConfigError(
                f"{name}.{key}: no such key; it is research.{key}, of the compact model's training"
            )
        if key not in names:
            raise ConfigError(f"{name}.{key}: no such key {nearest(key, names)}")
    converted = {key: _convert(f"{name}.{key}", value, hints[key]) for key, value in given.items()}
    for key, value in (research or {}).items():
        converted[key] = _convert(f"research.{key}", value, hints[key])
    try:
        return kind(**converted)
    except UserError as error:
        text = str(error)
        raise ConfigError(text if text.startswith((f"{name}.", "research.")) else f"{name}.{text}") from None


def plain_values(value: Any) -> Any:
    """A value as YAML has it: paths are texts, NumPy's scalars numbers; within mappings and lists, too."""
    if isinstance(value, Mapping):
        return {key: plain_values(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(plain_values(each) for each in value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        return value.item()
    return value


def from_dict(values: Mapping[str, Any]) -> Config:
    """A configuration from plain values, and the recipe that they name.

    Raises: ConfigError: for an unknown recipe, section or key, a wrong type or a value out of range.
    """
    values = plain_values(values)
    hints = typing.get_type_hints(Config)
    values = with_recipe(values)
    if "plugins" in values:
        values = {**values, "run": {**(values.get("run") or {}), "plugins": values["plugins"]}}
        del values["plugins"]
    names = [*hints, "research"]  # a part of `RetrainConfig`
    for key in values:
        if key not in names:
            raise ConfigError(f"config: no such section '{key}' {nearest(key, names)}")
    sections: dict[str, Any] = {}
    for name, kind in hints.items():
        given = values.get(name)
        if kind is Choice:
            if given is None:
                continue
            given = {"name": given} if isinstance(given, str) else given
            if not isinstance(given, Mapping) or not isinstance(given.get("name"), str):
                raise ConfigError(f"{name}: got {given!r}; it must have a 'name'")
            sections[name] = Choice(given["name"], {k: v for k, v in given.items() if k != "name"})
        elif kind is RetrainConfig:
            sections[name] = _section(name, kind, given, _research(values.get("research")))
        elif kind is DistributedConfig and isinstance(given, str):
            sections[name] = _section(name, kind, {"mode": given})
        else:
            sections[name] = _section(name, kind, given)
    return Config(**sections)


SHORT = {"data": "name", "model": "name", "method": "name", "distributed": "mode"}
"""What a section's value is when it is written without keys: ``model=fm``, ``distributed: ddp``."""
RECIPE = "recipe="
"""How an override names a recipe."""


PATHS = ("path", "schema", "folder", "output")
"""Keys whose values are paths: on the command line they are taken as they stand."""


def override_value(override: str, name: str, text: str) -> Any:
    """The value of an override: YAML; a path as it stands, but for a list or a mapping of paths."""
    import yaml

    listed = text.startswith(("[", "{")) and not Path(text).exists()
    if name in PATHS and text not in ("", "null") and not listed:
        return text
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigError(f"'{override}': the value is not YAML") from None
    return text if isinstance(value, datetime.date) else value


def load(path: str | Path, overrides: Iterable[str] = ()) -> Config:
    """Read a YAML file and apply ``recipe=name`` and ``section.key=value`` overrides, values read as YAML.

    Raises: ConfigError: when the file is missing or not YAML, or an override names nothing.
    """
    import yaml

    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
    except FileNotFoundError:
        raise ConfigError(
            f"{path}: no such file; the configs that come along are in train/configs/"
        ) from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not a YAML file: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: got a {type(values).__name__}; a config is sections of keys and values")
    overrides = list(overrides)
    if isinstance(values.get("plugins"), list):
        folder = Path(path).resolve().parent
        values["plugins"] = [str(folder / str(name)) for name in values["plugins"]]
    for override in overrides:
        if override.startswith(RECIPE):
            values["recipe"] = override.removeprefix(RECIPE)
    values = with_recipe(values)
    for override in overrides:
        if override.startswith(RECIPE):
            continue
        key, separator, text = override.partition("=")
        section, _, name = key.partition(".")
        if section in SHORT and not name:
            name = SHORT[section]
        if not separator or not name or not section:
            raise ConfigError(f"'{override}': overrides are written section.key=value")
        value = override_value(override, name, text)
        chosen = getattr(Config(), section, None)
        current = values.get(section)
        if current is None:
            current = values[section] = {"name": chosen.name} if isinstance(chosen, Choice) else {}
        elif isinstance(current, str):
            current = values[section] = {SHORT.get(section, "name"): current}
        elif not isinstance(current, dict):
            break  # `from_dict` says what is wrong with it
        if name == "name" and isinstance(chosen, Choice) and current.get("name") != value:
            current = values[section] = {}  # another entry has other options
        current[name] = value
    return from_dict(values)


def plain_options(options: dict[str, Any]) -> dict[str, Any]:
    """Options from YAML as constructors take them: lists become tuples."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}
