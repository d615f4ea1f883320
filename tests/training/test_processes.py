"""Shares of a batch, gradients that meet, and what is said when a process is gone; 2 and 4 gloo processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ondevice.errors import UserError
from ondevice.sharded.tables import ShardedTables, TableSpec
from ondevice.training.norm import SyncedBatchNorm, synced
from ondevice.training.processes import ALONE, LOST, Processes, join_job

from ..forked import free_port, joined, run_processes

pytestmark = pytest.mark.distributed


def alone_shares() -> list[Processes]:
    return [Processes(rank, 4) for rank in range(4)]


def test_shares_are_disjoint_and_weigh_as_many_rows_as_they_have() -> None:
    rows = torch.arange(10)
    shares = [p.share(rows)[0] for p in alone_shares()]
    assert [share.tolist() for share in shares] == [[0, 4, 8], [1, 5, 9], [2, 6], [3, 7]]
    weights = [p.weight(len(s), 10) for p, s in zip(alone_shares(), shares, strict=True)]
    mean = sum(w * float(s.float().mean()) for w, s in zip(weights, shares, strict=True)) / 4
    assert mean == pytest.approx(4.5)


def test_a_process_alone_changes_nothing() -> None:
    rows = torch.arange(5)
    assert ALONE.share(rows)[0] is rows
    assert (ALONE.weight(5, 5), ALONE.seed(3), ALONE.is_first) == (1.0, 3, True)
    assert ALONE.join(rows, 5) is rows
    model = nn.Sequential(nn.BatchNorm1d(3))
    synced(model, ALONE)
    assert type(model[0]) is nn.BatchNorm1d


def meet() -> Any:
    processes = joined()
    rank, size = processes.rank, processes.size
    whole = torch.arange(14.0).reshape(7, 2)
    back = processes.join(processes.share(whole)[0], 7)
    few = processes.join(processes.share(whole[:1])[0], 1)  # fewer rows than processes
    one, other, unused = (nn.Parameter(torch.zeros(2, 2)) for _ in range(3))
    one.grad, other.grad = torch.full((2, 2), float(rank + 1)), torch.full((2, 2), 2.0 * rank)
    processes.average_gradients([one, other, unused])
    processes.check_same([one.grad, other.grad], "gradients")
    try:
        processes.check_same([torch.tensor([float(rank)])], "ranks")
        told = ""
    except RuntimeError as error:
        told = str(error)
    assert processes.leaders_first(lambda: 3) == 3
    try:
        processes.leaders_first(lambda: refuse(rank))
        refused = ""
    except UserError as error:
        refused = str(error)
    processes.wait()
    return back, few, one.grad, other.grad, told, refused, size


def refuse(rank: int) -> None:
    raise UserError(f"not in {rank}")


@pytest.mark.parametrize("size", [2, 4])
def test_values_meet(tmp_path: Path, size: int) -> None:
    results = run_processes(size, tmp_path, meet)
    for back, few, one, other, told, refused, _ in results:
        assert torch.equal(back, torch.arange(14.0).reshape(7, 2))
        assert torch.equal(few, torch.tensor([[0.0, 1.0]]))
        assert torch.equal(one, torch.full((2, 2), (size + 1) / 2))
        assert torch.equal(other, torch.full((2, 2), size - 1.0))
        assert told == "ranks differ between the processes"
        assert refused == "not in 0"


def layer() -> nn.Sequential:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 1))
    model[1].weight.data.uniform_(0.5, 1.5)
    return model


def loss_of(output: Tensor) -> Tensor:
    return output.square().sum()


def normalize(batches: list[Tensor]) -> dict[str, Tensor]:
    processes, model = joined(), layer()
    synced(model, processes)
    assert isinstance(model[1], SyncedBatchNorm)
    for batch in batches:
        loss_of(model(processes.share(batch)[0])).backward()
    for p in model.parameters():
        p.grad = processes.total(p.grad)
    model.eval()
    return {
        **{name: p.grad for name, p in model.named_parameters()},
        **dict(model.named_buffers()),
        "eval": model(batches[0]),
    }


@pytest.mark.parametrize("size", [2, 4])
def test_batch_norm_is_that_of_the_whole_batch(tmp_path: Path, size: int) -> None:
    """Batches of 10 and of 3, of which the last of four processes has nothing."""
    batches = [torch.randn(10, 5) * 3 + 1, torch.randn(3, 5)]
    whole = layer()
    for batch in batches:
        loss_of(whole(batch)).backward()
    expected = {**{n: p.grad for n, p in whole.named_parameters()}, **dict(whole.named_buffers())}
    expected["eval"] = whole.eval()(batches[0])
    for result in run_processes(size, tmp_path, normalize, batches):
        assert set(result) == set(expected)
        for name, value in expected.items():
            # rounding alone: the sums run in another order
            torch.testing.assert_close(result[name], value, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize(
    ("mode", "environment", "message"),
    [
        ("none", {"WORLD_SIZE": "2", "RANK": "0"}, "torchrun started 2 processes, but distributed=none"),
        ("ddp", {}, "start the job with torchrun"),
    ],
)
def test_starts_that_do_not_fit(
    monkeypatch: pytest.MonkeyPatch, mode: str, environment: dict[str, str], message: str
) -> None:
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=message):
        join_job(mode, "cpu", 60)


GUARDED = """
import sys, torch, time
sys.path.insert(0, {root!r})
from ondevice.training.processes import join_job
processes, _ = join_job("ddp", "cpu", 60)
with processes.guard():
    print("ready", processes.rank, flush=True)
    while True:
        {step}
        time.sleep(0.01)
"""
GRADIENTS, WAITING = "processes.total(torch.zeros(1))", "processes.rank == 2 or processes.wait()"


@pytest.mark.parametrize("step", [GRADIENTS, WAITING])
def test_one_killed_process_ends_the_job_with_one_line(tmp_path: Path, step: str) -> None:
    """Others see it when they exchange gradients; while they wait for a file, the launcher's signal tells them."""
    root = str(Path(__file__).resolve().parents[2])
    script = tmp_path / "guarded.py"
    script.write_text(GUARDED.format(root=root, step=step))
    port = str(free_port())
    started = [
        subprocess.Popen(
            [sys.executable, str(script)],
            env={
                **os.environ,
                "RANK": str(r),
                "WORLD_SIZE": "3",
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": port,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for r in range(3)
    ]
    for process in started:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("ready")
    time.sleep(0.2)
    os.kill(started[2].pid, signal.SIGKILL)
    if step == WAITING:
        started[1].terminate()
        started[1].wait(timeout=20)  # the first process holds the store in which they agree on who speaks
        started[0].terminate()
    said = [process.communicate(timeout=20)[1] for process in started]
    assert [process.returncode for process in started] == [3, 3, -signal.SIGKILL]
    assert sorted(said) == ["", "", f"error: {LOST}\n"]


def test_what_sharded_tables_need_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchrec", None)
    specs = [TableSpec("weight", 5, "adagrad", 0.1)]
    with pytest.raises(
        UserError, match=r"needs TorchRec: pip install 'ondevice-recommender\[distributed\]' && pip install"
    ):
        ShardedTables(10, specs, ALONE, torch.device("cpu"))
