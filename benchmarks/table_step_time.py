"""What a training step costs on made-up tables of any size: PEP against dense training, both by rows."""

from __future__ import annotations

import dataclasses
import resource
import statistics
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.made_up import zipf
from benchmarks.pep_step import wait
from ondevice.config.sections import SizesConfig
from ondevice.errors import UserError
from ondevice.forms.table import TableInfo
from ondevice.methods.build import build
from ondevice.training.optimizers.idle import CAPACITY
from ondevice.training.optimizers.table_adam import TableAdam
from ondevice.training.step import make_optimizers, train_step

REGIMES = {
    "budget": SizesConfig(row_wise=True),
    "decay": SizesConfig(row_wise=True, weight_decay=1e-5, decoupled_decay=True),
}
"""How PEP's thresholds are moved, with the settings that both sides are trained by."""
SMALLEST_FIELD = 4
FIRST_STEPS = 2
"""Steps at the start of each turn that do not count: they find another side's rows in the caches."""


@dataclasses.dataclass(frozen=True)
class Workload:
    """What is measured.

    Args:
        num_fields: fields F.
        embedding_dim: dimension D.
        batch_size: rows of a step.
        rounds: turns that every side gets; ratios are the median over them.
        steps: steps of a turn, whose median is the turn's time.
        model_options: of DeepFM; its own by default.
        precision: as in the config.
    """

    num_fields: int = 39
    embedding_dim: int = 16
    batch_size: int = 2048
    rounds: int = 9
    steps: int = 14
    model_options: dict[str, Any] = dataclasses.field(default_factory=dict)
    precision: str = "float32"

    def __post_init__(self) -> None:
        if self.rounds < 1 or self.steps <= FIRST_STEPS:
            raise UserError(
                f"got {self.rounds} rounds of {self.steps} steps; at least 1 of {FIRST_STEPS + 1}"
            )


def field_sizes(num_rows: int, num_fields: int) -> np.ndarray:
    """Rows of each field, ``num_rows`` together: from 4 up in equal ratios, as widely spread as Criteo's.

    Shape: (F,) int64.
    Raises: UserError: when there are fewer than 4 rows for a field.
    """
    if num_rows < SMALLEST_FIELD * num_fields:
        raise UserError(
            f"--tables: {num_rows} rows are too few for {num_fields} fields; use at least "
            f"{SMALLEST_FIELD * num_fields}"
        )
    low, high = 1.0, 1.0 * num_rows
    powers = np.arange(num_fields)
    for _ in range(200):
        ratio = (low + high) / 2
        with np.errstate(over="ignore"):
            too_many = (SMALLEST_FIELD * ratio**powers).sum() > num_rows
        low, high = (low, ratio) if too_many else (ratio, high)
    sizes = (SMALLEST_FIELD * low**powers).astype(np.int64)
    sizes[-1] += num_rows - sizes.sum()
    return sizes


def made_up_batches(
    sizes: np.ndarray, batch_size: int, count: int, device: torch.device, seed: int = 0
) -> list[tuple[Tensor, Tensor]]:
    """Batches of ids and labels, resident on a device.

    Popularity within a field follows Zipf's law; which ids are popular is random, as in a vocabulary that is
    sorted by its keys.

    Shape: ids (B, F) int64, labels (B,) float32.
    """
    random = np.random.default_rng(seed)
    columns, offset = [], 0
    for size in sizes.tolist():
        ranks = zipf(random, batch_size * count, size).astype(np.int64) - 1
        columns.append(torch.from_numpy(offset + random.permutation(size)[ranks]))
        offset += size
    ids = torch.stack(columns, 1).to(device)
    labels = torch.from_numpy(random.random(len(ids)) < 0.25).float().to(device)
    # batches are tensors of their own: what was found of one is kept by its identity
    return [
        (i.clone(), y.clone()) for i, y in zip(ids.split(batch_size), labels.split(batch_size), strict=True)
    ]


