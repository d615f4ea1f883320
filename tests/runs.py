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
