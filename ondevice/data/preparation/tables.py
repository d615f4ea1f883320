"""Chunks of tables that people bring: one process reads them with DuckDB, the workers turn batches into chunks."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ondevice.data.join import Joined
from ondevice.data.parts import BadRows, Part, line_of
from ondevice.data.preparation.chunk import ChunkId, write_chunk
from ondevice.data.preparation.files import Budget, Finished, chunk_meta
from ondevice.data.preparation.plan import Plan
from ondevice.data.read import Engine
from ondevice.data.rows import rows_of
from ondevice.errors import DataError
from ondevice.files import atomic_json

_NUMBERS = "\x00numbers"


def part_of(plan: Plan, file: int) -> Part:
    """A file of the table."""
    return Part(plan.files[file], plan.source["partitions"][file])


def table_tasks(
    plan: Plan, budget: Budget, finished: Finished, bad: BadRows, memory: int | None
) -> Iterator[dict[str, Any]]:
    """The tasks that turn batches into chunks; chunks that are there already go into ``finished`` instead.

    Args:
        plan: the preparation.
        budget: how many rows may be read.
        finished: what is remembered of chunks that are there.
        bad: counts lines that the reader itself cannot use.
        memory: bytes that the reader may hold; None: as many as it likes.

    Raises: UserError: for a file that cannot be read, and when none holds a row.
    """
    spec = plan.spec
    columns = spec.needed(plan.source["timed"])
    folder = plan.folder / "unpacked"
    folder.mkdir(exist_ok=True)
    seen = 0
    with Engine(memory, lists=spec.list_columns) as engine:
        import pyarrow as pa  # the engine tells where it is missing

        parts = [part_of(plan, file) for file in range(len(plan.files))]
        joined = Joined(engine, spec, parts, bad, columns)
        for file in range(len(plan.files)):
            if budget.left == 0:
                break
            batches = joined.batches(parts[file])
            for number, (numbers, batch) in zip(itertools.count(), batches):
                granted = budget.take(len(numbers))
                seen += granted
                which = ChunkId(file, number)
                meta = chunk_meta(plan, which)
                if meta is not None:
                    finished[which] = meta
                elif granted:
                    renamed = batch.rename_columns([str(place) for place in range(batch.num_columns)])
                    renamed = renamed.append_column(_NUMBERS, pa.array(numbers)).slice(0, granted)
                    path = folder / f"{file}-{number}"
                    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, renamed.schema) as out:
                        out.write_batch(renamed)
                    yield {"step": "table", "file": file, "number": number, "path": str(path)}
                if budget.left == 0:
                    break
        joined.tell()
        rows, titles = joined.items() if spec.computed.items is None else spec.computed.items()
        atomic_json(plan.folder / "items.json", [rows, list(titles.items())])
    if not seen:
        raise DataError(f"{plan.files[0]}: holds no rows; the file is empty or cut short")


def parse_batch(plan: Plan, which: ChunkId, path: Path) -> dict[str, Any]:
    """Write the chunk of a batch, or return {"line", "trouble"} for a row that cannot be used."""
    import pyarrow as pa

    spec, part = plan.spec, part_of(plan, which.file)
    with pa.OSFile(str(path), "rb") as source:
        batch = pa.ipc.open_file(source).get_batch(0)
    path.unlink()
    numbers = batch.column(_NUMBERS).to_numpy()
    timed = plan.source["timed"]
    columns = spec.needed(timed)
    batch = batch.drop_columns([_NUMBERS]).rename_columns(columns)
    rows, wrong = rows_of(spec, numbers, batch, where=str(part.path), timed=timed)
    first_bad = ""
    if wrong:
        first = min(wrong)
        line = line_of(part, columns, spec.format, first)
        if plan.bad_rows == "error":
            return {"line": line - 1, "trouble": wrong[first]}
        first_bad = f"{line}: {wrong[first]}"
    return write_chunk(
        *(plan.chunk_path(which), plan.schema, rows.columns, rows.labels, np.asarray(rows.numbers)),
        *(rows.order, rows.weights, rows.titles),
        skipped=len(wrong),
        first_bad=first_bad,
    )
