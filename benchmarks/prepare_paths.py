"""Criteo's own text path beside the engine's, and beside an earlier checkout's: in turn, on one made-up file.

python benchmarks/prepare_paths.py --rows 2000000 --turns 3 --output docs/benchmarks/prepare_paths.json
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.made_up import write_criteo
from ondevice.data.sets.criteo import CATEGORIES, INTEGERS, NO_CATEGORY, NO_INTEGER
from ondevice.errors import UserError, run_script

START = "import sys; from ondevice.data import load_dataset; load_dataset"
TEXT = f"{START}('criteo', path=sys.argv[1], memory=sys.argv[2])"
ENGINE = f"{START}('table', path=sys.argv[1], memory=sys.argv[2], schema=sys.argv[3], streamed=True)"


def measure(num_rows: int, turns: int, memory: str, folder: Path, earlier: Path | None) -> dict[str, Any]:
    """Wall-clock and processor seconds of each path in each turn; every other turn is in the reverse order.

    Args:
        num_rows: rows of the file, of 39 fields each.
        turns: preparations of each path.
        memory: the option of the preparations.
        folder: for the files, which are deleted afterwards.
        earlier: a checkout whose text path is measured as well.
    """
    folder.mkdir(parents=True)
    try:
        path, schema = folder / "train.txt", folder / "criteo.yaml"
        write_criteo(path, num_rows)
        schema.write_text(json.dumps(as_table()))
        paths = {"text": (TEXT, ROOT), "engine": (ENGINE, ROOT)}
        if earlier is not None:
            paths["earlier"] = (TEXT, earlier.resolve())
        wall: dict[str, list[float]] = {name: [] for name in paths}
        processor: dict[str, list[float]] = {name: [] for name in paths}
        for turn in range(turns):
            for name in list(paths)[:: 1 if turn % 2 == 0 else -1]:
                code, root = paths[name]
                command = [sys.executable, "-c", code, str(path), memory, str(schema)]
                cache = folder / "cache"
                environment = {**os.environ, "PYTHONPATH": str(root), "ONDEVICE_CACHE": str(cache)}
                before, started = _processor_seconds(), time.perf_counter()
                subprocess.run(command, cwd=root, env=environment, check=True)
                wall[name].append(round(time.perf_counter() - started, 1))
                processor[name].append(round(_processor_seconds() - before, 1))
                shutil.rmtree(cache)
        over_text = {
            name: [round(other / text, 2) for other, text in zip(wall[name], wall["text"], strict=True)]
            for name in paths
            if name != "text"
        }
        return {
            "rows": num_rows,
            "fields": len(INTEGERS) + len(CATEGORIES),
            "load": [round(each, 1) for each in os.getloadavg()],
            "seconds": wall,
            "processor_seconds": processor,
            "over_text": over_text,
            "over_text_median": {name: statistics.median(each) for name, each in over_text.items()},
        }
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def as_table() -> dict[str, Any]:
    """What a table's YAML file says of Criteo's columns, so that the engine makes the same store of them."""
    shared = {"side": "context", "kind": "integer", "min_count": 10}
    integers = [{"name": n, **shared, "transform": "log_integer", "missing": NO_INTEGER} for n in INTEGERS]
    categories = [{"name": n, **shared, "transform": "hex", "missing": NO_CATEGORY} for n in CATEGORIES]
    form = {"delimiter": "\t", "quote": "", "columns": ["label", *INTEGERS, *CATEGORIES]}
    return {"name": "criteo", "fields": integers + categories, "label": {"column": "label"}, "format": form}


def _processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of the made-up file")
    parser.add_argument("--turns", type=int, default=3, help="preparations of each path")
    parser.add_argument("--memory", default="2GB", help="the option data.memory of the preparations")
    parser.add_argument("--earlier", type=Path, help="another checkout, whose text path is measured as well")
    parser.add_argument("--folder", default="prepare_paths", help="a new folder, deleted afterwards")
    parser.add_argument("--output", help="a JSON file to write as well")
    arguments = parser.parse_args()
    folder = Path(arguments.folder)
    if folder.exists():
        raise UserError(f"--folder: {folder} is there already; name a new one, which is deleted afterwards")

    from ondevice.files import atomic_json

    figures = measure(arguments.rows, arguments.turns, arguments.memory, folder, arguments.earlier)
    print(json.dumps(figures, indent=2))
    if arguments.output:
        atomic_json(arguments.output, figures)
    return 0


if __name__ == "__main__":
    run_script(main)