class Side:
    """A recommender in training, and the time of its steps."""

    def __init__(
        self, sizes: np.ndarray, method: str, options: dict[str, Any], settings: SizesConfig,
        workload: Workload, device: torch.device,
    ) -> None:  # fmt: skip
        torch.manual_seed(0)
        offsets = torch.from_numpy(np.concatenate([[0], np.cumsum(sizes)]))
        info = TableInfo(offsets, torch.ones(int(sizes.sum()), dtype=torch.int64))
        self.workload, self.device = workload, device
        self.recommender = build(
            info,
            model="deepfm",
            model_options=workload.model_options,
            method=method,
            method_options=options,
            embedding_dim=workload.embedding_dim,
        )
        self.recommender.to(device).train()
        self.optimizers = make_optimizers(self.recommender, settings)
        self.seconds: list[float] = []

    @property
    def adam(self) -> TableAdam:
        (optimizer,) = (o for o in self.optimizers if isinstance(o, TableAdam))
        return optimizer

    def turn(self, batches: Sequence[tuple[Tensor, Tensor]]) -> None:
        """Take steps on these batches and note their median time."""
        taken = []
        for ids, labels in batches:
            wait(self.device)
            started = time.perf_counter()
            train_step(self.recommender, self.optimizers, ids, labels, precision=self.workload.precision)
            wait(self.device)
            taken.append(time.perf_counter() - started)
        self.seconds.append(statistics.median(taken[FIRST_STEPS:]))

    def flush_seconds(self) -> float:
        """Time to bring every row up to date, which is due every `CAPACITY` steps."""
        started = time.perf_counter()
        self.adam.flush()
        wait(self.device)
        return time.perf_counter() - started

    def bytes(self) -> dict[str, int]:
        """Memory of the tables: weights, thresholds, Adam's moments, and the whole of what lies packed."""
        thresholds = {p for table in self.recommender.tables() for p in table.thresholds()}
        rows = [p for table in self.recommender.tables() for p in table.row_parameters()]
        adams = {p for group in self.adam.param_groups for p in group["params"]}
        return {
            "weights": sum(4 * p.numel() for p in rows if p not in thresholds),
            "thresholds": sum(4 * p.numel() for p in thresholds),
            "moments": sum(8 * p.numel() for p in rows if p in adams),
            "packed": self.adam.record_bytes,
        }

    def bytes_of_step(self, num_distinct: int) -> int:
        """Bytes that a step must move, at the least.

        Every distinct row is read packed, written unpacked, read for its update and written packed; each
        lookup is written and read as an embedding, and so is its gradient; ids are read twice.
        """
        row = self.adam.record_bytes // self.recommender.info.num_embeddings
        lookups = self.workload.batch_size * self.workload.num_fields
        return 4 * num_distinct * row + lookups * (4 * 4 * (self.workload.embedding_dim + 1) + 16)


def compare_tables(
    tables: Sequence[int],
    workload: Workload,
    *,
    granularities: Sequence[str] = ("feature", "feature-dimension"),
    device: torch.device,
    bandwidth: float | None = None,
) -> dict[str, Any]:
    """Times of a step of PEP and of dense training on tables of each size, and what their memory is.

    PEP and dense take turns, on small and large tables, on the same batches. The figures at the top are those
    of the first granularity; the ratio of sizes is that of the regime where it is largest.

    Args:
        tables: numbers of rows, ascending.
        workload: what is measured.
        granularities: of PEP's thresholds.
        device: where.
        bandwidth: bytes a second that the device's memory can do; None to measure it by copying.
    """
    if bandwidth is None:
        bandwidth = copy_bandwidth(device)
    entries = [
        _compare(tables, workload, granularity, regime, device, bandwidth)
        for granularity in granularities
        for regime in REGIMES
    ]
    first = entries[: len(REGIMES)]
    small, large = short(tables[0]), short(tables[-1])
    ratio = f"ratio_{large}_over_{small}"
    return {
        ratio: max(entry[ratio] for entry in first),
        "pep_over_dense": {
            short(rows): {e["regime"]: e["tables"][short(rows)]["pep_over_dense"] for e in first}
            for rows in tables
        },
        "granularity": granularities[0],
        **dataclasses.asdict(workload),
        "memory_bytes_per_second": round(bandwidth),
        "measured": entries,
        "peak_rss_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
    }


