"""What programs are asked while they are measured: rankings of real interactions, the same for every program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from ondevice.bench.measure.worker import input_key


@dataclass(frozen=True)
class Request:
    """One context and its candidates, in training ids.

    Shape: context (1, Sc) int64; items (N, Si) int64; rows (N, S) int64, both in schema order.
    """

    context: Tensor
    items: Tensor
    rows: Tensor


def make_requests(
    ids: np.ndarray,
    context_columns: Sequence[int],
    item_columns: Sequence[int],
    candidates: int,
    *,
    count: int = 8,
    seed: int = 0,
) -> list[Request]:
    """Requests whose contexts and items are those of rows drawn from a split.

    Popular items are drawn as often as they occur, so caches meet what they meet in use. Without both sides
    every row is whole as it was.

    Args:
        ids: (n, S) rows of training ids, at least one.
        context_columns: those that a request has once.
        item_columns: those that each candidate has.
        candidates: candidates N of each request.
        count: number of requests.
        seed: seed of the draw.
    """
    random = np.random.default_rng(seed)
    context, item = list(context_columns), list(item_columns)
    requests = []
    for _ in range(count):
        rows = ids[np.sort(random.integers(0, len(ids), candidates))].astype(np.int64)
        if context and item:
            rows[:, context] = ids[random.integers(0, len(ids))][context]
        whole = torch.from_numpy(rows)
        requests.append(Request(whole[:1, context].contiguous(), whole[:, item].contiguous(), whole))
    return requests


def write_inputs(
    path: str | Path, inputs: Mapping[tuple[str, str, str], Sequence[tuple[Tensor, ...]]]
) -> None:
    """Write the inputs of (program, method, group) to the file that workers read."""
    tensors: dict[str, Tensor] = {}
    for (program, method, group), requests in inputs.items():
        for i, arguments in enumerate(requests):
            for j, argument in enumerate(arguments):
                tensors[input_key(program, method, group, i, j)] = argument.clone()
    save_file(tensors, path)
