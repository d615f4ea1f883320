"""Preparations without processes of their own."""

from __future__ import annotations

import os

import pytest

from ondevice.data.preparation import prepare, worker
from ondevice.data.preparation.plan import Plan


@pytest.fixture(autouse=True)
def needs_pyarrow() -> None:
    pytest.importorskip("pyarrow", reason="large data are read with pyarrow")


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written need not outlast a loss of power."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture
def inline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Starting a process takes a second."""
    monkeypatch.setattr(prepare, "Pool", lambda folder, _: worker.Inline(Plan.load(folder)))
