"""A function in several processes, forked from a server with one thread, so that none imports PyTorch again.

Not from the tests' own process: by then it may have pools of threads, which do not survive a fork.
"""

from __future__ import annotations

import os
import socket
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing as mp

from ondevice.training.processes import Processes, join_job


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


PRELOADED = [
    "torch.distributed.checkpoint",
    "torch.distributed.tensor",
    "ondevice.run.pipeline",
    "fbgemm_gpu",  # what is not installed is left out
    "torchrec.distributed",
    "torchrec.optim",
]


def _child(
    rank: int,
    size: int,
    port: int,
    folder: str,
    environment: Any,
    function: Callable[..., Any],
    arguments: Any,
) -> None:
    os.environ.update(
        environment,
        RANK=str(rank),
        WORLD_SIZE=str(size),
        LOCAL_RANK=str(rank),
        LOCAL_WORLD_SIZE=str(size),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )
    torch.set_num_threads(1)
    try:
        result = {"result": function(*arguments)}
        leave(rank, size)
    except BaseException as error:
        result = {"error": f"{type(error).__name__}: {error}", "trace": traceback.format_exc()}
    torch.save(result, f"{folder}/result-{rank}.pt")
    os._exit(0)


def leave(rank: int, size: int) -> None:
    """The first process, which holds the store, goes last."""
    store = joined().store
    store.add("left", 1)
    while rank == 0 and store.add("left", 0) < size:
        time.sleep(0.005)


def run_processes(size: int, folder: Path, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """What ``function`` returned in each of ``size`` processes, which find each other as under torchrun."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    os.environ.setdefault(
        "OMP_WAIT_POLICY", "PASSIVE"
    )  # read when the server starts: its children wait, not spin
    context = mp.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    environment = dict(os.environ)  # the server's is that of its start
    common = (size, port, str(folder), environment, function, arguments)
    children = [context.Process(target=_child, args=(rank, *common)) for rank in range(size)]
    for child in children:
        child.start()
    for child in children:
        child.join(300)
        assert child.exitcode == 0, f"a process ended with {child.exitcode}"
    results = [torch.load(folder / f"result-{rank}.pt", weights_only=False) for rank in range(size)]
    failed = [result for result in results if "error" in result]
    causes = [
        result for result in failed if "Connection" not in result["error"]
    ]  # not what others suffered by it
    assert not failed, (causes or failed)[0]["trace"]
    return [result["result"] for result in results]


def joined(timeout: int = 60) -> Processes:
    """The processes of this job."""
    return join_job("ddp", "cpu", timeout)[0]
