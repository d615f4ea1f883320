"""Proof: the programs that ship against the dense programs anyone can make, in one run on one machine."""

from __future__ import annotations

from typing import Any


def run_benchmark(*arguments: Any, **options: Any) -> dict[str, Any]:
    """Measure a run's bundles and its dense baselines: see `ondevice.bench.benchmark.run_benchmark`."""
    from ondevice.bench.benchmark import run_benchmark as run  # measuring processes must not load all of it

    return run(*arguments, **options)
