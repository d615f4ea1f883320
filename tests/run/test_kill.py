"""A run that is killed at any moment, and resumed, ends with the numbers of one that was not."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from ondevice import files
from ondevice.config.file import from_dict
from ondevice.data import load_dataset
from ondevice.run.pipeline import Pipeline

from ..runs import Make, lasting

ROOT = Path(__file__).resolve().parents[2]


class KilledError(BaseException):
    """Ends a run between two writes."""


def test_cut_off_at_any_write(tiny_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each file or folder that a run puts in its place is in turn the one that it does not."""
    values = from_dict(tiny_config(compact={"budgets": [100], "sizes": {"epochs": 1}}, train={"epochs": 2}))
    load_dataset(values.data.name, **values.data.options)  # prepared here, it is no write of a run
    replace, writes = os.replace, itertools.count()

    def replace_or_die(source: Any, target: Any) -> None:
        if next(writes) == last:
            raise KilledError
        replace(source, target)

    monkeypatch.setattr(files.os, "replace", replace_or_die)
    last = -1
    expected = lasting(Pipeline(values, tmp_path / "whole").run())
    num_writes = next(writes)
    assert num_writes > 15
    for last in range(num_writes):
        folder, writes = tmp_path / f"cut at {last}", itertools.count()
        with pytest.raises(KilledError):
            Pipeline(values, folder).run()
        assert lasting(Pipeline(values, folder, resume=True).run()) == expected, last
        assert lasting(json.loads((folder / "metrics.json").read_text())) == expected, last


def start(config: Path, folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "train/run.py", str(config), f"run.output={folder}", "--resume"]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},  # two runs side by side
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def kill_when(process: subprocess.Popen[str], condition: Callable[[], bool]) -> None:
    """SIGKILL as soon as the condition holds; the run must not have ended before."""
    deadline = time.monotonic() + 300  # a busy machine is slow; only a run that hangs gets there
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def test_kill_9(tiny_config: Make, tmp_path: Path) -> None:
    """Killed in the dense training, in the search and in the retraining of the second budget."""
    values = tiny_config(
        train={"epochs": 4, "patience": 4, "batch_size": 16, "ema_decay": 0.9},
        compact={
            "budgets": ["50%", 100],
            "sizes": {"epochs": 4, "batch_size": 16},
            "teach": {"teachers": ["dense"]},
            "train": {"schedule": "cosine"},
        },
    )
    config = tmp_path / "tiny.yaml"
    config.write_text(yaml.safe_dump(values))
    whole = start(config, tmp_path / "whole")
    folder = tmp_path / "run"
    checkpoints = folder / "checkpoints"

    def epochs_saved(phase: str) -> Callable[[], bool]:
        """Whether a checkpoint was replaced by a later one."""
        seen: set[int] = set()

        def condition() -> bool:
            path = checkpoints / f"{phase}.pt"
            if path.exists():
                seen.add(path.stat().st_mtime_ns)
            return len(seen) >= 2

        return condition

    for phase in ("dense", "search", "retrain-100"):
        kill_when(start(config, folder), epochs_saved(phase))
        assert not (folder / "metrics.json").exists()
    last = start(config, folder)
    for process in (whole, last):
        output = process.communicate(timeout=300)[0]
        assert process.returncode == 0, output
    result = [json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("whole", "run")]
    assert lasting(result[0]) == lasting(result[1])
    assert len(result[0]["history"]["dense"]) == 4
