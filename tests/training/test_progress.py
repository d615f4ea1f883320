"""Bars are for terminals; a log file has a line per epoch."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ondevice.config.file import from_dict
from ondevice.run.pipeline import Pipeline
from ondevice.training.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(stream: io.StringIO, monkeypatch: pytest.MonkeyPatch, show: bool) -> str:
    """What a bar and a line write."""
    monkeypatch.setattr(sys, "stderr", stream)
    progress = Progress(show=show)
    with progress.bar(10, "dense 1/2") as bar:
        bar.update(5)
        progress.say("half of it")
    return stream.getvalue()


def test_a_terminal_has_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    said = shown(Terminal(), monkeypatch, show=True)
    assert "dense 1/2" in said
    assert "half of it" in said


def test_a_file_has_lines_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(io.StringIO(), monkeypatch, show=True) == "half of it\n"


def test_nothing_is_shown_where_nothing_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(Terminal(), monkeypatch, show=False) == ""


def test_in_a_log_a_run_has_a_line_per_epoch(
    tiny_config: Callable[..., dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    values = tiny_config(run={"progress": True}, compact={"budgets": [100], "train": {"epochs": 2}})
    metrics = Pipeline(from_dict(values), tmp_path / "run").run()
    assert "\r" not in log.getvalue()
    lines = log.getvalue().splitlines()
    for phase, epochs in (("dense", metrics["dense"]["epochs"]), ("search", 2), ("retrain-100", 2)):
        told = [line for line in lines if line.startswith(f"{phase}: epoch ")]
        assert [line.split()[2].rstrip(",") for line in told] == [str(n + 1) for n in range(epochs)]
