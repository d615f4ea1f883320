"""YAML that people hand around holds values: a tag that would build an object, or run something, is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ondevice.config.file import load
from ondevice.data.schema import read_yaml
from ondevice.errors import UserError
from ondevice.run.directory import CONFIG, read_config
from ondevice.study.space import load_space

TAGS = [
    "!!python/object/apply:os.mkdir [{made}]",
    "!!python/object/new:os.mkdir [{made}]",
    "!!python/name:os.mkdir",
    "!!python/module:os",
    "!!python/tuple [8, 8]",
]


def run_config(path: Path) -> Any:
    return read_config(path.rename(path.parent / CONFIG).parent)


READERS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "schema": (read_yaml, "name: tiny\nfields: []\nlabel: {tagged}\n"),
    "config": (load, "model:\n  name: deepfm\n  hidden: {tagged}\n"),
    "run": (run_config, "model:\n  name: deepfm\n  hidden: {tagged}\n"),
    "space": (load_space, "objective: dense\nparameters: {tagged}\n"),
}


@pytest.mark.parametrize("tag", TAGS)
@pytest.mark.parametrize("reader", READERS)
def test_a_tag_that_builds_objects_is_refused(reader: str, tag: str, tmp_path: Path) -> None:
    read, text = READERS[reader]
    made, path = tmp_path / "made", tmp_path / "given.yaml"
    path.write_text(text.format(tagged=tag.format(made=made)))
    with pytest.raises(UserError, match=r"not (a )?YAML.*could not determine a constructor"):
        read(path)
    assert not made.exists()


@pytest.mark.parametrize("tag", TAGS)
def test_a_tag_on_the_command_line_is_refused(tag: str, tmp_path: Path) -> None:
    made, path = tmp_path / "made", tmp_path / "given.yaml"
    path.write_text("model: fm\n")
    with pytest.raises(UserError, match=r"'model\.hidden=!!python.*': the value is not YAML"):
        load(path, [f"model.hidden={tag.format(made=made)}"])
    assert not made.exists()
