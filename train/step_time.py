"""Measure what a training step costs on MovieLens-1M, one thread, and write the figures as JSON.

python train/step_time.py [--output docs/benchmarks/step_time_movielens.json] [--threads 1]
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ondevice.errors import run_script


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", help="a JSON file to write as well")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    arguments = parser.parse_args()

    import torch

    from ondevice.data import load_dataset
    from ondevice.files import atomic_json
    from ondevice.training.step_time import compare_steps, compare_with_naive

    torch.set_num_threads(arguments.threads)
    full = load_dataset("movielens_1m", fields="full")
    figures = {
        "threads": arguments.threads,
        "processor": platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "steps": [
            compare_steps(full, model=model, batch_size=size, regime=regime)
            for model in ("deepfm", "fm")
            for size in (1024, 2048)
            for regime in ("budget", "decay")
        ],
        "fm_epoch": compare_with_naive(load_dataset("movielens_1m", fields="paper")),
    }
    print(json.dumps(figures, indent=2))
    if arguments.output:
        atomic_json(arguments.output, figures)
    return 0


if __name__ == "__main__":
    run_script(main)
