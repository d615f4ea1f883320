"""Teachers that are dense models of other runs: found before data are fetched, loaded when they are needed."""

from __future__ import annotations

from pathlib import Path

from ondevice.config.sections import Config
from ondevice.errors import UserError
from ondevice.run.directory import CONFIG, Run
from ondevice.training.teacher import dense_number


def other_run(name: str, said: str = "teacher") -> tuple[Run, str]:
    """The run and the name of its dense model that are meant: ``runs/NAME``, or ``runs/NAME/dense+1``.

    Args:
        said: what it is, for an error.

    Raises: UserError: when there is no such run or model.
    """
    folder, which = Path(name), "dense"
    if dense_number(folder.name) is not None and not (folder / CONFIG).exists():
        folder, which = folder.parent, folder.name
    try:
        run = Run(folder)
        run.dense_folder(which)
    except UserError as error:
        raise type(error)(f"{said} {name}: {error}") from None
    return run, which


def other_teachers(config: Config) -> list[str]:
    """The teachers that are models of other runs."""
    names = dict.fromkeys([*config.teach.teachers, *config.compact.teach.teachers])
    return [name for name in names if dense_number(name) is None]
