"""Proof: the programs that ship against the dense programs anyone can make, in one run on one machine."""

from __future__ import annotations

import importlib.util
from typing import Any

from ondevice.errors import MissingPackage

NEEDED = ("torchao", "executorch", "matplotlib")


def require_packages() -> None:
    """Name the packages of a whole benchmark that are not installed.

    Raises: MissingPackage: when there are some.
    """
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingPackage(
            f"the benchmark needs {', '.join(missing)}; install it with "
            "pip install 'ondevice-recommender[export,train]'"
        )


def run_benchmark(*arguments: Any, **options: Any) -> dict[str, Any]:
    """Measure a run's bundles and its dense baselines: see `ondevice.bench.benchmark.run_benchmark`.

    Raises: MissingPackage: when a package that it needs is not installed.
    """
    require_packages()
    from ondevice.bench.benchmark import run_benchmark as run  # measuring processes must not load all of it

    return run(*arguments, **options)
