"""A preparation that is killed at any moment goes on, and ends with the same bytes."""

from __future__ import annotations

import csv
import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from benchmarks import made_up
from ondevice import files
from ondevice.data import load_dataset, read
from ondevice.data.preparation import files as large_files
from ondevice.data.preparation import prepare
from tests.data.log import SCHEMA, log

from .rows import criteo_lines, write_lines

ROOT = Path(__file__).resolve().parents[3]


class KilledError(BaseException):
    """Ends a preparation between two writes."""


def store_of(cache: Path) -> dict[str, bytes]:
    (folder,) = (cache / "stores").glob("[!.]*")
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("kind", ["plain", "gzip", "parquet", "all rows"])
@pytest.mark.usefixtures("inline")
def test_cut_off_at_any_write(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each file or folder that is put in its place is in turn the one that is not, or the one that is half-written."""
    options: dict[str, Any] = {"path": write_lines(tmp_path / "train.txt", criteo_lines(250))}
    if kind == "gzip":
        import gzip

        options["path"] = tmp_path / "train.txt.gz"
        options["path"].write_bytes(gzip.compress((tmp_path / "train.txt").read_bytes()))
    if kind == "parquet":
        options = as_parquet(tmp_path / "train.txt")
    if kind == "all rows":
        options = of_all_rows(tmp_path)
    monkeypatch.setattr(large_files, "CHUNK_BYTES", 20_000)
    monkeypatch.setattr(read, "CHUNK_ROWS", 60)
    monkeypatch.setattr(prepare, "SAVE_SECONDS", 0.0)
    name = "table" if "schema" in options else "criteo"
    replace, save, writes = os.replace, np.save, itertools.count()

    def replace_or_die(source: Any, target: Any) -> None:
        if next(writes) == last:
            raise KilledError
        replace(source, target)

    def save_or_die(path: Any, array: Any, **options: Any) -> None:
        save(path, array, **options)
        if next(writes) == last:
            os.truncate(path, path.stat().st_size - 1)
            raise KilledError

    monkeypatch.setattr(files.os, "replace", replace_or_die)
    monkeypatch.setattr(np, "save", save_or_die)
    last = -1
    monkeypatch.setenv("ONDEVICE_CACHE", str(tmp_path / "whole"))
    load_dataset(name, **options)
    expected = store_of(tmp_path / "whole")
    num_writes = next(writes)
    assert num_writes > 30
    # the writes between are alike, and of what was read; what needs all rows is written at the end
    alike = num_writes - (16 if kind == "all rows" else 8)
    for last in [*range(0, alike, 9), *range(alike, num_writes)]:
        cache = tmp_path / f"cut at {last}"
        monkeypatch.setenv("ONDEVICE_CACHE", str(cache))
        writes = itertools.count()
        with pytest.raises(KilledError):
            load_dataset(name, **options)
        assert not list((cache / "stores").glob("[!.]*"))
        load_dataset(name, **options)
        assert store_of(cache) == expected, last
        shutil.rmtree(cache)


def of_all_rows(folder: Path) -> dict[str, Any]:
    """A table that is divided, and whose histories and negatives are made, once all rows are read."""
    who = {"name": "who", "side": "context", "kind": "string"}
    schema = {**SCHEMA, "fields": [who, *SCHEMA["fields"][1:]], "weight": "liked"}
    schema["label"] = {"positive_only": True, "negatives": 2, "context_key": "who"}
    rows = [[f"{who}.{i % 9}", *others] for i, (who, *others) in enumerate(log(200))]
    (folder / "schema.yaml").write_text(yaml.safe_dump(schema))
    with (folder / "log.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["who", "place", "thing", "liked", "when"], *rows])
    return {
        "path": folder / "log.csv",
        "schema": folder / "schema.yaml",
        "streamed": True,
        "split": "leave_last_out",
    }


def as_parquet(path: Path) -> dict[str, Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    cells = [line.split("\t")[:6] for line in path.read_text().splitlines()]
    names = ["label", "a", "b", "c", "d", "e"]
    table = {name: pa.array([row[i] for row in cells]) for i, name in enumerate(names)}
    table["label"] = table["label"].cast(pa.int64())
    folder = path.parent / "parquet"
    folder.mkdir()
    pq.write_table(pa.table(table), folder / "a.parquet", row_group_size=100)
    fields = [{"name": n, "side": "context", "kind": "string"} for n in names[1:]]
    fields *= 3  # enough writes
    fields = [{**f, "name": f"{f['name']}{i}", "column": f["name"]} for i, f in enumerate(fields)]
    schema = path.parent / "schema.yaml"
    schema.write_text(yaml.safe_dump({"name": "words", "fields": fields, "label": {"column": "label"}}))
    return {"path": folder, "schema": schema, "streamed": True}


CODE = """
import sys
from ondevice.data.preparation import files, prepare
files.CHUNK_BYTES = prepare.CHUNK_BYTES = 50_000
prepare.SAVE_SECONDS = 0.0
from ondevice.data import load_dataset
load_dataset("criteo", path=sys.argv[1], workers=2)
"""


def start(path: Path, cache: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "ONDEVICE_CACHE": str(cache)}
    command = [sys.executable, "-c", CODE, str(path)]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)


def kill_when(process: subprocess.Popen[str], condition: Callable[[], bool]) -> None:
    """SIGKILL as soon as the condition holds; it must not have ended before. Its workers end by themselves."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    deadline = time.monotonic() + 300
    workers: list[str] = []
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        workers = children.read_text().split() or workers
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    while any(Path(f"/proc/{worker}").exists() for worker in workers):
        assert time.monotonic() < deadline, "a worker outlived the process that started it"
        time.sleep(0.01)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc for the workers")
def test_kill_9(tmp_path: Path) -> None:
    """Killed while it parses, counts, merges and encodes; nothing half-written is taken for whole."""
    path = tmp_path / "train.txt"
    made_up.write_criteo(path, 12_000)
    whole = start(path, tmp_path / "whole")
    assert whole.wait(timeout=300) == 0, whole.communicate()[1]
    cache = tmp_path / "cache"

    def at_least(pattern: str, number: int) -> Callable[[], bool]:
        return lambda: len(list((cache / "stores").glob(f".unfinished-*/{pattern}"))) >= number

    def some_encoded() -> bool:
        return any(
            len(path.read_text()) > 4 for path in (cache / "stores").glob(".unfinished-*/encoded.json")
        )

    moments = [at_least("chunks/*/[!.]*", 3), at_least("counts/*/[!.]*", 2), at_least("fields/*.json", 5)]
    for moment in [*moments, some_encoded]:
        kill_when(start(path, cache), moment)
        assert not list((cache / "stores").glob("[!.]*"))
    last = start(path, cache)
    assert last.wait(timeout=300) == 0, last.communicate()[1]
    assert store_of(cache) == store_of(tmp_path / "whole")
    assert [p.suffix for p in (cache / "stores").glob(".*")] == [".lock"]
