"""Measure the preparation of a large file beside a plain pandas loop, its memory, and batches made from its store.

python train/prepare_benchmark.py --rows 10000000 --output docs/benchmarks/prepare.json --folder /somewhere/with/room
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ondevice.errors import UserError, run_script


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--rows", type=int, default=10_000_000, help="rows of the made-up file, of 39 fields each"
    )
    parser.add_argument("--pandas-rows", type=int, default=500_000, help="rows of the pandas loop")
    parser.add_argument("--memory", default="2GB", help="the option data.memory of the preparation")
    parser.add_argument(
        "--folder", default="prepare_benchmark", help="a new folder for the files, deleted afterwards"
    )
    parser.add_argument("--output", help="a JSON file to write as well")
    arguments = parser.parse_args()
    if not 100 <= arguments.pandas_rows <= arguments.rows:
        raise UserError(f"--pandas-rows: got {arguments.pandas_rows}; it must be from 100 to --rows")
    if Path(arguments.folder).exists():
        raise UserError(
            f"--folder: {arguments.folder} is there already; name a new one, which is deleted afterwards"
        )

    from ondevice.data.large.benchmark import measure
    from ondevice.files import atomic_json
    from ondevice.training.batch_rate import batch_rates

    folder = Path(arguments.folder)
    figures = measure(arguments.rows, arguments.pandas_rows, arguments.memory, folder, batch_rates)
    print(json.dumps(figures, indent=2))
    if arguments.output:
        atomic_json(arguments.output, figures)
    return 0


if __name__ == "__main__":
    run_script(main)
