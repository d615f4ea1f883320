"""Measure what a training step costs, and write the figures as JSON.

On MovieLens-1M: PEP against dense training, and against the naive formulation:

    python benchmarks/step_time.py [--output docs/benchmarks/step_time_movielens.json]

On made-up ids of tables of the sizes given: PEP against dense training, both by rows (docs/large_tables.md):

    python benchmarks/step_time.py --tables 100000 10000000 --output docs/benchmarks/step_time.json
    python benchmarks/step_time.py --device cuda --tables 100000 10000000 --batch-size 65536 --precision bfloat16
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ondevice.errors import UserError, run_script


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", help="a JSON file to write as well")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--tables", type=int, nargs="+", help="rows of made-up tables, the smallest first")
    parser.add_argument("--device", default="cpu", help="cpu or cuda, with --tables")
    parser.add_argument("--fields", type=int, default=39)
    parser.add_argument("--dim", type=int, default=16)
    parser.add_argument("--batch-size", type=int, default=2048)
    parser.add_argument("--hidden", type=int, nargs="+", help="widths of DeepFM's layers; its own by default")
    parser.add_argument("--precision", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--granularity", nargs="+", default=["feature", "feature-dimension"])
    parser.add_argument("--rounds", type=int, default=9, help="turns of each side")
    parser.add_argument("--steps", type=int, default=14, help="steps of a turn")
    parser.add_argument(
        "--bandwidth", type=float, help="GB/s of the device's memory; by default it is measured"
    )
    return parser.parse_args()


def host(threads: int, device: str) -> dict[str, Any]:
    """What the figures were measured on."""
    import torch

    facts = {
        "threads": threads,
        "processor": platform.processor() or platform.machine(),
        "torch": torch.__version__,
    }
    cpu = Path("/proc/cpuinfo")
    if cpu.exists():
        names = [line.split(":")[1].strip() for line in cpu.read_text().splitlines() if "model name" in line]
        facts["processor"] = f"{names[0]} ({len(names)} cores)" if names else facts["processor"]
    if device.startswith("cuda"):
        facts["device"] = torch.cuda.get_device_name(device)
    return facts


def of_tables(arguments: argparse.Namespace) -> dict[str, Any]:
    from benchmarks.table_step_time import Workload, compare_tables
    from ondevice.training.fit import select_device

    if arguments.tables != sorted(set(arguments.tables)) or len(arguments.tables) < 2:
        raise UserError(f"--tables: got {arguments.tables}; give two or more numbers of rows, ascending")
    workload = Workload(
        num_fields=arguments.fields,
        embedding_dim=arguments.dim,
        batch_size=arguments.batch_size,
        rounds=arguments.rounds,
        steps=arguments.steps,
        model_options={"hidden": tuple(arguments.hidden)} if arguments.hidden else {},
        precision=arguments.precision,
    )
    return compare_tables(
        arguments.tables,
        workload,
        granularities=arguments.granularity,
        device=select_device(arguments.device),
        bandwidth=arguments.bandwidth and 1e9 * arguments.bandwidth,
    )


def of_movielens() -> dict[str, Any]:
    from benchmarks.pep_step import compare_steps, compare_with_naive
    from ondevice.data import load_dataset

    full = load_dataset("movielens_1m", fields="full")
    return {
        "steps": [
            compare_steps(full, model=model, batch_size=size, regime=regime)
            for model in ("deepfm", "fm")
            for size in (1024, 2048)
            for regime in ("budget", "decay")
        ],
        "fm_epoch": compare_with_naive(load_dataset("movielens_1m", fields="paper")),
    }


def main() -> int:
    arguments = parse()
    import torch

    from ondevice.files import atomic_json

    torch.set_num_threads(arguments.threads)
    measured = of_tables(arguments) if arguments.tables else of_movielens()
    figures = {**host(arguments.threads, arguments.device), **measured}
    print(json.dumps(figures, indent=2))
    if arguments.output:
        atomic_json(arguments.output, figures)
    return 0


if __name__ == "__main__":
    run_script(main)
