"""Which kind of error a mistake is, and that a script tells every kind alike."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ondevice import errors
from ondevice.bench import require_packages
from ondevice.bundle.manifest import read_manifest
from ondevice.cli.configs import find_config
from ondevice.data import load_dataset
from ondevice.data.schema import Schema, read_yaml
from ondevice.errors import (
    BudgetTooSmall,
    ConfigError,
    DamagedFile,
    DataError,
    MissingPackage,
    UserError,
    run_script,
)
from ondevice.methods import METHODS
from ondevice.training.checkpoint import load_state

KINDS = (ConfigError, DataError, BudgetTooSmall, DamagedFile, MissingPackage)


def damaged_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_text("{half of it")
    read_manifest(folder)


def damaged_checkpoint(folder: Path) -> None:
    (folder / "dense.pt").write_bytes(b"half of a checkpoi")
    load_state(folder / "dense.pt", torch.device("cpu"))


def too_few_values(folder: Path) -> None:
    from ondevice.forms.table import table_info

    info = table_info(torch.tensor([0, 3, 5]), torch.ones(5, dtype=torch.int64))
    METHODS["uniform"](info, 4).compact(1)


def no_package(folder: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ondevice.bench.NEEDED", ("torch", "no_such_package"))
        require_packages()


MISTAKES: list[tuple[type[UserError], Callable[[Path], object]]] = [
    (ConfigError, lambda _: METHODS["pepp"]),
    (ConfigError, lambda _: find_config("nosuch")),
    (ConfigError, lambda _: load_dataset("table", schemaa="x")),
    (DataError, lambda folder: read_yaml(folder / "none.yaml")),
    (DataError, lambda _: Schema.from_dict({"name": "x", "fields": [], "label": {"column": "y"}})),
    (BudgetTooSmall, too_few_values),
    (DamagedFile, damaged_manifest),
    (DamagedFile, damaged_checkpoint),
    (MissingPackage, no_package),
]


@pytest.mark.parametrize(("kind", "mistake"), MISTAKES)
def test_a_mistake_is_of_its_kind(
    kind: type[UserError], mistake: Callable[[Path], object], tmp_path: Path
) -> None:
    with pytest.raises(UserError) as caught:
        mistake(tmp_path)
    assert type(caught.value) is kind


def test_every_kind_is_described_and_is_a_value_error() -> None:
    for kind in KINDS:
        assert issubclass(kind, UserError)
        assert issubclass(kind, ValueError)
        assert kind.__name__ in (errors.__doc__ or "")
        assert len((kind.__doc__ or "").split()) > 5


@pytest.mark.parametrize("kind", [UserError, *KINDS])
def test_a_script_tells_every_kind_in_a_line(
    kind: type[UserError], capsys: pytest.CaptureFixture[str]
) -> None:
    def main() -> None:
        raise kind("file.csv:3: got x;\nwrite y")

    with pytest.raises(SystemExit) as ended:
        run_script(main)
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: file.csv:3: got x; write y\n"
