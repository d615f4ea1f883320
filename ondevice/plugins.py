"""Code of a user's own: files and installed packages that register methods, forms, base models and data sets.

A plugin is a Python file whose import registers something (docs/extending.md). A configuration names it
(``plugins: [my_method.py]``, found beside the configuration); an installed package names it by an entry point of the
group ``ondevice.plugins``. Both run code, so a run directory that somebody else made does not start any: what it names
must be named again, by a configuration, by the environment variable ``ONDEVICE_PLUGINS``, or by `load_plugins`.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from ondevice.errors import ConfigError, UserError

GROUP = "ondevice.plugins"
VARIABLE = "ONDEVICE_PLUGINS"

_loaded: set[Path] = set()
_installed_are_loaded = False


def load_plugins(files: Iterable[str | Path]) -> None:
    """Run each file once in this process; what it registers is then known by name.

    Raises: UserError: when a file is missing or fails.
    """
    for given in files:
        path = Path(given).resolve()
        if path in _loaded:
            continue
        if not path.is_file():
            raise ConfigError(
                f"plugins: {given}: no such file; name a Python file, beside the configuration that names it"
            )
        name = f"ondevice_plugin_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or spec.loader is None:
            raise ConfigError(f"plugins: {given}: not a Python file; its name must end in .py")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
        except UserError:
            del sys.modules[name]
            raise
        except Exception as error:
            del sys.modules[name]
            raise ConfigError(f"plugins: {given}: fails with {type(error).__name__}: {error}") from error
        _loaded.add(path)


def load_installed() -> None:
    """Import what installed packages offer, once in this process, and what ``ONDEVICE_PLUGINS`` names.

    Raises: UserError: when one fails.
    """
    global _installed_are_loaded
    if _installed_are_loaded:
        return
    _installed_are_loaded = True
    for entry in importlib.metadata.entry_points(group=GROUP):
        try:
            entry.load()
        except Exception as error:
            raise ConfigError(
                f"plugin '{entry.name}' ({entry.value}) of an installed package fails with "
                f"{type(error).__name__}: {error}; repair or uninstall that package"
            ) from error
    load_plugins(filter(None, os.environ.get(VARIABLE, "").split(os.pathsep)))


def check_loaded(files: Iterable[str], where: str) -> None:
    """Whether plugins that a run names have been loaded in this process.

    Raises: UserError: naming the first that has not, and how.
    """
    load_installed()
    names = {path.name for path in _loaded}  # a run may have moved to a machine that has them elsewhere
    for given in files:
        if Path(given).name not in names:
            raise ConfigError(
                f"{where}: was made with the plugin {given}, whose code a run directory does not start by itself; if "
                f"you trust it, set {VARIABLE}={given}, or call ondevice.plugins.load_plugins([...]) first"
            )
