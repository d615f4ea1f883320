"""Preparations without processes of their own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from ondevice.data.large import prepare, worker
from ondevice.data.large.plan import Plan


@pytest.fixture(autouse=True)
def needs_pyarrow() -> None:
    pytest.importorskip("pyarrow", reason="large data are read with pyarrow")


class InlinePool:
    """Does in this process what workers do."""

    def __init__(self, folder: Path, num_workers: int) -> None:
        self.plan = Plan.load(folder)

    def __enter__(self) -> InlinePool:
        return self

    def __exit__(self, *_: Any) -> None:
        pass

    def run(self, sources: Sequence[Iterable[dict[str, Any]]], done: Callable[[Any, Any], None]) -> None:
        for source in sources:
            for task in source:
                done(task, worker.do(self.plan, task["step"], task))


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written need not outlast a loss of power."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture
def inline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Starting a process takes a second."""
    monkeypatch.setattr(prepare, "Pool", InlinePool)
