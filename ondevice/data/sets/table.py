"""Any table that people bring, read through a YAML file that says what its columns mean: docs/data.md.

`train/configs/table_example.schema.yaml` shows every key.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from ondevice.data import splits
from ondevice.data.dataset import Dataset
from ondevice.data.parts import BadRows, Part, find_parts
from ondevice.data.preparation.prepare import prepare, prepare_large
from ondevice.data.registry import DATASETS
from ondevice.data.sequences import check_histories
from ondevice.data.spec import TableSpec
from ondevice.data.store import file_digests
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
        streamed: for tables larger than memory: two passes by all cores. A random split then draws row by row, and
            ``max_rows`` are the first ones.
        memory: with ``streamed``: bound of all processes of the preparation together.
        workers: with ``streamed``: processes; None: one per core that ``memory`` allows.
        tables: where further tables are, by name, if not where the YAML file says.
    """
    if schema is None or path is None:
        option = "schema" if schema is None else "path"
        raise DataError(
            f"data.{option}: data set 'table' needs it (data.schema=FILE.yaml data.path=FILE.csv)"
        )
    BadRows(bad_rows)
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
    partitions = [dict(part.partitions) for part in parts]
    options: dict[str, Any] = {
        "split": kind,
        "seed": seed,
        "fractions": shares,
        "max_rows": max_rows,
        "bad_rows": bad_rows,
    }
    if streamed:
        source = {"kind": "table", "spec": spec.meaning(), "others": others, "timed": timed, "given": given}
        places = {name: side.path for name, side in spec.tables.items()}
        return prepare_large(
            *(spec.schema, {**source, "partitions": partitions}, [part.path for part in parts]),
            **options,
            memory=memory,
            workers=workers,
            places=places,
        )
    digests = file_digests([part.path for part in parts])
    inputs = [digests, partitions, spec.meaning(), others, bad_rows, given]
    return prepare(spec.schema, lambda: (spec, parts), inputs=inputs, **options, timed=timed, given=given)


def _parts(path: Any, split: str | None) -> tuple[list[Part], list[int] | None]:
    """The files, and the split of each where the path says it."""
    if not isinstance(path, Mapping):
        return find_parts(path), None
    if split is not None:
        raise ConfigError(f"data.split: '{split}' and a data.path of train, valid and test; keep one of them")
    if set(path) != set(splits.SPLITS):
        key = next((key for key in path if key not in splits.SPLITS), None)
        unknown = f"unknown key '{key}' {nearest(str(key), splits.SPLITS)}"
        wrong = unknown if key else "train, valid or test is missing"
        raise DataError(f"data.path: {wrong}; a mapping names the files of train, valid and test")
    parts_of_splits = [
        (part, number) for number, name in enumerate(splits.SPLITS) for part in find_parts(path[name])
    ]
    return [part for part, _ in parts_of_splits], [number for _, number in parts_of_splits]