def _compare(
    tables: Sequence[int],
    workload: Workload,
    granularity: str,
    regime: str,
    device: torch.device,
    bandwidth: float,
) -> dict[str, Any]:
    """One granularity and regime."""
    settings = REGIMES[regime]
    options = {"regime": regime, "granularity": granularity}
    steps, count = workload.steps, workload.steps * workload.rounds
    sides, batches = {}, {}
    for rows in tables:
        sizes = field_sizes(rows, workload.num_fields)
        batches[rows] = made_up_batches(sizes, workload.batch_size, count, device)
        sides[rows, "pep"] = Side(sizes, "pep", options, settings, workload, device)
        sides[rows, "dense"] = Side(sizes, "uniform", {}, settings, workload, device)
    for turn in range(workload.rounds):
        for (rows, _), side in sides.items():
            side.turn(batches[rows][turn * steps : (turn + 1) * steps])

    small, large = sides[tables[0], "pep"], sides[tables[-1], "pep"]
    entry: dict[str, Any] = {
        "granularity": granularity,
        "regime": regime,
        f"ratio_{short(tables[-1])}_over_{short(tables[0])}": _ratio(large, small),
        "tables": {},
    }
    for rows in tables:
        pep, dense = sides[rows, "pep"], sides[rows, "dense"]
        distinct = statistics.median(len(ids.unique()) for ids, _ in batches[rows][:5])
        median = {"pep": statistics.median(pep.seconds), "dense": statistics.median(dense.seconds)}
        achieved = pep.bytes_of_step(int(distinct)) / median["pep"]
        entry["tables"][short(rows)] = {
            "pep_over_dense": _ratio(pep, dense),
            "pep_ms": round(1e3 * median["pep"], 3),
            "dense_ms": round(1e3 * median["dense"], 3),
            "pep_ms_of_rounds": [round(1e3 * s, 3) for s in pep.seconds],
            "dense_ms_of_rounds": [round(1e3 * s, 3) for s in dense.seconds],
            "pep_rows_per_second": round(workload.batch_size / median["pep"]),
            "distinct_rows": int(distinct),
            "pep_flush_ms_per_step": round(1e3 * pep.flush_seconds() / CAPACITY, 3),
            "dense_flush_ms_per_step": round(1e3 * dense.flush_seconds() / CAPACITY, 3),
            "pep_bytes": pep.bytes(),
            "dense_bytes": dense.bytes(),
            "pep_bytes_of_step": pep.bytes_of_step(int(distinct)),
            "pep_bytes_per_second": round(achieved),
            "pep_share_of_bandwidth": round(achieved / bandwidth, 4),
        }
    return entry


def _ratio(a: Side, b: Side) -> float:
    """Median over rounds of one side's time over the other's."""
    return round(statistics.median(x / y for x, y in zip(a.seconds, b.seconds, strict=True)), 3)


def copy_bandwidth(device: torch.device, num_bytes: int = 1 << 29) -> float:
    """Bytes a second, read and written, of the best of some copies within a device's memory."""
    source = torch.zeros(num_bytes // 4, device=device)
    target = torch.empty_like(source)
    best = float("inf")
    for _ in range(6):
        wait(device)
        started = time.perf_counter()
        target.copy_(source)
        wait(device)
        best = min(best, time.perf_counter() - started)
    return 2 * num_bytes / best


def short(number: int) -> str:
    """100k for 100,000, 10M for 10,000,000."""
    for unit, size in (("M", 1_000_000), ("k", 1000)):
        if number % size == 0:
            return f"{number // size}{unit}"
    return str(number)
