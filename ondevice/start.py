"""The door to a training: the pipeline that a configuration asks for."""

from __future__ import annotations

from pathlib import Path

from ondevice.config.sections import Config
from ondevice.plugins import load_installed, load_plugins
from ondevice.run.effects import is_next_item
from ondevice.run.next_item import NextItemPipeline
from ondevice.run.pipeline import Pipeline
from ondevice.training.progress import OnEpoch


def make_pipeline(
    config: Config, folder: str | Path, resume: bool = False, on_epoch: OnEpoch | None = None
) -> Pipeline | NextItemPipeline:
    """The pipeline for a configuration's model and ``distributed.mode``, its plugins loaded.

    Arguments as for `PreparedRun`.
    """
    load_installed()
    load_plugins(config.run.plugins)
    if is_next_item(config):
        return NextItemPipeline(config, folder, resume, on_epoch)
    if config.distributed.mode == "sharded":
        from ondevice.sharded.sharded_pipeline import ShardedPipeline

        return ShardedPipeline(config, folder, resume, on_epoch)
    return Pipeline(config, folder, resume, on_epoch)
