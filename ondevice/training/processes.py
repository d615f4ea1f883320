"""The processes of a job: which rows are whose, who writes, and how gradients meet.

A step's batch is the same whatever the number of processes W: process r computes places r, r + W, r + 2W, … of
it, and gradients are averaged with the weight of each share, so that the update is that of the whole batch.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from ondevice import errors
from ondevice.errors import ConfigError, UserError

T = TypeVar("T")
LOST = (
    "a process of the job ended: all stop, and the last checkpoint is kept; start the job again with --resume, on any "
    "number of processes"
)
PREPARATION = timedelta(days=1)  # what one process does while the others wait may take long


class Processes:
    """This process, alone or as one of several.

    Args:
        rank: number of this process.
        size: number of processes W.
        local_rank: number of this process on its machine.
        store: what the processes of a job exchange short texts through; None for a process alone.
    """

    def __init__(self, rank: int = 0, size: int = 1, local_rank: int = 0, store: Any = None) -> None:
        self.rank, self.size, self.local_rank, self.store = rank, size, local_rank, store
        self.local_size = int(os.environ.get("LOCAL_WORLD_SIZE", size))
        self._exchanges = 0
        self._is_ending = False

    @property
    def is_first(self) -> bool:
        """Whether this process writes and speaks for all."""
        return self.rank == 0

    def seed(self, seed: int) -> int:
        """A seed of this process's own, for dropout; that of a process alone is ``seed`` itself."""
        return seed + 7919 * self.rank

    @contextlib.contextmanager
    def same_draws(self, seed: int) -> Iterator[None]:
        """Within the block every process draws the same random numbers; a process alone draws on as it did."""
        if self.size == 1:
            yield
            return
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield

    def share(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """The places of a batch that this process computes."""
        return tuple(t[self.rank :: self.size] if self.size > 1 else t for t in tensors)

    def weight(self, share: int, whole: int) -> float:
        """What the mean over this process's share counts when means are averaged over the processes."""
        return self.size * share / whole

    def join(self, share: Tensor, whole: int) -> Tensor:
        """The values of a batch of ``whole`` rows in their order, from every process's share."""
        if self.size == 1:
            return share
        most = -(-whole // self.size)
        padded = share.new_zeros(most, *share.shape[1:])
        padded[: len(share)] = share
        parts = [torch.empty_like(padded) for _ in range(self.size)]
        dist.all_gather(parts, padded)
        return torch.stack(parts, 1).flatten(0, 1)[:whole]

    def total(self, value: Tensor) -> Tensor:
        """The sum over the processes, in place."""
        if self.size > 1:
            dist.all_reduce(value)
        return value

    def average_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Replace each gradient by its mean over the processes, all of them in one exchange."""
        gradients = [p.grad for p in parameters if p.grad is not None]
        if self.size == 1 or not gradients:
            return
        flat = torch.cat([g.reshape(-1) for g in gradients]).div_(self.size)
        dist.all_reduce(flat)
        parts = flat.split([g.numel() for g in gradients])
        torch._foreach_copy_(gradients, [part.view_as(g) for part, g in zip(parts, gradients, strict=True)])

    def check_same(self, tensors: Iterable[Tensor], what: str) -> None:
        """Raise RuntimeError unless every process holds the same bits."""
        if self.size == 1:
            return
        sums = [t.detach().contiguous().view(torch.int32).sum(dtype=torch.int64) for t in tensors]
        local = torch.stack(sums)
        low, high = local.clone(), local
        dist.all_reduce(low, dist.ReduceOp.MIN)
        dist.all_reduce(high, dist.ReduceOp.MAX)
        if not torch.equal(low, high):
            raise RuntimeError(f"{what} differ between the processes")

    def wait(self) -> None:
        """Return when every process has come here."""
        if self.size > 1:
            self._exchange(None)

    def leaders_first(self, function: Callable[[], T]) -> T:
        """Call ``function`` in one process of each machine, and in the others when those are done.

        Raises: UserError: in all processes, when it did in one of the first.
        """
        leads = self.local_rank == 0
        result: Any = self._while_others_wait(function if leads else None)
        return result if leads else function()

    def only_first(self, function: Callable[[], None]) -> None:
        """Call ``function`` in the first process, while the others wait.

        Raises: UserError: in all processes, when it did in the first.
        """
        self._while_others_wait(function if self.is_first else None)

    def _while_others_wait(self, function: Callable[[], T] | None) -> T | None:
        if self.size == 1:
            return function() if function is not None else None
        result, error = None, None
        if function is not None:
            try:
                result = function()
            except UserError as mistake:
                error = (type(mistake).__name__, str(mistake))
        for told in self._exchange(error):
            if told is not None:
                kind, text = told
                raise getattr(errors, kind, UserError)(text)
        return result

    def _exchange(self, value: Any) -> list[Any]:
        """Every process's ``value``, which JSON can hold."""
        name = f"exchange/{self._exchanges}"
        self._exchanges += 1
        self.store.set(f"{name}/{self.rank}", json.dumps(value))
        keys = [f"{name}/{rank}" for rank in range(self.size)]
        self._await(keys)
        return [json.loads(self.store.get(key)) for key in keys]

    def _await(self, keys: list[str]) -> None:
        """Return when all keys are in the store; unlike within its own wait, a signal is heard meanwhile."""
        pause, deadline = 0.001, time.monotonic() + PREPARATION.total_seconds()
        while not self.store.check(keys):
            if time.monotonic() > deadline:
                raise RuntimeError(f"timed out after {PREPARATION} in waiting for the other processes")
            time.sleep(pause)
            pause = min(2 * pause, 0.1)

    @contextlib.contextmanager
    def guard(self) -> Iterator[None]:
        """Within the block, the end of another process ends this one, and one of them says why."""
        if self.size == 1:
            yield
            return
        before = signal.signal(signal.SIGTERM, lambda *_: self._end())
        try:
            yield
        except RuntimeError as error:
            if not is_connection_error(error):
                raise
            self._end()
        finally:
            signal.signal(signal.SIGTERM, before)

    def _end(self) -> None:
        """Say once per job that it stops, and leave without waiting for anyone."""
        if self._is_ending:  # torchrun's signal, which comes when the error has been seen already
            return
        self._is_ending = True
        try:
            speaks = self.store.add("said", 1) == 1
        except RuntimeError:  # the machine that holds the store is gone, too
            speaks = True
        if speaks:
            print(f"error: {LOST}", file=sys.stderr, flush=True)
        os._exit(3)


ALONE = Processes()
_joined: tuple[Processes, str] | None = None  # a process takes part in one job


def is_connection_error(error: BaseException) -> bool:
    """Whether an error is what a collective raises when another process is gone."""
    text = str(error)
    known = (
        "Connection closed",
        "Connection reset",
        "Broken pipe",
        "Timed out",
        "timed out",
        "NCCL",
        "Socket",
    )
    return isinstance(error, dist.DistError) or any(word in text for word in known)


def join_job(mode: str, device: str, timeout: int) -> tuple[Processes, str]:
    """The process as torchrun started it, and its device.

    Args:
        mode: ``distributed.mode`` of the configuration.
        device: ``run.device`` of the configuration.
        timeout: seconds to wait for another process in a step.

    Raises: UserError: when torchrun and the configuration say different things.
    """
    size = int(os.environ.get("WORLD_SIZE", 1))
    if mode == "none":
        if size > 1:
            raise ConfigError(
                f"torchrun started {size} processes, but distributed=none: add distributed=ddp, or start with python"
            )
        return ALONE, device
    if "RANK" not in os.environ:
        raise ConfigError(
            f"distributed={mode}: start the job with torchrun --nproc_per_node=N train/run.py …, one process per GPU"
        )
    global _joined
    if _joined is not None:
        return _joined
    rank, local_rank = int(os.environ["RANK"]), int(os.environ.get("LOCAL_RANK", 0))
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device == "auto":
        device = "cuda" if gpus else "cpu"
    if device == "cuda":
        if local_rank >= gpus:
            raise ConfigError(
                f"run.device: this machine has {gpus} GPUs and more processes; start with --nproc_per_node={gpus}"
            )
        device = f"cuda:{local_rank}"
        torch.cuda.set_device(device)
    store, rank, size = next(dist.rendezvous("env://", rank, size))
    dist.init_process_group(
        "nccl" if device.startswith("cuda") else "gloo",
        store=dist.PrefixStore("group", store),
        rank=rank,
        world_size=size,
        timeout=timedelta(seconds=timeout),
    )
    atexit.register(dist.destroy_process_group)
    _joined = Processes(rank, size, local_rank, store), device
    return _joined
