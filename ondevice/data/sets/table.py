"""Any table that people bring, read through a YAML file that says what its columns mean: docs/data.md.

`train/configs/table_example.schema.yaml` shows every key.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ondevice.data import splits
from ondevice.data.arrow import unpacked
from ondevice.data.dataset import Dataset
from ondevice.data.interactions import Column, Factorizer, Interactions, item_rows
from ondevice.data.join import Joined
from ondevice.data.parts import BadRows, Part, find_parts, line_of
from ondevice.data.read import Engine
from ondevice.data.registry import DATASETS
from ondevice.data.rows import Rows, rows_of
from ondevice.data.schema import Schema
from ondevice.data.sequences import check_histories
from ondevice.data.sources import say
from ondevice.data.spec import TableSpec
from ondevice.data.store import file_digests, prepare
from ondevice.data.times import doubts
from ondevice.errors import ConfigError, DataError, nearest


@DATASETS.register("table")
def table(
    *,
    schema: str | os.PathLike[str] | None = None,
    path: Any = None,
    split: str | None = None,
    seed: int = 0,
    fractions: Sequence[float] | None = None,
    max_rows: int | None = None,
    bad_rows: str = "error",
    streamed: bool = False,
    memory: int | str = "2GB",
    workers: int | None = None,
    tables: Mapping[str, Any] | None = None,
) -> Dataset:
    """Your own interactions: text of any dialect, JSON lines or Parquet, through a YAML schema.

    Args:
        schema: the YAML file that says what the columns mean.
        path: a file, a folder, a pattern, or a list of them, read in this order and by name; a mapping with
            ``train``, ``valid`` and ``test`` names the rows of each split.
        split: ``random``, ``temporal`` or ``leave_last_out``; None: as the YAML file says.
        seed: draws the random split, the subsample and the sampled negatives.
        fractions: of train, valid and test; None: as the YAML file says.
        max_rows: keep a reproducible subsample of at most so many rows.
        bad_rows: ``error`` stops at a row that cannot be read, ``skip`` leaves it out and counts it.
        streamed: for tables larger than memory: two passes by all cores. A random split then draws row by row,
            ``max_rows`` are the first ones, and there is no catalog.
        memory: with ``streamed``: bound of all processes of the preparation together.
        workers: with ``streamed``: processes; None: one per core that ``memory`` allows.
        tables: where further tables are, by name, if not where the YAML file says.
    """
    if schema is None or path is None:
        option = "schema" if schema is None else "path"
        raise DataError(
            f"data.{option}: data set 'table' needs it (data.schema=FILE.yaml data.path=FILE.csv)"
        )
    bad = BadRows(bad_rows)
    spec = TableSpec.from_yaml(schema, tables)
    parts, given = _parts(path, split)
    kind = splits.GIVEN if given is not None else spec.split.kind if split is None else split
    shares = splits.check_options(
        "random" if kind == splits.GIVEN else kind,
        seed,
        spec.split.fractions if fractions is None else fractions,
        max_rows,
    )
    timed = kind in splits.TIMED or bool(spec.schema.histories)
    if timed and spec.split.time is None:
        what = f"split '{kind}'" if kind in splits.TIMED else f"history '{spec.schema.histories[0].name}'"
        raise DataError(f"{schema}: {what} needs the time column; add split: {{time: COLUMN}}")
    check_histories(spec.schema, spec.user, timed)
    others = {
        name: file_digests([part.path for part in find_parts(side.path)])
        for name, side in spec.tables.items()
    }
    if streamed:
        from ondevice.data.large.prepare import prepare_large
        from ondevice.data.large.tables import check_streamable

        check_streamable(spec)
        return prepare_large(
            spec.schema,
            {
                "kind": "table",
                "spec": spec.meaning(),
                "others": others,
                "timed": timed,
                "given": given,
                "partitions": [dict(part.partitions) for part in parts],
            },
            [part.path for part in parts],
            places={name: side.path for name, side in spec.tables.items()},
            split=kind,
            seed=seed,
            fractions=shares,
            max_rows=max_rows,
            bad_rows=bad_rows,
            memory=memory,
            workers=workers,
        )
    return prepare(
        spec.schema,
        lambda: read_table(spec, parts, timed=timed, bad=bad, given=given),
        inputs=[
            file_digests([part.path for part in parts]),
            [dict(part.partitions) for part in parts],
            spec.meaning(),
            others,
            bad_rows,
            given,
        ],
        split=kind,
        seed=seed,
        fractions=shares,
        max_rows=max_rows,
        group=spec.split.group,
        user=spec.user,
    )


def _parts(path: Any, split: str | None) -> tuple[list[Part], list[int] | None]:
    """The files, and the split of each where the path says it."""
    if not isinstance(path, Mapping):
        return find_parts(path), None
    if split is not None:
        raise ConfigError(f"data.split: '{split}' and a data.path of train, valid and test; keep one of them")
    if set(path) != set(splits.SPLITS):
        key = next((key for key in path if key not in splits.SPLITS), None)
        wrong = (
            f"unknown key '{key}' {nearest(str(key), splits.SPLITS)}"
            if key
            else "train, valid or test is missing"
        )
        raise DataError(f"data.path: {wrong}; a mapping names the files of train, valid and test")
    parts_of_splits = [
        (part, number) for number, name in enumerate(splits.SPLITS) for part in find_parts(path[name])
    ]
    return [part for part, _ in parts_of_splits], [number for _, number in parts_of_splits]


def read_table(
    spec: TableSpec, parts: Sequence[Part], *, timed: bool, bad: BadRows, given: Sequence[int] | None = None
) -> Interactions:
    """The rows of the files that the label rule keeps. Raises UserError as `BadRows` says."""
    columns = {field.name: Factorizer() for field in spec.schema.columns}
    rows: list[Rows] = []
    division: list[np.ndarray] = []
    titles: dict[Any, str] = {}
    seen = 0
    with Engine(lists=spec.list_columns) as engine:
        joined = Joined(engine, spec, parts, bad, spec.needed(timed))
        for number, part in enumerate(parts):
            for numbers, batch in joined.batches(part):
                seen += len(numbers)
                kept, wrong = rows_of(spec, numbers, batch, where=str(part.path), timed=timed, titles=True)
                if wrong:
                    first = min(wrong)
                    line = line_of(part, joined.main_columns, spec.format, first)
                    bad.report(part.path, line, wrong[first], len(wrong))
                for name, factorizer in columns.items():
                    factorizer.add_arrow(kept.columns[name])
                if kept.titles is not None:
                    _note_titles(titles, kept.columns[spec.schema.item_key].to_pylist(), kept.titles)  # type: ignore[index]
                if given is not None:
                    division.append(np.full(len(kept.labels), given[number], dtype=np.uint8))
                rows.append(kept)
        joined.tell()
        items, more = joined.items() if spec.computed.items is None else spec.computed.items()
        titles.update(more)
    if not seen:
        raise DataError(f"{parts[0].path}: holds no rows; the file is empty or cut short")
    if bad.skipped:
        say(f"{spec.schema.name}: {bad.skipped} rows left out; the first: {bad.first}")
    order = tuple(np.concatenate(parts) for parts in zip(*(each.order for each in rows), strict=True))
    if order and len(order[0]) and (doubt := doubts(str(spec.split.time), order[0].min(), order[0].max())):
        say(f"{spec.schema.name}: {doubt}")
    read = {name: factorizer.column() for name, factorizer in columns.items()}
    for field in spec.schema.columns:
        if field.slots > 1:
            column = read[field.name]
            read[field.name] = Column(column.codes, [unpacked(text) for text in column.values])
    return Interactions(
        read,
        np.concatenate([each.labels for each in rows]),
        order=order,
        items=_merged(spec.schema, read, items) if items else None,
        titles=titles,
        skipped=bad.skipped,
        weights=np.concatenate([each.weights for each in rows]) if spec.weight is not None else None,  # type: ignore[misc]
        division=np.concatenate(division) if given is not None else None,
    )


def _merged(
    schema: Schema, columns: Mapping[str, Column], items: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """One row per item: those of the table of items, and the first row of each item that it lacks."""
    assert schema.item_key is not None
    rows = {row[schema.item_key]: row for row in item_rows(schema, columns)}
    for item in items:
        nothing = {field.name: None for field in schema.fields if field.side == "item"}
        rows[item[schema.item_key]] = {**nothing, **rows.get(item[schema.item_key], {}), **item}
    return list(rows.values())


def _note_titles(titles: dict[Any, str], items: list[Any], texts: list[Any]) -> None:
    """The first title that is seen of each item."""
    for item, text in dict(zip(reversed(items), reversed(texts), strict=True)).items():
        titles.setdefault(item, "" if text is None else str(text))
