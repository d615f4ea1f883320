"""The door to a training: the pipeline that a configuration asks for."""

from __future__ import annotations

from pathlib import Path

from ondevice.config.sections import Config
from ondevice.plugins import load_installed, load_plugins
from ondevice.run.pipeline import Pipeline
from ondevice.training.progress import OnEpoch


def make_pipeline(
    config: Config, folder: str | Path, resume: bool = False, on_epoch: OnEpoch | None = None
) -> Pipeline:
    """The pipeline for a configuration's ``distributed.mode``, its plugins loaded: arguments as for `PreparedRun`."""
    load_installed()
    load_plugins(config.run.plugins)
    if config.distributed.mode == "sharded":
        from ondevice.sharded.pipeline import ShardedPipeline

        return ShardedPipeline(config, folder, resume, on_epoch)
    return Pipeline(config, folder, resume, on_epoch)
