"""Size a cluster on paper: bytes per row, processes, traffic, time and cost of training tables of some size.

python train/cluster.py --rows 1e9 --dim 16 --fields 39 [--batch 65536] [--processes 8 16 32]

Nothing is measured: docs/cluster.md has the formulas and says what is assumed.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ondevice.distributed.cluster import (
    OPTIMIZER_BYTES,
    Cluster,
    Job,
    bytes_per_row,
    bytes_per_row_ddp,
    estimate,
    processes_needed,
)
from ondevice.errors import UserError, run_script

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
    parts = ["memory", "network", "compute", "host", "step"]
    print_table(["method", "GPUs", "MB sent", *(f"{part} ms" for part in parts), "minutes", "cost"], lines)


def print_table(head: list[str], lines: list[list[str]]) -> None:
    """In Markdown, numbers to the right."""
    print("| " + " | ".join(head) + " |")
    print("|---|" + "--:|" * (len(head) - 1))
    for line in lines:
        print("| " + " | ".join(line) + " |")
    print()


if __name__ == "__main__":
    run_script(main)
