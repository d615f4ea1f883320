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

from ondevice.config.moved import OLD_SECTIONS, present_key
from ondevice.config.recipes import SECTIONS, SHORT, options_kept, with_recipe
from ondevice.config.sections import SCHEDULE, Choice, CompactConfig, Config, ResearchConfig, SizesConfig
from ondevice.config.stores import STORES, Store
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


def _choice(where: str, given: Any) -> Choice:
    given = {"name": given} if isinstance(given, str) else given
    if not isinstance(given, Mapping) or not isinstance(given.get("name"), str):
        raise ConfigError(f"{where}: got {given!r}; it must have a 'name'")
    return Choice(given["name"], {key: value for key, value in given.items() if key != "name"})


def _sizes(where: str, given: Any) -> SizesConfig:
    given = _keys(where, {"name": given} if isinstance(given, str) else given)
    fields = ("name", *SCHEDULE)
    options = {key: value for key, value in given.items() if key not in fields}
    known = {key: value for key, value in given.items() if key in fields}
    return dataclasses.replace(_fields(where, SizesConfig, known), options=options)


def _store(where: str, given: Any) -> Store:
    given = dict(_keys(where, {"name": given} if isinstance(given, str) else given))
    name = given.pop("name", CompactConfig().store.name)
    if name not in STORES:
        raise ConfigError(f"{where}.name: unknown store {name!r} {nearest(str(name), STORES)}")
    made: Store = _fields(where, STORES[name], given, f"store '{name}' has no such option")
    return made


def _value(where: str, given: Any, annotation: Any) -> Any:
    """A section, an entry of a registry with its options, or a single value."""
    if annotation is Choice:
        return _choice(where, given)
    if annotation is SizesConfig:
        return _sizes(where, given)
    if annotation is Store:
        return _store(where, given)
    if dataclasses.is_dataclass(annotation):
        short = SHORT.get(where)
        return _fields(where, annotation, {short: given} if short and isinstance(given, str) else given)
    return _convert(where, given, annotation)


def _fields(where: str, kind: Any, given: Any, unknown: str = "no such key") -> Any:
    """A section from what is given of it; what is not, and a section that is null, has the defaults."""
    given, hints = _keys(where, given), typing.get_type_hints(kind)
    names = [field.name for field in dataclasses.fields(kind)]
    made = {}
    for key, value in given.items():
        if key not in names:
            is_research = key in (field.name for field in dataclasses.fields(ResearchConfig))
            raise ConfigError(
                f"{where}.{key}: {unknown}; it is research.{key}"
                if is_research
                else f"{where}.{key}: {unknown} {nearest(key, names)}"
            )
        if value is None and f"{where}.{key}" in SECTIONS:
            continue
        made[key] = _value(f"{where}.{key}", value, hints[key])
    try:
        return kind(**made)
    except UserError as error:
        raise ConfigError(f"{where}.{error}") from None


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
    values = with_recipe(plain_values(values))
    if "plugins" in values:
        values = {**values, "run": {**(values.get("run") or {}), "plugins": values["plugins"]}}
        del values["plugins"]
    hints = typing.get_type_hints(Config)
    for key, given in values.items():
        if key in OLD_SECTIONS:
            name = next(iter(given), "") if isinstance(given, Mapping) else ""
            raise ConfigError(
                f"{key}{'.' * bool(name)}{name}: no such key; it is {present_key(key, name)} now"
            )
        if key not in hints:
            names = [*hints, "plugins", "recipe"]
            raise ConfigError(f"config: no such section '{key}' {nearest(key, names)}")
    given = {key: value for key, value in values.items() if value is not None}
    return Config(**{key: _value(key, value, hints[key]) for key, value in given.items()})


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
        if not override.startswith(RECIPE):
            _override(values, override)
    return from_dict(values)


def _override(values: dict[str, Any], override: str) -> None:
    """Set one key, or all those that are given of a section."""
    key, separator, text = override.partition("=")
    path = [*key.split("."), *([SHORT[key]] if key in SHORT else [])]
    if not separator or len(path) < 2 or not all(path):
        raise ConfigError(f"'{override}': overrides are written section.key=value")
    if path[0] in OLD_SECTIONS:
        raise ConfigError(f"{key}: no such key; it is {present_key(path[0], '.'.join(path[1:]))} now")
    value = override_value(override, path[-1], text)
    if key in SHORT and isinstance(value, dict):  # a whole section
        for name in sorted(
            value, key=lambda each: each != SHORT[key]
        ):  # what it names first: options go with it
            _set(values, [*path[:-1], str(name)], value[name])
    else:
        _set(values, path, value)


def _set(values: dict[str, Any], path: list[str], value: Any) -> None:
    """Set the value at a path, sections on the way to it included."""
    current, where = values, ""
    for name in path[:-1]:
        where = f"{where}.{name}".removeprefix(".")
        inner = current.get(name)
        if inner is None:
            chosen = getattr(Config(), where, None)
            inner = {"name": chosen.name} if isinstance(chosen, Choice) else {}
        elif isinstance(inner, str):
            inner = {SHORT.get(where, "name"): inner}
        elif not isinstance(inner, dict):
            return  # `from_dict` says what is wrong with it
        current[name] = inner
        current = inner
    if path[-1] == "name":
        kept = options_kept(where, current, value)
        current.clear()
        current |= kept
    current[path[-1]] = value


def plain_options(options: dict[str, Any]) -> dict[str, Any]:
    """Options from YAML as constructors take them: lists become tuples."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}
