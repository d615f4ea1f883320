"""``ondevice inspect`` and ``ondevice config``: what is shown is what is there."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ondevice.cli.inspect import table
from ondevice.cli.main import call, run_console
from ondevice.config.describe import lines
from ondevice.program.bundle import load_bundle
from ondevice.run.directory import Run

from ..runs import run

Make = Callable[..., dict[str, Any]]
Show = Callable[[Path], list[str]]


@pytest.fixture
def show(capsys: pytest.CaptureFixture[str]) -> Show:
    """The lines that ``ondevice inspect`` prints of a folder."""

    def inspect(folder: Path) -> list[str]:
        capsys.readouterr()
        call("inspect", [str(folder)], "ondevice inspect")
        return capsys.readouterr().out.splitlines()

    return inspect


def row(lines: list[str], first: str) -> list[str]:
    """The cells of the one line that begins with a word."""
    (line,) = (line for line in lines if line.split()[:1] == [first])
    return line.split()


def test_columns_of_numbers_end_at_the_right() -> None:
    assert table(("part", "bytes", "of"), [("a", 1200, "x"), ("longer", 7, "yy")]) == [
        "part    bytes  of",
        "a       1,200  x",
        "longer      7  yy",
    ]


def test_a_run_and_its_bundle(tiny_config: Make, tmp_path: Path, show: Show) -> None:
    pytest.importorskip("executorch", reason="exporting needs the extra ondevice-recommender[export]")
    from ondevice.program.export import ExportOptions
    from ondevice.program.export_run import export_run

    folder = tmp_path / "run"
    metrics = run(tiny_config(train={"epochs": 1}, compact={"budgets": [100]}), folder)
    options = ExportOptions(methods=("forward",), max_batch=64)
    (exported,) = export_run(folder, options=options, check=False)

    said = show(folder)
    assert said[0].endswith("finished")
    assert str(folder) in said[0]
    offsets = Run(folder).vocabulary.field_offsets
    for place, name in enumerate(("user", "age", "item")):
        assert row(said, name)[-1] == str(int(offsets[place + 1] - offsets[place]))
    assert f"{metrics['dense']['test_auc']:.4f}" in row(said, "dense")
    sizes = exported.bundle.file_bytes()
    (bundle_line,) = (line for line in said if line.split()[-1:] == ["forward"])
    assert bundle_line.split()[:3] == [
        "100",
        f"{exported.bundle.total_bytes:,}",
        f"{sizes['model.pte']:,}",
    ]

    said = show(exported.bundle.path)
    bundle = load_bundle(exported.bundle.path)
    assert said[0].startswith(f"bundle {bundle.manifest['name']}: deepfm · pep · staircase")
    for name, size in bundle.file_bytes().items():
        assert row(said, name)[1] == f"{size:,}"
    inside = [line for line in said if line.startswith("  ")]
    assert [line.strip().split("  ")[0] for line in inside] == [
        "embeddings",
        "first order",
        "other weights",
        "program overhead",
    ]
    numbers = [int(line.split()[-2].replace(",", "")) for line in inside]
    assert sum(numbers) == len(bundle.contents["model.pte"])
    assert min(numbers) > 0
    for place, name in enumerate(("user", "age", "item")):
        assert row(said, name)[-1] == str(bundle.vocabulary.num_keys([place]))
    assert "ids (batch, 3)" in " ".join(row(said, "forward"))
    assert row(said, "valid_auc")[1] == f"{bundle.manifest['metrics']['valid_auc']:.4f}"

    shutil.copytree(folder, tmp_path / "cut")
    (tmp_path / "cut" / "metrics.json").unlink()
    assert "under way" in show(tmp_path / "cut")[0]


def test_what_is_neither_is_told_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    for folder, message in (
        (tmp_path / "none", f"error: {tmp_path}/none: no run directory"),
        (tmp_path, f"error: {tmp_path}/manifest.json: not the manifest of a bundle"),
    ):
        monkeypatch.setattr(sys, "argv", ["ondevice", "inspect", str(folder)])
        with pytest.raises(SystemExit) as ended:
            run_console()
        said = capsys.readouterr()
        assert (ended.value.code, said.out, len(said.err.splitlines())) == (2, "", 1)
        assert said.err.startswith(message)


def test_every_key_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    call("config", [], "ondevice config")
    assert capsys.readouterr().out.splitlines() == lines()
