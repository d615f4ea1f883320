"""Chunks of Parquet files whose columns a table's YAML file explains."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ondevice.data.arrow import PARQUET_SUFFIXES, parse_time, plain_values
from ondevice.data.large.chunk import ChunkId, write_chunk
from ondevice.data.large.files import Budget, Finished, chunk_meta
from ondevice.data.large.plan import Plan
from ondevice.data.schema import Schema
from ondevice.errors import ConfigError, DataError

CHUNK_ROWS = 1 << 16
_GROUP_CHUNKS = 1 << 20  # numbers that the chunks of each row group may have


def check_streamable(schema: Schema, files: Sequence[Path]) -> None:
    """Raise UserError for what can only be done with a whole table in memory."""
    text = next((file for file in files if file.suffix.lower() not in PARQUET_SUFFIXES), None)
    if text is not None:
        raise DataError(
            f"data.streamed: {text} is no Parquet file; write the table as Parquet, or leave streamed out"
        )
    if schema.label.positive_only:
        raise DataError(
            "data.streamed: sampled negatives need the whole table; leave streamed out, or add negatives"
        )
    for field in schema.fields:
        if field.origin is None:
            raise ConfigError(
                f"data.streamed: field '{field.name}': origin: null is learnt in memory; write the number"
            )


def parquet_tasks(plan: Plan, file: int, budget: Budget, finished: Finished) -> Iterator[dict[str, Any]]:
    """The tasks that parse a file, one per row group; groups that are there already go into ``finished``.

    Raises: UserError: for a file that is not Parquet, has no rows, or lacks a column.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = plan.files[file]
    try:
        with pq.ParquetFile(path) as opened:
            names = opened.schema_arrow.names
            groups = [opened.metadata.row_group(g).num_rows for g in range(opened.metadata.num_row_groups)]
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a whole Parquet file ({error})") from error
    for name in plan.source["columns"]:
        if name not in names:
            raise DataError(f"{path}: no column '{name}'; there are: {', '.join(names)}")
    if not sum(groups):
        raise DataError(f"{path}: holds no rows; the file is empty or cut short")
    first_row = 0
    for group, num_rows in enumerate(groups):
        rows = budget.take(num_rows)
        number = group * _GROUP_CHUNKS
        whole = _finished_group(plan, file, number)
        if whole:
            finished.update(whole)
        elif rows:
            task = {"step": "parquet", "file": file, "number": number, "group": group}
            yield {**task, "first_row": first_row, "rows": rows}
        first_row += num_rows


def _finished_group(plan: Plan, file: int, number: int) -> Finished | None:
    """The chunks of a row group, if all are there."""
    found: Finished = {}
    while (meta := chunk_meta(plan, ChunkId(file, number))) is not None:
        found[ChunkId(file, number)] = meta
        if meta["last"]:
            return found
        number += 1
    return None


def parse_row_group(plan: Plan, file: int, group: int, first_row: int, rows: int) -> dict[str, Any]:
    """Write the chunks of the first rows of a row group.

    Returns: {"chunks": meta by number}; or, for a row that cannot be used, {"line", "trouble"}.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path, number = plan.files[file], group * _GROUP_CHUNKS
    chunks: dict[int, Any] = {}
    try:
        with pq.ParquetFile(path, buffer_size=1 << 20) as opened:  # a row group may be larger than memory
            batches = opened.iter_batches(
                CHUNK_ROWS, row_groups=[group], columns=list(plan.source["columns"]), use_threads=False
            )
            done = 0
            for batch in batches:
                batch = batch.slice(0, rows - done)
                last = done + batch.num_rows == rows
                answer = _write(plan, path, ChunkId(file, number), batch, first_row + done, last)
                if "trouble" in answer:
                    return answer
                chunks[number] = answer
                done, number = done + batch.num_rows, number + 1
                if last:
                    break
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a whole Parquet file ({error})") from error
    return {"chunks": chunks}


def _write(plan: Plan, path: Path, which: ChunkId, batch: Any, first_row: int, last: bool) -> dict[str, Any]:
    columns = {name: _plain(batch.column(name), f"{path}: column '{name}'") for name in batch.schema.names}
    keep = np.ones(batch.num_rows, dtype=bool)
    labels, wrong = _parsed(columns[plan.schema.label.column], plan.schema.label.parse)
    times = None
    if plan.times:
        times, wrong_times = _parsed(columns[plan.source["time"]], parse_time)
        wrong = {**wrong_times, **wrong}
    if wrong and plan.bad_rows == "error":
        row = min(wrong)
        return {"line": first_row + row, "trouble": wrong[row]}
    keep &= ~np.isnan(labels)
    keep[list(wrong)] = False
    rows = np.flatnonzero(keep)
    if len(rows) < len(keep):
        import pyarrow as pa

        columns = {name: column.take(pa.array(rows)) for name, column in columns.items()}
    return write_chunk(
        plan.chunk_path(which),
        plan.schema,
        columns,
        labels[rows],
        rows + first_row,
        None if times is None else times[rows],
        skipped=len(wrong),
        first_bad=f"{first_row + min(wrong) + 1}: {wrong[min(wrong)]}" if wrong else "",
        last=last,
    )


def _plain(column: Any, where: str) -> Any:
    """The column without a dictionary of its own, which might hold nulls. Raises UserError when it is nested."""
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_nested(column.type):
        raise DataError(f"{where} is of type {column.type}; a field needs one number or text per row")
    return column


def _parsed(column: Any, parse: Callable[[Any], float | None]) -> tuple[np.ndarray, dict[int, str]]:
    """What ``parse`` makes of each value (float64, NaN for None), and why some rows have none."""
    import pyarrow as pa

    encoded = column.dictionary_encode()
    values, reasons = [], {}
    for place, raw in enumerate([*plain_values(pa, encoded.dictionary, "a column"), None]):
        try:
            parsed = parse(raw)
        except ValueError as error:
            parsed, reasons[place] = None, str(error)
        values.append(np.nan if parsed is None else float(parsed))
    indices = encoded.indices.fill_null(len(values) - 1).to_numpy(zero_copy_only=False)
    wrong: dict[int, str] = {}
    for place, reason in reasons.items():
        wrong.update(dict.fromkeys(np.flatnonzero(indices == place).tolist(), reason))
    return np.array(values, dtype=np.float64)[indices], wrong
