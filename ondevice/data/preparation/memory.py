"""How many processes, and how much each may hold, within a bound of memory."""

from __future__ import annotations

import os
import re

from ondevice.data.field import is_whole
from ondevice.errors import ConfigError

PARENT_BYTES = 200_000_000  # the process that starts the others
WORKER_BYTES = 300_000_000  # one that parses a chunk, libraries included
IDLE_BYTES = 130_000_000  # the libraries alone
_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


def parse_bytes(value: int | str) -> int:
    """Bytes of ``2GB``, ``500MB`` or a number. Raises UserError for anything else."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([kKmMgGtT]?B)?", str(value).strip())
    if match is None or isinstance(value, bool):
        raise ConfigError(f"data.memory: got {value!r}; it must be bytes such as 2GB or 500MB")
    return int(float(match[1]) * _UNITS[(match[2] or "").upper()])


def shares(memory: int | str, workers: int | None, reader: int = 0) -> tuple[int, int]:
    """Number of workers, and bytes that each may fill while it merges.

    Args:
        memory: bound of all processes together.
        workers: wanted; None: one per core.
        reader: bytes of it that another reader needs.

    Raises: UserError: when the bound is too low for them.
    """
    bound = parse_bytes(memory)
    if workers is not None and not (is_whole(workers) and workers >= 1):
        raise ConfigError(f"data.workers: must be a whole number of at least 1 or null, got {workers!r}")
    bound -= reader
    most = (bound - PARENT_BYTES) // WORKER_BYTES
    if most < (workers or 1):
        least = PARENT_BYTES + (workers or 1) * WORKER_BYTES
        raise ConfigError(
            f"data.memory: {memory} is too little for {workers or 1} process(es) and the one that starts them; "
            f"allow {-(-least // 10**6)}MB, or lower data.workers"
        )
    number = workers or min(most, available_cores())
    return number, (bound - PARENT_BYTES) // number - IDLE_BYTES


def available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
