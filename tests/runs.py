"""Whole runs of a small configuration, and their metrics."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ondevice.config.file import from_dict
from ondevice.run.pipeline import Pipeline

Make = Callable[..., dict[str, Any]]
"""What the fixture ``tiny_config`` is."""


def run(values: dict[str, Any], folder: Path, resume: bool = False) -> dict[str, Any]:
    return Pipeline(from_dict(values), folder, resume=resume).run()


def lasting(metrics: dict[str, Any]) -> dict[str, Any]:
    """Metrics without what a clock decides."""
    return {
        key: lasting(value) if isinstance(value, dict) else value
        for key, value in metrics.items()
        if key != "seconds"
    }


def laid_over(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """A configuration with keys of its sections changed; what names an entry of a registry replaces its section."""
    changed = dict(values)
    for key, change in changes.items():
        is_section = isinstance(change, dict) and isinstance(values.get(key), dict) and "name" not in change
        changed[key] = laid_over(values[key], change) if is_section else change
    return changed
