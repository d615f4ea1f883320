"""The whole job in 2 and 4 processes: what one process finds, and what becomes of a job that is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from ondevice.config.file import from_dict
from ondevice.run.pipeline import Pipeline
from ondevice.training.checkpoint import load_state, save_state
from ondevice.training.processes import LOST

from ..forked import run_processes
from ..runs import Make, laid_over, lasting

pytestmark = pytest.mark.distributed
ROOT = Path(__file__).resolve().parents[2]

# Without dropout, which every process draws for itself, and without batch norm, below which a bias follows
# rounding errors, W processes compute what one does up to the order of sums.
EXACT = {
    "model": {"name": "deepfm", "hidden": [8], "dropout": 0.0, "batch_norm": False},
    "train": {"epochs": 3, "patience": 3, "ema_decay": 0.9, "embedding_penalty": 0.001, "batch_size": 127},
    "compact": {
        "sizes": {"epochs": 3, "threshold_learning_rate": 0.01},
        "teach": {"teachers": ["dense"], "pairs": 0.5},
        "train": {"schedule": "cosine"},
        "store": {"max_size": 4},
    },
}
AUC_TOLERANCE = 1e-3  # ten of a split's 10,000 pairs may change places: many scores are nearly equal here
LOSS_TOLERANCE = 1e-5


def run(values: dict[str, Any], folder: Path, resume: bool = False) -> dict[str, Any]:
    return Pipeline(from_dict(values), folder, resume=resume).run()


def run_ddp(size: int, values: dict[str, Any], folder: Path, resume: bool = False) -> dict[str, Any]:
    """Metrics of the job in ``size`` processes, which all end with the same."""
    shared = {**values, "distributed": "ddp"}
    results = run_processes(size, folder.with_name(f"{folder.name} results"), run, shared, folder, resume)
    assert all(lasting(result) == lasting(results[0]) for result in results[1:])
    metrics: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    assert metrics == results[0]
    return metrics


def assert_close(one: dict[str, Any], many: dict[str, Any]) -> None:
    """Every epoch, and every kept model on the test split."""
    assert set(one["history"]) == set(many["history"])
    for phase, epochs in one["history"].items():
        for a, b in zip(epochs, many["history"][phase], strict=True):
            for name in ("train_loss", "valid_logloss"):
                assert a[name] == pytest.approx(b[name], abs=LOSS_TOLERANCE), (phase, a["epoch"])
            assert a["valid_auc"] == pytest.approx(b["valid_auc"], abs=AUC_TOLERANCE), (phase, a["epoch"])
            assert a["kept"] == b["kept"]
    for a, b in (
        (one["dense"], many["dense"]),
        *((e, many["budgets"][k]) for k, e in one["budgets"].items()),
    ):
        assert a["test_auc"] == pytest.approx(b["test_auc"], abs=AUC_TOLERANCE)
        assert a["test_logloss"] == pytest.approx(b["test_logloss"], abs=LOSS_TOLERANCE)


@pytest.mark.parametrize("size", [2, 4])
def test_processes_find_what_one_does(tiny_config: Make, tmp_path: Path, size: int) -> None:
    """Batches of 127 rows leave one for the last of an epoch of 1,600: some processes have none."""
    one = run(tiny_config(**EXACT), tmp_path / "one")
    many = run_ddp(size, tiny_config(**EXACT), tmp_path / "many")
    assert (one["processes"], many["processes"]) == (1, size)
    assert_close(one, many)
    masks = [load_file(tmp_path / name / "search.safetensors") for name in ("one", "many")]
    for name, mask in masks[0].items():
        # the same rows and values: at most one in a hundred may fall to the other side of its threshold
        assert float((mask == masks[1][name]).float().mean()) >= 0.99


def test_with_dropout_and_batch_norm_within_the_noise_of_seeds(tiny_config: Make, tmp_path: Path) -> None:
    values = {"train": {"epochs": 6, "patience": 6}, "compact": {"budgets": [100], "sizes": {"epochs": 2}}}
    seeds = [
        run(tiny_config(**values, run={"seed": seed}), tmp_path / f"{seed}")["dense"]["test_auc"]
        for seed in range(4)
    ]
    result = run_ddp(2, tiny_config(**values), tmp_path / "many")["dense"]["test_auc"]
    spread = max(seeds) - min(seeds)
    assert min(seeds) - spread <= result <= max(seeds) + spread, (seeds, result)


def torchrun(size: int, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={size}"]
    return subprocess.Popen(
        [*command, "train/run.py", *arguments],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def workers_of(process: subprocess.Popen[str]) -> list[int]:
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(child) for child in children]


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds a job's processes in /proc")
@pytest.mark.parametrize("killed", [0, 1])
def test_a_killed_job_goes_on_with_another_number_of_processes(
    tiny_config: Make, tmp_path: Path, killed: int
) -> None:
    """One of two is killed in mid-epoch; four go on from the last checkpoint, then one makes a further budget."""
    values = tiny_config(**EXACT)
    longer = {"epochs": 10, "patience": 10, "batch_size": 64}
    values = laid_over(values, {"train": longer, "compact": {"train": {"epochs": 3}}})
    config = tmp_path / "tiny.yaml"
    config.write_text(yaml.safe_dump(values))
    whole = run_ddp(2, values, tmp_path / "whole")
    folder = tmp_path / "run"
    job = torchrun(2, str(config), "distributed=ddp", f"run.output={folder}")
    checkpoint, deadline = folder / "checkpoints" / "dense.pt", time.monotonic() + 300
    while not checkpoint.exists():
        assert job.poll() is None, job.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.kill(workers_of(job)[killed], signal.SIGKILL)
    errors = job.communicate(timeout=120)[1]
    assert job.returncode == 1
    assert errors.count("error:") == 1, errors
    assert f"error: {LOST}" in errors.splitlines()
    assert not (folder / "metrics.json").exists()
    state = load_state(checkpoint, torch.device("cpu"))
    save_state(checkpoint, {**state, "seconds": 1e6})  # to be told from a job that begins anew
    resumed = run_ddp(4, values, folder, resume=True)
    assert resumed["dense"]["seconds"] > 1e6
    assert len(resumed["history"]["dense"]) == 10
    assert_close(whole, resumed)
    more = laid_over(values, {"compact": {"budgets": ["50%", 100, 150]}})
    assert set(run(more, folder, resume=True)["budgets"]) == {"50pct", "100", "150"}


def test_a_mistake_is_told_once(tiny_config: Make, tmp_path: Path) -> None:
    config = tmp_path / "tiny.yaml"
    config.write_text(yaml.safe_dump(tiny_config(model={"name": "deepfm", "hiden": [8]})))
    job = torchrun(2, str(config), "distributed=ddp", f"run.output={tmp_path / 'run'}")
    errors = job.communicate(timeout=120)[1]
    assert job.returncode == 1
    assert errors.count("error: model.hiden") == 1, errors
    assert not (tmp_path / "run").exists()
