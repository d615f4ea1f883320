"""Files of any size into an encoded store: two passes, bounded memory, all cores, and resumable."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ondevice.data import splits, store
from ondevice.data.dataset import Dataset
from ondevice.data.parts import WAY_OUT, BadRows, Part
from ondevice.data.preparation.arrays import ArrayFile, write_arrays
from ondevice.data.preparation.assemble import assemble
from ondevice.data.preparation.chunk import ChunkId
from ondevice.data.preparation.division import division_of
from ondevice.data.preparation.encode import ALL_IDS, allocate
from ondevice.data.preparation.files import CHUNK_BYTES, Budget, Finished, text_tasks
from ondevice.data.preparation.memory import parse_bytes, shares
from ondevice.data.preparation.plan import Plan, starts_of
from ondevice.data.preparation.pool import BadLineError, Pool, Progress
from ondevice.data.preparation.tables import table_tasks
from ondevice.data.preparation.whole import Whole
from ondevice.data.preparation.worker import Inline
from ondevice.data.schema import Schema
from ondevice.data.sources import cache_directory, say
from ondevice.data.spec import TableSpec
from ondevice.errors import DataError, UserError
from ondevice.files import atomic_directory, atomic_json, sync, unsynced

LAYOUT_VERSION = 3  # of what the chunks of a file become in a store
STEPS_VERSION = 1  # of the intermediate files
SAVE_SECONDS = 10.0


def prepare(
    schema: Schema,
    read: Callable[[], tuple[TableSpec, Sequence[Part]]],
    *,
    inputs: Sequence[Any],
    split: str,
    seed: int,
    fractions: tuple[float, float, float],
    max_rows: int | None,
    timed: bool,
    given: Sequence[int] | None = None,
    bad_rows: str = "error",
    way_out: str = WAY_OUT,
) -> Dataset:
    """The data set of these inputs and options: opened from the cache, or prepared there by this process alone.

    Args:
        schema: fields and label rule.
        read: gives the table and its files; called only when there is no whole store.
        inputs: JSON-able values that change when the source changes.
        split: see `splits.split_rows`.
        seed: of the split, the subsample and sampled negatives.
        fractions: of train, valid and test.
        max_rows: rows to draw at most.
        timed: whether rows have a time.
        given: the split of each file, where the source says it.
        bad_rows: ``error`` or ``skip``.
        way_out: ends the message about a row that cannot be used.

    Raises: UserError: when the source cannot be read or the cache cannot be written.
    """
    options = {"split": split, "seed": seed, "fractions": fractions, "max_rows": max_rows}
    if schema.histories or split == "leave_last_out":
        options["equal_times"] = "in the order of the rows"  # as papers of the next item have it
    identity = {"format_version": store.FORMAT_VERSION, "schema": schema.to_dict(), "options": options}
    fingerprint = _digest({**identity, "inputs": inputs})

    def make(target: Path) -> None:
        say(f"{schema.name}: preparing the data (once; kept in {target})")
        spec, parts = read()
        source = {"kind": "table", "timed": timed, "given": given}
        source["partitions"] = [dict(part.partitions) for part in parts]
        files = [part.path for part in parts]
        with atomic_directory(target) as building, unsynced():
            plan = Plan(
                *(building / ".steps", schema, source, files, split, seed, fractions, max_rows, bad_rows),
                *(way_out, False, spec),
            )
            _prepare(plan, fingerprint, Inline(plan), 1 << 62, None, None)
            for file in plan.store.iterdir():
                os.replace(file, building / file.name)
            shutil.rmtree(plan.folder)

    return _opened_or_made(schema.name, fingerprint, make)


def prepare_large(
    schema: Schema,
    source: dict[str, Any],
    files: Sequence[Path],
    *,
    split: str,
    seed: int,
    fractions: Sequence[float],
    max_rows: int | None,
    bad_rows: str,
    memory: int | str,
    workers: int | None,
    places: dict[str, Any] | None = None,
) -> Dataset:
    """The same by all cores within a bound of memory, the rows in the order of the files.

    A preparation that was broken off goes on where it was, and ends with the same bytes as one that was not.

    Args:
        schema: fields and label rule.
        source: how the files are written; see `Plan`.
        files: in the order of their rows.
        split: ``random`` (by a hash of the row's number) or ``temporal`` (by time, else by order).
        seed: of the random split.
        fractions: of train, valid and test; a random split has them but for chance.
        max_rows: read only the first so many lines.
        bad_rows: ``error`` or ``skip``.
        memory: bound of the memory of all processes together.
        workers: processes; None: as many as there are cores and as ``memory`` allows.
        places: where the further tables of a table are.

    Raises: UserError: for a wrong option, a line that cannot be used, and a disk that is full.
    """
    kind = "random" if split == splits.GIVEN else split
    shares_of_rows = splits.check_options(kind, seed, fractions, max_rows)
    BadRows(bad_rows)
    reader = parse_bytes(memory) // 4 if source["kind"] == "table" else 0
    num_workers, limit = shares(memory, workers, reader)
    if not reader:
        num_workers = min(num_workers, max(1, sum(file.stat().st_size for file in files) // CHUNK_BYTES))
    options = {"split": split, "seed": seed, "fractions": shares_of_rows, "max_rows": max_rows}
    identity = [
        store.FORMAT_VERSION,
        LAYOUT_VERSION,
        schema.to_dict(),
        options,
        store.file_digests(files),
        source,
    ]
    fingerprint = _digest([*identity, bad_rows])
    # Chunks without bad rows are the same under either policy, so what is unfinished serves both.
    building = _stores() / f".unfinished-{schema.name}-{_digest([*identity, STEPS_VERSION])[:16]}"
    source = source if places is None else {**source, "places": places}
    plan = Plan(building, schema, source, list(files), split, seed, shares_of_rows, max_rows, bad_rows)

    def make(target: Path) -> None:
        with _locked(building, schema.name):
            if (
                store.open_store(target, fingerprint) is not None
            ):  # another process has made it in the meantime
                return
            say(f"{schema.name}: preparing the data (once; kept in {target})")
            _tell_of_others(building, schema.name)
            plan.folder.mkdir(parents=True, exist_ok=True)
            plan.save()
            _prepare(plan, fingerprint, Pool(plan.folder, num_workers), limit, reader, parse_bytes(memory))
            shutil.rmtree(target, ignore_errors=True)
            os.replace(plan.store, target)
            shutil.rmtree(building, ignore_errors=True)

    return _opened_or_made(schema.name, fingerprint, make, "; what is finished is kept")


def _stores() -> Path:
    return cache_directory() / "stores"


def _opened_or_made(name: str, fingerprint: str, make: Callable[[Path], None], kept: str = "") -> Dataset:
    """The data set of a fingerprint, which ``make`` prepares in the folder that it is given where there is none."""
    target = _stores() / f"{name}-{fingerprint[:16]}"
    ready = store.open_store(target, fingerprint)
    if ready is None:
        failed: OSError | None = None
        try:
            make(target)
        except OSError as error:
            failed = error
        ready = store.open_store(target, fingerprint)  # after an error, what another process has put there
        if ready is None:
            way_out = f"free some room, or set ONDEVICE_CACHE to a folder that can be written{kept}"
            raise UserError(f"cannot write {target}: {failed}; {way_out}") from failed
    return ready


def _digest(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


@contextlib.contextmanager
def _locked(building: Path, name: str) -> Iterator[None]:
    """One process prepares, others wait for it; the lock ends with the process."""
    import fcntl  # not on Windows, where the rest of the library is still to be had

    building.mkdir(parents=True, exist_ok=True)
    with open(building.with_name(f"{building.name}.lock"), "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"{name}: waiting for another process that prepares the same data")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _tell_of_others(building: Path, name: str) -> None:
    for other in sorted(building.parent.glob(f".unfinished-{name}-*/plan.json")):
        if other.parent != building:
            say(
                f"{name}: {other.parent} is unfinished, of other files or options; delete it if you do not need it"
            )


def _prepare(
    plan: Plan, fingerprint: str, workers: Pool | Inline, limit: int, reader: int | None, memory: int | None
) -> None:
    """Every step that is not yet done, into ``plan.store``."""
    plan.folder.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(plan.folder / "unpacked", ignore_errors=True)
    for half_written in plan.folder.glob("c*/*/.*"):
        half_written.unlink()
    with workers as pool:
        _parse(plan, pool, reader)
        if plan.is_table and not plan.parsed.num_rows:
            raise DataError(f"data set '{plan.schema.name}': the label rule keeps no row")
        whole = Whole(plan, memory) if plan.is_ordered else None
        if whole is not None:
            whole.divide()
        rows = _count(plan, pool)
        _merge(plan, pool, limit)
        _encode(plan, pool, rows)
    assemble(plan, fingerprint, rows, None if whole is None else whole.write_splits(_offsets(plan)), memory)


def _parse(plan: Plan, pool: Pool | Inline, reader: int | None) -> None:
    """Chunk files of all rows, and ``parsed``, which lists them."""
    path = plan.folder / "parsed"
    if path.exists() and not (plan.bad_rows == "error" and plan.parsed.skipped):
        return
    finished: Finished = {}
    budget = Budget(plan.max_rows if plan.streamed else None)
    lines = BadRows(plan.bad_rows, plan.way_out)
    if plan.source["kind"] == "text":
        sources: list[Any] = [text_tasks(plan, file, budget, finished) for file in range(len(plan.files))]
    else:
        sources = [table_tasks(plan, budget, finished, lines, reader)]
    progress = Progress(f"{plan.schema.name}: rows read")

    def done(task: dict[str, Any], answer: dict[str, Any]) -> None:
        if "trouble" in answer:
            where = f"{plan.files[task['file']]}:{answer['line'] + 1}"
            raise BadLineError(
                f"{where}: {answer['trouble']}; {plan.way_out}", (task["file"], answer["line"])
            )
        finished[ChunkId(task["file"], task["number"])] = answer
        progress.add(answer["rows"])

    # A limit is for the first rows, so files are then read one after the other.
    pool.run(sources if plan.max_rows is None else [itertools.chain.from_iterable(sources)], done)
    ids = sorted(finished, key=lambda which: (which.file, which.number))
    metas = [finished[which] for which in ids]
    columns = {
        "files": [which.file for which in ids],
        "numbers": [which.number for which in ids],
        "rows": [meta["rows"] for meta in metas],
        "num_keys": [meta["num_keys"] for meta in metas],
    }
    skipped = sum(meta["skipped"] for meta in metas) + lines.skipped
    bad = (
        f"{plan.files[i.file]}:{meta['first_bad']}"
        for i, meta in zip(ids, metas, strict=True)
        if meta["skipped"]
    )
    first_bad = next(bad, lines.first)
    cut = np.sum([meta["cut"] for meta in metas], axis=0, dtype=np.int64).tolist()
    arrays = {name: np.array(column, dtype=np.int64).ravel() for name, column in columns.items()}
    write_arrays(path, arrays, skipped=skipped, cut=cut)
    if skipped:
        say(f"{plan.schema.name}: {skipped} rows left out; the first: {first_bad}")


def _count(plan: Plan, pool: Pool | Inline) -> np.ndarray:
    """The split of every row, and how often training rows have each key. Returns rows by chunk and split (C, 3)."""
    parsed = plan.parsed
    rows = np.full((len(parsed.ids), len(splits.SPLITS)), -1, dtype=np.int64)
    place = {which: c for c, which in enumerate(parsed.ids)}
    starts = starts_of(parsed.rows)[:-1].tolist()
    given = [[start] for start in starts] if plan.is_ordered else division_of(plan)

    def tasks() -> Iterator[dict[str, Any]]:
        for which, which_ids in zip(parsed.ids, given, strict=True):
            path = plan.counts_path(which)
            if path.exists():
                rows[place[which]] = ArrayFile(path).meta["rows"]
            else:
                yield {"step": "count", "file": which.file, "number": which.number, "given": which_ids}

    def done(task: dict[str, Any], answer: dict[str, Any]) -> None:
        rows[place[ChunkId(task["file"], task["number"])]] = answer["rows"]

    pool.run([tasks()], done)
    for name, total in zip(splits.SPLITS, rows.sum(axis=0).tolist(), strict=True):
        if not total:
            raise DataError(
                f"data set '{plan.schema.name}': {parsed.num_rows} rows are too few for the fractions "
                f"{list(plan.fractions)}: {name} is empty"
            )
    return rows


def _merge(plan: Plan, pool: Pool | Inline, limit: int) -> None:
    """The vocabulary of every field; those with the most keys first, so that no process is left alone at the end."""
    num_keys = plan.parsed.num_keys[:, : len(plan.schema.fields)]
    order = np.argsort(-num_keys.sum(axis=0), kind="stable").tolist()
    tasks = [
        {"step": "merge", "field": f, "limit": limit}
        for f in order
        if not plan.field_path(f, "json").exists()
    ]
    progress = Progress(f"{plan.schema.name}: vocabularies made, of {len(order)}")
    pool.run([tasks], lambda task, answer: progress.add(1))


def _encode(plan: Plan, pool: Pool | Inline, rows: np.ndarray) -> None:
    """The ids and labels of all rows, each chunk at its place."""
    parsed = plan.parsed
    marker = plan.folder / "encoded.json"
    if not marker.exists() or not plan.store.exists():
        shutil.rmtree(plan.store, ignore_errors=True)
        plan.store.mkdir()
        if plan.is_ordered:
            shape = (parsed.num_rows, plan.schema.slots.total)
            np.lib.format.open_memmap(plan.folder / ALL_IDS, mode="w+", dtype=np.int32, shape=shape).flush()
        else:
            for name, total in zip(splits.SPLITS, rows.sum(axis=0).tolist(), strict=True):
                allocate(plan.store, name, total, plan.schema.slots.total, plan.weighted)
        atomic_json(marker, [])
    written = set(json.loads(marker.read_text()))
    offsets = _offsets(plan)
    places = np.concatenate([np.zeros_like(parsed.num_keys[:1]), np.cumsum(parsed.num_keys, axis=0)])
    first = starts_of(parsed.rows)
    before = np.concatenate([np.zeros_like(rows[:1]), np.cumsum(rows, axis=0)])
    progress = Progress(f"{plan.schema.name}: rows encoded", sum(parsed.rows[c] for c in written))
    saved = time.monotonic()

    def tasks() -> Iterator[dict[str, Any]]:
        for c, which in enumerate(parsed.ids):
            if c not in written:
                task = {"step": "encode", "file": which.file, "number": which.number, "chunk": c}
                task |= {"places": places[c].tolist(), "rows": before[c].tolist()}
                yield {**task, "offsets": offsets.tolist(), "first": int(first[c])}

    def done(task: dict[str, Any], answer: dict[str, Any]) -> None:
        nonlocal saved
        written.add(task["chunk"])
        progress.add(int(parsed.rows[task["chunk"]]))
        if time.monotonic() - saved > SAVE_SECONDS:
            _save_encoded(plan, marker, written)
            saved = time.monotonic()

    pool.run([tasks()], done)
    _save_encoded(plan, marker, written)


def _offsets(plan: Plan) -> np.ndarray:
    """The first id of each field."""
    known = [
        json.loads(plan.field_path(f, "json").read_text())["known"] for f in range(len(plan.schema.fields))
    ]
    return starts_of(1 + np.array(known))[:-1]


def _save_encoded(plan: Plan, marker: Path, written: set[int]) -> None:
    """Remember chunks as written, once they are on the disk."""
    for path in plan.store.glob("*.npy"):
        handle = os.open(path, os.O_RDONLY)
        try:
            sync(handle)
        finally:
            os.close(handle)
    atomic_json(marker, sorted(written))
