"""Measure the preparation of a large file beside a plain pandas loop, its memory, and batches made from its store.

python benchmarks/prepare.py --rows 10000000 --output docs/benchmarks/prepare.json --folder /somewhere/with/room
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.made_up import write_criteo
from ondevice.data.dataset import Dataset
from ondevice.data.preparation.memory import available_cores
from ondevice.data.sets.criteo import CATEGORIES, INTEGERS, NO_INTEGER
from ondevice.data.splits import SPLITS
from ondevice.data.store import RECORD, open_store
from ondevice.errors import UserError, run_script

PANDAS_CHUNK = 100_000
POLL_SECONDS = 0.05
PREPARE = """
import sys
from ondevice.data import load_dataset
load_dataset("criteo", path=sys.argv[1], memory=sys.argv[2])
"""


def measure(
    num_rows: int, pandas_rows: int, memory: str, folder: Path, of_training: Callable[[Any], Any]
) -> dict[str, Any]:
    """Write a made-up file in Criteo's format, prepare it, and run the pandas loop on its first rows.

    Args:
        num_rows: rows of the file.
        pandas_rows: rows of the loop, at most all.
        memory: the option of the preparation.
        folder: for the files, which are deleted afterwards.
        of_training: measures something of the training split, once it is prepared.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path, first = folder / "train.txt", folder / "first.txt"
    try:
        write_criteo(path, num_rows)
        _copy_lines(path, first, pandas_rows)
        prepared, store = prepare(path, memory, folder / "cache")
        started = time.perf_counter()
        pandas_loop(first, pandas_rows, folder / "pandas")
        seconds = time.perf_counter() - started
        rates = [num_rows / prepared["seconds"], pandas_rows / seconds]
        return {
            "rows": num_rows,
            "fields": len(INTEGERS) + len(CATEGORIES),
            "file_bytes": path.stat().st_size,
            "cores": available_cores(),
            "processor": platform.processor() or platform.machine(),
            "memory_option": memory,
            "prepare": {**prepared, "rows_per_second": round(rates[0])},
            "pandas_loop": {
                "rows": pandas_rows,
                "seconds": round(seconds, 1),
                "rows_per_second": round(rates[1]),
            },
            "prepare_over_pandas": round(rates[0] / rates[1], 2),
            "batches_rows_per_second": of_training(store.train),
        }
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def prepare(path: Path, memory: str, cache: Path) -> tuple[dict[str, Any], Dataset]:
    """Seconds and peak memory of a preparation in a process of its own, with all that it starts; and its result."""
    root = str(Path(__file__).resolve().parents[1])
    environment = {**os.environ, "ONDEVICE_CACHE": str(cache), "PYTHONPATH": root}
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-c", PREPARE, str(path), memory], env=environment)
    peaks: dict[int, int] = {}
    while process.poll() is None:
        for pid in tree(process.pid):
            peaks[pid] = peak_bytes(pid) or peaks.get(pid, 0)
        time.sleep(POLL_SECONDS)
    seconds = time.perf_counter() - started
    if process.returncode:
        raise UserError(f"the preparation ended with {process.returncode}; its message is above")
    (folder,) = (cache / "stores").glob("criteo-*")
    store = open_store(folder, json.loads((folder / RECORD).read_text())["fingerprint"])
    assert store is not None
    figures = {
        "seconds": round(seconds, 1),
        "peak_bytes": sum(peaks.values()),
        "peak_bytes_by_process": sorted(peaks.values(), reverse=True),
        "num_embeddings": store.vocabulary.num_embeddings,
        "rows_by_split": [len(store.split(name)) for name in SPLITS],
        "store_bytes": sum(file.stat().st_size for file in folder.iterdir()),
    }
    return figures, store


def tree(pid: int) -> list[int]:
    """A process and all below it, on Linux."""
    processes = [pid]
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            children = Path(f"/proc/{pid}/task/{thread}/children").read_text().split()
            processes += [below for child in children for below in tree(int(child))]
    except (FileNotFoundError, ProcessLookupError):
        pass
    return processes


def peak_bytes(pid: int) -> int:
    """The most memory that a process has had (VmHWM); 0 when it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), 0)


def pandas_loop(path: Path, num_rows: int, folder: Path, min_count: int = 10) -> None:
    """The same preparation with pandas, as it is often written: chunks counted, then chunks mapped.

    The first 80 % of the rows train. Writes ``ids.npy`` (n, 39) and ``labels.npy``.
    """
    import pandas as pd

    names = ["label", *INTEGERS, *CATEGORIES]

    def chunks() -> Any:
        for chunk in pd.read_csv(
            path,
            sep="\t",
            header=None,
            names=names,
            chunksize=PANDAS_CHUNK,
            dtype=dict.fromkeys(CATEGORIES, str),
        ):
            for name in INTEGERS:
                values = chunk[name]
                logarithms = np.floor(np.log(values.clip(lower=1)) ** 2)
                chunk[name] = (
                    values.where(values <= 2, logarithms).where(values.notna(), NO_INTEGER).astype(int)
                )
            yield chunk.fillna(dict.fromkeys(CATEGORIES, ""))

    counts: dict[str, Counter[Any]] = {name: Counter() for name in names[1:]}
    for chunk in chunks():
        train = chunk[chunk.index < round(0.8 * num_rows)]
        for name, counter in counts.items():
            counter.update(train[name].value_counts().to_dict())
    maps, offset = {}, 0
    for name, counter in counts.items():
        known = sorted(key for key, count in counter.items() if count >= min_count)
        maps[name] = {key: place for place, key in enumerate(known, start=offset + 1)}, offset
        offset += 1 + len(known)
    folder.mkdir(parents=True, exist_ok=True)
    ids = np.lib.format.open_memmap(folder / "ids.npy", "w+", np.int32, (num_rows, len(maps)))
    labels = np.lib.format.open_memmap(folder / "labels.npy", "w+", np.uint8, (num_rows,))
    for chunk in chunks():
        rows = slice(chunk.index[0], chunk.index[-1] + 1)
        labels[rows] = chunk["label"]
        for f, (name, (mapping, unknown)) in enumerate(maps.items()):
            ids[rows, f] = chunk[name].map(mapping).fillna(unknown)
    ids.flush()
    labels.flush()


def _copy_lines(source: Path, target: Path, num_lines: int) -> None:
    with open(source, "rb") as lines, open(target, "wb") as out:
        for _, line in zip(range(num_lines), lines, strict=False):
            out.write(line)


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

    from benchmarks.batch_rate import batch_rates
    from ondevice.files import atomic_json

    folder = Path(arguments.folder)
    figures = measure(arguments.rows, arguments.pandas_rows, arguments.memory, folder, batch_rates)
    print(json.dumps(figures, indent=2))
    if arguments.output:
        atomic_json(arguments.output, figures)
    return 0


if __name__ == "__main__":
    run_script(main)
