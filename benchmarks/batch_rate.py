"""How fast batches can be made of a split, held in memory or on the disk."""

from __future__ import annotations

import itertools
import time
from typing import Any

import torch

from ondevice.training.batches import Batches


def batch_rates(
    split: Any, batch_sizes: tuple[int, ...] = (1024, 16384), num_rows: int = 2_000_000
) -> dict[str, Any]:
    """Rows a second on the CPU over the first ``num_rows`` of an epoch, its start included, by batch size."""
    rates: dict[str, Any] = {}
    for name, resident in (("in_memory", True), ("on_disk", False)):
        rates[name] = {}
        for batch_size in batch_sizes:
            batches = Batches(split, batch_size, torch.device("cpu"), resident=resident)
            wanted = max(1, min(num_rows, batches.num_rows) // batch_size)
            started = time.perf_counter()
            for _ in itertools.islice(batches.epoch(0), wanted):
                pass
            rates[name][str(batch_size)] = round(wanted * batch_size / (time.perf_counter() - started))
    return rates
