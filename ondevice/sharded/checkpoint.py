"""Checkpoints of sharded tables: torch.distributed.checkpoint over safetensors files, one or more per process.

They can be read by another number of processes, and hold no code.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint import (
    CheckpointException,
    HuggingFaceStorageReader,
    HuggingFaceStorageWriter,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard

from ondevice.errors import DamagedFile
from ondevice.sharded.tables import ShardedTables
from ondevice.training.processes import Processes, is_connection_error


def _distributed(tables: ShardedTables, rows: Mapping[str, Tensor]) -> dict[str, Any]:
    """Values by own row as tensors that know where they belong."""
    mesh = init_device_mesh(tables.device.type, (tables.processes.size,))
    distributed = {}
    for name, local in rows.items():
        shape = torch.Size((tables.num_rows, *local.shape[1:]))
        stride = torch.empty(shape, device="meta").stride()
        distributed[name] = DTensor.from_local(
            local, mesh, [Shard(0)], run_check=False, shape=shape, stride=stride
        )
    return distributed


def save_rows(folder: Path, tables: ShardedTables, rows: Mapping[str, Tensor]) -> None:
    """Write all processes' values, each those of its own rows.

    Args:
        folder: one that all machines see; what is in it is removed.
        tables: among whose processes rows are divided.
        rows: by name, (num_own, …).
    """
    tables.processes.only_first(lambda: shutil.rmtree(folder, ignore_errors=True))
    writer = HuggingFaceStorageWriter(str(folder), save_distributed=True)
    try:
        with _quiet():
            dcp.save(_distributed(tables, rows), storage_writer=writer)
    except (
        CheckpointException
    ) as error:  # no Exception, for all its name: a full disk, or a process that is gone
        raise RuntimeError(str(error)) from None


def load_rows(folder: Path, tables: ShardedTables, rows: Mapping[str, Tensor]) -> None:
    """Read what any number of processes wrote into ``rows``.

    Raises: DamagedFile: when files are missing or damaged.
    """
    try:
        with _quiet():
            dcp.load(_distributed(tables, rows), storage_reader=HuggingFaceStorageReader(str(folder)))
    except (Exception, CheckpointException) as error:
        if is_connection_error(error):
            raise RuntimeError(str(error)) from None  # another process is gone, and the files may be well
        reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
        raise DamagedFile(
            f"{folder}: not a whole checkpoint ({reason}); delete {folder.parent} to train that phase anew"
        ) from None


class _quiet:
    """Keeps notices of the checkpoint's writer from the terminal."""

    def __enter__(self) -> None:
        self.logger = logging.getLogger("torch.distributed.checkpoint")
        self.level = self.logger.level
        self.logger.setLevel(logging.ERROR)

    def __exit__(self, *_: object) -> None:
        self.logger.setLevel(self.level)


def gather_rows(local: Tensor, tables: ShardedTables) -> Tensor | None:
    """Every process's values for its rows, (N,), in the first process; None in the others."""
    processes: Processes = tables.processes
    if processes.size == 1:
        return local
    padded = local.new_zeros(tables.rows_per_process)
    padded[: len(local)] = local
    parts = [torch.empty_like(padded) for _ in range(processes.size)] if processes.is_first else None
    torch.distributed.gather(padded, parts)
    return torch.cat(parts)[: tables.num_rows] if parts is not None else None
