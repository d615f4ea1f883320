"""The configurations that come along: in the wheel, and in a checkout under train/configs."""

from __future__ import annotations

from pathlib import Path

from ondevice.errors import ConfigError, nearest

FOLDER = Path(__file__).resolve().parents[1] / "configs"
"""In a checkout a link to train/configs, whose files the wheel holds."""


def config_names() -> list[str]:
    """Names of the configurations that can be trained."""
    names = (path.stem for path in FOLDER.glob("*.yaml"))
    return sorted(name for name in names if not name.endswith((".schema", ".space")))


def find_config(given: str) -> str:
    """The file that is meant: a path as it is, and a name alone for one that comes along.

    Raises: ConfigError: for a name that neither is a file nor comes along.
    """
    if Path(given).exists() or Path(given).name != given or given.endswith((".yaml", ".yml")):
        return given
    if (FOLDER / f"{given}.yaml").is_file():
        return str(FOLDER / f"{given}.yaml")
    raise ConfigError(f"{given}: no such file, and no config of that name {nearest(given, config_names())}")
