"""How fast batches can be made of a split, held in memory or on the disk."""

from __future__ import annotations

import time
from typing import Any

import torch

from ondevice.training.batches import Batches


def batch_rates(split: Any, batch_sizes: tuple[int, ...] = (1024, 16384), epochs: int = 2) -> dict[str, Any]:
    """Rows a second of whole epochs on the CPU, the best of some, by batch size."""
    rates: dict[str, Any] = {}
    for name, resident in (("in_memory", True), ("on_disk", False)):
        rates[name] = {}
        for batch_size in batch_sizes:
            batches = Batches(split, batch_size, torch.device("cpu"), resident=resident)
            seconds = []
            for seed in range(epochs):
                started = time.perf_counter()
                for _ in batches.epoch(seed):
                    pass
                seconds.append(time.perf_counter() - started)
            rates[name][str(batch_size)] = round(batches.num_rows / min(seconds))
    return rates
