"""Size a cluster on paper: bytes per row, processes, traffic, time and cost of training tables of some size.

python benchmarks/cluster.py --rows 1e9 --dim 16 --fields 39 [--batch 65536] [--processes 8 16 32]
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ondevice.errors import UserError, run_script
from ondevice.sharded.tables import MULTIPLE

OPTIMIZER_BYTES = {"rowwise_adagrad": (4, 0), "adagrad": (0, 4), "adam": (0, 8)}
"""Bytes of state per row, and per value."""


@dataclass(frozen=True)
class Job:
    """What is trained.

    Args:
        rows: N of the tables.
        dim: D of the embeddings; a first-order weight lies beside them.
        fields: F, lookups of one training row.
        batch: B, rows of a step over all processes.
        parameters: of the base model.
        distinct: share of a process's lookups that are of different rows.
        passes: times that a step reads or writes each looked-up value, forward and backward.
        sorting: bytes that finding the distinct ids of a batch moves for each lookup.
    """

    rows: float = 1e9
    dim: int = 16
    fields: int = 39
    batch: int = 65_536
    parameters: float = 1e5
    distinct: float = 0.5
    passes: float = 16
    sorting: float = 160


@dataclass(frozen=True)
class Cluster:
    """What it is trained on: assumptions, to be replaced by what is rented. Bandwidths are bytes per second.

    Args:
        gpus_per_machine: GPUs that share a fast network.
        memory: bytes of a GPU.
        usable: share of them left for tables.
        memory_bandwidth: of a GPU.
        fast_bandwidth: of a GPU to others of its machine, each way.
        slow_bandwidth: of a GPU to other machines, each way.
        latency: seconds of one exchange.
        overhead: seconds of a step in which a GPU waits for its host.
        flops: of a GPU, in the precision of the base model.
        achieved: share of each of the above that is achieved.
        price: of a GPU and hour.
    """

    gpus_per_machine: int = 8
    memory: float = 141e9
    usable: float = 0.8
    memory_bandwidth: float = 4.8e12
    fast_bandwidth: float = 450e9
    slow_bandwidth: float = 50e9
    latency: float = 30e-6
    overhead: float = 2e-3
    flops: float = 67e12
    achieved: float = 0.3
    price: float = 4.0


def columns(width: int) -> int:
    """Columns that a sharded table has for ``width`` values: the next multiple of four."""
    return -(-width // MULTIPLE) * MULTIPLE


def threshold_columns(method: str, dim: int) -> int:
    """Columns of the table of thresholds.

    Args:
        method: ``dense``, ``pep feature`` or ``pep feature-dimension``.
        dim: D.
    """
    return {"dense": 0, "pep feature": columns(2), "pep feature-dimension": columns(dim + 1)}[method]


def bytes_per_row(method: str, optimizer: str, dim: int) -> int:
    """4·C + state + 4·T: C columns of weights, T of thresholds, which plain descent moves without a state."""
    per_row, per_value = OPTIMIZER_BYTES[optimizer]
    return columns(dim + 1) * (4 + per_value) + per_row + 4 * threshold_columns(method, dim)


def bytes_per_row_ddp(method: str, dim: int, averaged: bool) -> int:
    """Of `distributed=ddp`, in every process: weight, two moments of Adam, the best epoch, an average, thresholds."""
    copies = 1 + 2 + 1 + averaged
    thresholds = {"dense": 0, "pep feature": 2, "pep feature-dimension": dim + 1}[method]
    return 4 * ((dim + 1) * copies + 2 * thresholds)


def processes_needed(job: Job, cluster: Cluster, method: str, optimizer: str) -> int:
    """⌈N · bytes per row / usable memory⌉."""
    return max(
        1,
        math.ceil(job.rows * bytes_per_row(method, optimizer, job.dim) / (cluster.memory * cluster.usable)),
    )


@dataclass(frozen=True)
class Estimate:
    """Of one step of one process: bytes and seconds; and of a billion training rows.

    Args:
        traffic: bytes that the process sends, and as many that it receives.
        memory_seconds: reading and writing rows, their state, and what was looked up.
        network_seconds: exchanging ids, rows and gradients, and waiting for exchanges to begin.
        compute_seconds: the base model.
        overhead_seconds: waiting for the host.
        minutes: for 10⁹ training rows.
        cost: of these.
    """

    traffic: float
    memory_seconds: float
    network_seconds: float
    compute_seconds: float
    overhead_seconds: float
    minutes: float
    cost: float

    @property
    def step_seconds(self) -> float:
        return self.memory_seconds + self.network_seconds + self.compute_seconds + self.overhead_seconds


def estimate(job: Job, cluster: Cluster, processes: int, method: str, optimizer: str) -> Estimate:
    """What a step costs with sharded tables: the parts one after the other, which is the slow side of the truth.

    u = q·F·B / W rows a process asks for; a share (W − 1) / W of them lies elsewhere. Ids go there (8 bytes, once
    for each table), its own rows go to those who ask, gradients go back, 4·(C + T) bytes for each row; the base
    model's gradients are summed over the processes (twice their bytes), thresholds add the sketch of their norm.
    Each table takes five exchanges (three for ids, one for rows, one for gradients), the base model one, the sketch
    one. The owner of a row reads and writes it and its state once, as does who asked for it with what came; what
    was looked up is passed over some times, and ids are sorted. The base model costs 6 operations per parameter
    and training row.

    Args:
        job: what is trained.
        cluster: on what.
        processes: W, one per GPU.
        method: ``dense``, ``pep feature`` or ``pep feature-dimension``.
        optimizer: of the table.
    """
    wide, thresholds = columns(job.dim + 1), threshold_columns(method, job.dim)
    asked = job.distinct * job.fields * job.batch / processes
    elsewhere = (processes - 1) / processes
    tables = 1 + bool(thresholds)
    sent = asked * elsewhere * (8 * tables + 2 * 4 * (wide + thresholds))
    summed = 2 * 4 * (job.parameters + 1024 * thresholds) * elsewhere
    traffic = sent + summed
    bandwidth = cluster.fast_bandwidth if processes <= cluster.gpus_per_machine else cluster.slow_bandwidth
    exchanges = 5 * tables + 1 + bool(thresholds) if processes > 1 else 0
    network = traffic / (bandwidth * cluster.achieved) + exchanges * cluster.latency
    rows = 2 * asked * (bytes_per_row(method, optimizer, job.dim) + 4 * (wide + thresholds))
    lookups = job.fields * job.batch / processes * (4 * (job.dim + 1) * job.passes + job.sorting)
    memory = (rows + lookups) / (cluster.memory_bandwidth * cluster.achieved)
    compute = 6 * job.parameters * job.batch / processes / (cluster.flops * cluster.achieved)
    steps = 1e9 / job.batch
    minutes = steps * (memory + network + compute + cluster.overhead) / 60
    cost = minutes / 60 * processes * cluster.price
    return Estimate(traffic, memory, network, compute, cluster.overhead, minutes, cost)


METHODS = ("dense", "pep feature", "pep feature-dimension")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for kind in (Job, Cluster):
        for field in dataclasses.fields(kind):
            name = f"--{field.name.replace('_', '-')}"
            parser.add_argument(
                name, type=type(field.default), default=field.default, metavar=str(field.default)
            )
    parser.add_argument(
        "--processes", type=int, nargs="+", help="to compare; by default from the fewest that fit"
    )
    return parser.parse_args()


def main() -> None:
    given = vars(arguments())
    for name, value in given.items():
        if name not in ("processes", "latency") and not value > 0:
            raise UserError(f"--{name.replace('_', '-')}: got {value}; it must be above 0")
    job = Job(**{f.name: given[f.name] for f in dataclasses.fields(Job)})
    cluster = Cluster(**{f.name: given[f.name] for f in dataclasses.fields(Cluster)})
    memory_table(job, cluster)
    step_table(job, cluster, given["processes"])


def memory_table(job: Job, cluster: Cluster) -> None:
    print(f"Bytes per row at D = {job.dim}, and the GPUs that {job.rows:.3g} rows need:\n")
    lines = []
    for method in METHODS:
        for optimizer in OPTIMIZER_BYTES:
            size = bytes_per_row(method, optimizer, job.dim)
            gpus = processes_needed(job, cluster, method, optimizer)
            lines.append([method, f"sharded, {optimizer}", str(size), str(gpus)])
    for method in METHODS:
        for name, averaged in (("ddp, adam", False), ("ddp, adam, averaged", True)):
            size = bytes_per_row_ddp(method, job.dim, averaged)
            fits = job.rows * size <= cluster.memory * cluster.usable
            lines.append([method, name, str(size), "each holds all" if fits else "does not fit"])
    print_table(["method", "optimizer", "bytes per row", "GPUs"], lines)


def step_table(job: Job, cluster: Cluster, processes: list[int] | None) -> None:
    print("A step, and a billion training rows (tables sharded row-wise, rowwise_adagrad):\n")
    lines = []
    for method in METHODS:
        least = processes_needed(job, cluster, method, "rowwise_adagrad")
        for size in processes or [least, 2 * least, 4 * least, 8 * least]:
            if size < least:
                lines.append([method, str(size), "does not fit", *["-"] * 7])
                continue
            e = estimate(job, cluster, size, method, "rowwise_adagrad")
            parts = (
                e.memory_seconds,
                e.network_seconds,
                e.compute_seconds,
                e.overhead_seconds,
                e.step_seconds,
            )
            times = [f"{1e3 * seconds:.2f}" for seconds in parts]
            lines.append(
                [method, str(size), f"{e.traffic / 1e6:.1f}", *times, f"{e.minutes:.1f}", f"{e.cost:.2f}"]
            )
    names = ("memory", "network", "compute", "host", "step")
    print_table(["method", "GPUs", "MB sent", *(f"{name} ms" for name in names), "minutes", "cost"], lines)


def print_table(head: list[str], lines: list[list[str]]) -> None:
    """In Markdown, numbers to the right."""
    print("| " + " | ".join(head) + " |")
    print("|---|" + "--:|" * (len(head) - 1))
    for line in lines:
        print("| " + " | ".join(line) + " |")
    print()


if __name__ == "__main__":
    run_script(main)
