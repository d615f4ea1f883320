"""What else a compact model's values, layers and keys could be stored as: bytes, and validation AUC where it changes.

python export/storage.py runs/NAME [--label 36000] [--json FILE]

Nothing is trained or written into the run. Scales and columns are compared where values are integers, not codes.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ondevice.errors import UserError, run_script
from ondevice.files import atomic_json


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", help="a run directory that train/run.py wrote")
    parser.add_argument("--label", help="one compact model of the run (default: the largest)")
    parser.add_argument("--json", help="where to write the rows")
    arguments = parser.parse_args()

    from ondevice.training.run import Run

    run = Run(arguments.run)
    labels = run.budgets()
    if not labels:
        raise UserError(f"{run.path}: no compact model yet; continue the training with --resume")
    recommender = run.compact(arguments.label or labels[0])

    from ondevice.bench.storage import markdown, storage

    dim = run.config.embedding.dim
    found = storage(
        recommender, run.dataset(), dim, lambda what: print(f"measuring {what} …", file=sys.stderr)
    )
    print(markdown(found))
    if arguments.json:
        atomic_json(arguments.json, found)
    return 0


if __name__ == "__main__":
    run_script(main)
