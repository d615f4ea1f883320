"""The whole job with tables whose rows lie in several processes: against one process, killed, refused."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from ondevice.config.file import from_dict
from ondevice.errors import UserError
from ondevice.run.directory import Run
from ondevice.start import make_pipeline
from ondevice.training.checkpoint import load_state, save_state
from ondevice.training.processes import LOST

from ..forked import run_processes
from ..runs import Make, laid_over, lasting
from ..training.test_ddp import assert_close, torchrun, workers_of
from ..world import make_world

pytest.importorskip(
    "torchrec", reason="sharded tables need TorchRec: docs/cluster.md says how it is installed"
)
pytestmark = pytest.mark.distributed


# Like the configuration that several processes without shards are held to, with an optimizer that tables can have.
EXACT = {
    "model": {"name": "deepfm", "hidden": [8], "dropout": 0.0, "batch_norm": False},
    "train": {"epochs": 3, "patience": 3, "embedding_penalty": 0.001, "batch_size": 127},
    "compact": {
        "sizes": {"epochs": 3, "threshold_learning_rate": 0.01},
        "teach": {"teachers": ["dense"], "pairs": 0.5},
        "train": {"schedule": "cosine", "ema_decay": 0.9},
        "store": {"max_size": 4},
    },
    "distributed": {"mode": "sharded", "table_learning_rate": 0.05},
}


def run(values: dict[str, Any], folder: Path, resume: bool = False) -> dict[str, Any]:
    return make_pipeline(from_dict(values), folder, resume=resume).run()


def run_sharded(size: int, values: dict[str, Any], folder: Path, resume: bool = False) -> dict[str, Any]:
    """Metrics of the job in ``size`` processes, which all end with the same."""
    results = run_processes(size, folder.with_name(f"{folder.name} results"), run, values, folder, resume)
    assert all(lasting(result) == lasting(results[0]) for result in results[1:])
    metrics: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    assert metrics == results[0]
    return metrics


def test_processes_find_what_one_does(tiny_config: Make, tmp_path: Path) -> None:
    """AUC within what rounding does to nearly equal scores; the same rows but for one in a hundred."""
    values = tiny_config(**EXACT)
    one = run_sharded(1, values, tmp_path / "1")
    sizes = load_file(tmp_path / "1" / "search.safetensors")
    for size in (2, 4):
        many = run_sharded(size, values, tmp_path / f"{size}")
        assert_close(one, many)
        for name, result in load_file(tmp_path / f"{size}" / "search.safetensors").items():
            assert result.dtype == torch.uint8
            assert float((result == sizes[name]).float().mean()) >= 0.99
    assert one["dense"]["valid_auc"] > 0.55


def test_what_is_kept_is_a_run_that_can_be_exported(tiny_config: Make, tmp_path: Path) -> None:
    """Its vocabulary is that of the kept rows, and the program agrees with what was measured."""
    pytest.importorskip("executorch", reason="exporting needs the extra ondevice-recommender[export]")
    from ondevice.program.export_run import export_run

    values = tiny_config(**EXACT)
    values["compact"]["budgets"] = [100]
    metrics = run_sharded(2, values, tmp_path / "run")
    opened = Run(tmp_path / "run")
    whole, kept = make_world().info.num_embeddings, opened.vocabulary.num_embeddings
    assert kept < whole
    assert opened.dataset().vocabulary == opened.vocabulary
    assert opened.compact("100").embedding.num_embeddings == kept
    for exported in export_run(tmp_path / "run"):
        entry = metrics["budgets"][exported.bundle.path.name]
        assert exported.parity["test_auc_eager"] == pytest.approx(entry["test_auc"], abs=1e-9)
        assert exported.parity["test_auc_pte"] == pytest.approx(entry["test_auc"], abs=0.01)
    with pytest.raises(UserError, match="the dense model was trained with distributed=sharded"):
        opened.dense()


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds a job's processes in /proc")
def test_a_killed_job_goes_on_with_another_number_of_processes(tiny_config: Make, tmp_path: Path) -> None:
    values = tiny_config(**EXACT)
    longer = {"sizes": {"epochs": 5}, "train": {"epochs": 2}}
    values = laid_over(values, {"train": {"epochs": 5, "patience": 5}, "compact": longer})
    whole = run_sharded(2, values, tmp_path / "whole")
    folder, config = tmp_path / "run", tmp_path / "tiny.yaml"
    config.write_text(yaml.safe_dump(values))
    for phase, size in (("dense", 2), ("search", 2)):
        job = torchrun(size, str(config), f"run.output={folder}", "--resume")
        latest, deadline = folder / "checkpoints" / phase / "latest.json", time.monotonic() + 300
        while not latest.exists():
            assert job.poll() is None, job.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.005)
        os.kill(workers_of(job)[1], signal.SIGKILL)
        errors = job.communicate(timeout=120)[1]
        assert job.returncode == 1
        assert errors.count("error:") == 1, errors
        assert f"error: {LOST}" in errors.splitlines()
        state = (
            folder / "checkpoints" / phase / f"epoch-{json.loads(latest.read_text())['epoch']}" / "state.pt"
        )
        save_state(
            state, {**load_state(state, torch.device("cpu")), "seconds": 1e6}
        )  # to be told from a job that begins anew
    resumed = run_sharded(4, values, folder, resume=True)
    assert resumed["dense"]["seconds"] > 1e6
    assert resumed["search"]["seconds"] > 1e6
    assert_close(whole, resumed)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"compact": {"sizes": {"name": "uniform"}}},
            "compact.sizes.name: got 'uniform', which needs whole tables",
        ),
        (
            {"compact": {"sizes": {"name": "pep", "regime": "data"}}},
            "compact.sizes.regime: sharded thresholds follow a budget",
        ),
        ({"compact": {"sizes": {"name": "pep", "granularity": "field"}}}, "granularity: got 'field'"),
        ({"research": {"start": "dense"}}, "research.start: trained tables are not gathered"),
        ({"train": {"ema_decay": 0.9}}, "train.ema_decay: an average touches every row"),
        ({"compact": {"sizes": {"weight_decay": 1e-05}}}, "compact.sizes.weight_decay: it touches every row"),
        ({"compact": {"store": {"name": "positions"}}}, "compact.store.name: sharded tables end in sizes"),
        ({"embedding": {"dim": 256}}, "embedding.dim: got 256; at most 255"),
        ({"embedding": {"first_order": "uniform"}}, "first-order weights share the sharded table"),
        ({}, "start the job with torchrun"),
    ],
)
def test_what_sharded_tables_cannot_do_is_told_at_once(
    tiny_config: Make, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    values = tiny_config(**{"distributed": {"mode": "sharded"}, **change})
    with pytest.raises(UserError, match=message):
        make_pipeline(from_dict(values), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def refused(values: dict[str, Any], folder: Path, resume: bool) -> str:
    try:
        run(values, folder, resume)
    except UserError as error:
        return str(error)
    return ""


def test_what_a_started_run_cannot_become(tiny_config: Make, tmp_path: Path) -> None:
    values = tiny_config(**EXACT)
    run_sharded(2, values, tmp_path / "run")
    more = laid_over(values, {"compact": {"budgets": ["50%", 60]}})
    told = run_processes(2, tmp_path / "out", refused, more, tmp_path / "run", True)
    assert all("sharded tables are not searched again for another budget" in text for text in told)
    with pytest.raises(UserError, match=r"was started with distributed.mode='sharded', not 'none'"):
        run({**values, "distributed": "none"}, tmp_path / "run", resume=True)
    alone = {**values, "distributed": {**values["distributed"], "table_optimizer": "adam"}}
    told = run_processes(2, tmp_path / "out", refused, alone, tmp_path / "other", False)
    assert all("adam runs on GPUs alone" in text for text in told)
