"""List data sets, base models, methods, stores, and the configs that come along.

ondevice list
"""

from __future__ import annotations

import argparse
import itertools
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ondevice.cli.configs import FOLDER, config_names

if TYPE_CHECKING:
    from ondevice.registry import Registry


def add_arguments(parser: argparse.ArgumentParser) -> None:
    del parser  # it has none


def run(arguments: argparse.Namespace) -> None:
    from ondevice.config.stores import STORES
    from ondevice.data import DATASETS
    from ondevice.methods import METHODS
    from ondevice.models import MODELS
    from ondevice.models.sequences import SEQUENCE_MODELS
    from ondevice.plugins import load_installed

    load_installed()
    registries: dict[str, Registry[Any]] = {
        "data sets": DATASETS,
        "models": MODELS,
        "models of the next item": SEQUENCE_MODELS,
        "methods": METHODS,
        "stores": STORES,
    }
    for title, registry in registries.items():
        print(f"{title}:")
        for name, line in registry.describe().items():
            print(f"  {name:16} {line}")
    print("configs:")
    for name in config_names():
        print(f"  {name:32} {first_comment(FOLDER / f'{name}.yaml')}")


def first_comment(path: Path) -> str:
    """What a config says of itself before its first stop."""
    lines = path.read_text(encoding="utf-8").splitlines()
    comment = " ".join(line.lstrip("# ") for line in itertools.takewhile(lambda x: x.startswith("#"), lines))
    return re.split(r"[.:;](?= |$)", comment)[0]
