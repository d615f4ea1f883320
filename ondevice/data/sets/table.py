"""Any CSV or Parquet table, read through a YAML file that says what its columns mean.

`train/configs/table_example.schema.yaml` shows every key.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np

from ondevice.data import splits
from ondevice.data.arrow import PARQUET_SUFFIXES, parse_time, plain_values
from ondevice.data.dataset import Dataset
from ondevice.data.delimited import CHUNK_ROWS, POLICIES, BadRows, Chunk, read_csv, read_header
from ondevice.data.interactions import Factorizer, Interactions
from ondevice.data.registry import DATASETS
from ondevice.data.schema import TABLE_SECTIONS, Schema, check_keys, read_yaml
from ondevice.data.sources import say
from ondevice.data.store import prepare
from ondevice.errors import ConfigError, DataError, MissingPackage, UserError, nearest

TEXT_SUFFIXES = (".csv", ".tsv", ".txt", ".data")
WAY_OUT = "mend or remove the line, or leave such rows out with data.bad_rows=skip"


@dataclass(frozen=True)
class Split:
    """The ``split`` section: how rows are divided when the options do not say otherwise."""

    kind: str = "random"
    time: str | None = None  # column with a number or an ISO 8601 date; needed by a temporal split
    fractions: Sequence[float] = (0.8, 0.1, 0.1)


@dataclass(frozen=True)
class Format:
    """The ``format`` section: how the text files are written."""

    delimiter: str = ","
    encoding: str = "utf-8"
    columns: Sequence[str] | None = None  # names, for files without a header line

    def __post_init__(self) -> None:
        if not isinstance(self.delimiter, str) or len(self.delimiter) != 1:
            raise DataError(f"format.delimiter: must be one character, got {self.delimiter!r}")
        if not isinstance(self.encoding, str):
            raise DataError(
                f"format.encoding: must be a name such as utf-8 or latin-1, got {self.encoding!r}"
            )
        named = self.columns is None or (
            isinstance(self.columns, Sequence)
            and not isinstance(self.columns, str)
            and all(isinstance(name, str) for name in self.columns)
        )
        if not named:
            raise DataError(f"format.columns: must be a list of column names, got {self.columns!r}")


@dataclass(frozen=True)
class TableSpec:
    """A table's YAML file: the schema, and the sections that only the reader needs."""

    schema: Schema
    split: Split = Split()
    format: Format = Format()
    title: str | None = None  # column with a title for people, kept for the catalog

    @classmethod
    def from_yaml(cls, path: str | os.PathLike[str]) -> TableSpec:
        """Read and check a file. Raises UserError for a key that is unknown, missing, or there twice."""
        values = read_yaml(path)
        schema = Schema.from_dict({k: v for k, v in values.items() if k not in TABLE_SECTIONS}, str(path))
        sections: dict[str, Any] = {}
        for name, kind in (("split", Split), ("format", Format)):
            section = values.get(name, {})
            check_keys(kind, section, f"{path}.{name}")
            try:
                sections[name] = kind(**section)
            except UserError as error:
                raise DataError(f"{path}: {error}") from error
        title = values.get("title")
        for option, value in (("title", title), ("split.time", sections["split"].time)):
            if value is not None and not isinstance(value, str):
                raise DataError(f"{path}: {option} must be a column name, got {value!r}")
        if title is not None and schema.item_key is None:
            raise DataError(f"{path}: title belongs to an item; set item_key to the field that names an item")
        return cls(schema, title=title, **sections)

    def needed(self, temporal: bool, titles: bool = True) -> dict[str, None]:
        """Columns to read, in a fixed order."""
        label = self.schema.label.column
        extra = [label, self.title if titles else None, self.split.time if temporal else None]
        return dict.fromkeys(
            [f.source_column for f in self.schema.fields] + [c for c in extra if c is not None]
        )


@DATASETS.register("table")
def table(
    *,
    schema: str | os.PathLike[str] | None = None,
    path: str | os.PathLike[str] | None = None,
    split: str | None = None,
    seed: int = 0,
    fractions: Sequence[float] | None = None,
    max_rows: int | None = None,
    bad_rows: str = "error",
    streamed: bool = False,
    memory: int | str = "2GB",
    workers: int | None = None,
) -> Dataset:
    """Your own interactions: any CSV or Parquet file, or folder of them, through a YAML schema.

    Args:
        schema: the YAML file that says what the columns mean.
        path: the table, or a folder whose files of one kind are read in the order of their names.
        split: ``random`` or ``temporal``; None: as the YAML file says.
        seed: draws the random split, the subsample and the sampled negatives.
        fractions: of train, valid and test; None: as the YAML file says.
        max_rows: keep a reproducible subsample of at most so many rows.
        bad_rows: ``error`` stops at a row that cannot be read, ``skip`` leaves it out and counts it.
        streamed: for Parquet files larger than memory: two passes by all cores. A random split then draws row
            by row, ``max_rows`` are the first ones, and there is no catalog.
        memory: with ``streamed``: bound of all processes of the preparation together.
        workers: with ``streamed``: processes; None: one per core that ``memory`` allows.
    """
    if schema is None or path is None:
        option = "schema" if schema is None else "path"
        raise ConfigError(
            f"data.{option}: data set 'table' needs it (data.schema=FILE.yaml data.path=FILE.csv)"
        )
    if bad_rows not in POLICIES:
        raise ConfigError(f"data.bad_rows: '{bad_rows}' is unknown {nearest(str(bad_rows), POLICIES)}")
    spec = TableSpec.from_yaml(schema)
    kind = spec.split.kind if split is None else split
    shares = splits.check_options(
        kind, seed, spec.split.fractions if fractions is None else fractions, max_rows
    )
    if kind == "temporal" and spec.split.time is None:
        raise DataError(f"{schema}: split 'temporal' needs the time column; add split: {{time: COLUMN}}")
    files = table_files(Path(path).expanduser())
    if streamed:
        from ondevice.data.large.parquet import check_streamable
        from ondevice.data.large.prepare import prepare_large

        check_streamable(spec.schema, files)
        time = spec.split.time if kind == "temporal" else None
        return prepare_large(
            spec.schema,
            {"kind": "parquet", "columns": list(spec.needed(kind == "temporal", titles=False)), "time": time},
            files,
            split=kind,
            seed=seed,
            fractions=shares,
            max_rows=max_rows,
            bad_rows=bad_rows,
            memory=memory,
            workers=workers,
        )
    stats = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return prepare(
        spec.schema,
        lambda: read_table(spec, files, temporal=kind == "temporal", bad=BadRows(bad_rows, WAY_OUT)),
        inputs=[stats, dataclasses.asdict(spec.format), spec.title, spec.split.time, bad_rows],
        split=kind,
        seed=seed,
        fractions=shares,
        max_rows=max_rows,
    )


def table_files(path: Path) -> list[Path]:
    """The file itself, or a folder's CSV or Parquet files by name. Raises UserError when there is none."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise DataError(f"data.path: {path} does not exist")
    visible = sorted(p for p in path.iterdir() if p.is_file() and not p.name.startswith((".", "_")))
    kinds = [
        [file for file in visible if file.suffix.lower() in suffixes]
        for suffixes in (TEXT_SUFFIXES, PARQUET_SUFFIXES)
    ]
    if all(kinds):
        raise DataError(
            f"data.path: {path} holds both text and Parquet files; name one of them, or part them"
        )
    if not any(kinds):
        raise DataError(
            f"data.path: {path} holds no file ending in {', '.join(TEXT_SUFFIXES + PARQUET_SUFFIXES)}"
        )
    return kinds[0] or kinds[1]


def read_table(spec: TableSpec, files: Sequence[Path], *, temporal: bool, bad: BadRows) -> Interactions:
    """The rows of the files that the label rule keeps. Raises UserError as `BadRows` says."""
    schema = spec.schema
    needed = spec.needed(temporal)
    columns = {name: Factorizer() for name in dict.fromkeys(f.source_column for f in schema.fields)}
    item_column = next((f.source_column for f in schema.fields if f.name == schema.item_key), None)
    labels_of = _Memo(schema.label.parse)
    times_of = _Memo(parse_time)
    labels: list[np.ndarray] = []
    times: list[np.ndarray] = []
    titles: dict[Any, str] = {}
    for file in files:
        chunks = _parquet_chunks if file.suffix.lower() in PARQUET_SUFFIXES else _text_chunks
        for chunk in chunks(file, spec.format, needed, bad):
            cells = dict(zip(needed, chunk.columns, strict=True))
            keep = [True] * len(chunk)
            parsed: list[Any] = [1] * len(chunk)
            if schema.label.column is not None:
                parsed = _parse(labels_of, cells[schema.label.column], keep, chunk, file, bad)
                keep = [good and label is not None for good, label in zip(keep, parsed, strict=True)]
            if temporal:
                assert spec.split.time is not None
                moments = _parse(times_of, cells[spec.split.time], keep, chunk, file, bad)
                times.append(np.array(list(compress(moments, keep)), dtype=np.float64))
            if not all(keep):
                cells = {name: tuple(compress(column, keep)) for name, column in cells.items()}
            labels.append(np.array(list(compress(parsed, keep)), dtype=np.uint8))
            for name, factorizer in columns.items():
                factorizer.add(cells[name])
            if spec.title is not None and item_column is not None:
                for item, title in dict(
                    zip(reversed(cells[item_column]), reversed(cells[spec.title]), strict=True)
                ).items():
                    titles.setdefault(item, "" if title is None else str(title))
    if bad.skipped:
        say(f"{schema.name}: {bad.skipped} rows left out; the first: {bad.first}")
    found = {name: factorizer.column() for name, factorizer in columns.items()}
    return Interactions(
        {field.name: found[field.source_column] for field in schema.fields},
        np.concatenate(labels) if labels else np.empty(0, dtype=np.uint8),
        order=(np.concatenate(times),) if times else (),
        titles=titles,
        skipped=bad.skipped,
    )


@dataclass(frozen=True)
class _Wrong:
    """Why a value could not be parsed."""

    reason: str


class _Memo(dict):  # type: ignore[type-arg]
    """raw value -> what ``parse`` makes of it, or `_Wrong`."""

    def __init__(self, parse: Callable[[Any], Any]) -> None:
        super().__init__()
        self.parse = parse

    def __missing__(self, raw: Any) -> Any:
        try:
            self[raw] = value = self.parse(raw)
        except ValueError as error:
            return _Wrong(str(error))
        return value


def _parse(
    memo: _Memo, column: Sequence[Any], keep: list[bool], chunk: Chunk, file: Path, bad: BadRows
) -> list[Any]:
    """Parsed values; a row whose value is wrong goes to ``bad`` and out of ``keep``."""
    parsed = [memo[raw] for raw in column]
    for position, value in enumerate(parsed):
        if type(value) is _Wrong and keep[position]:
            bad.report(file, chunk.lines[position], value.reason)
            keep[position] = False
    return parsed


def _text_chunks(file: Path, form: Format, needed: Mapping[str, None], bad: BadRows) -> Iterator[Chunk]:
    header = (
        list(form.columns)
        if form.columns is not None
        else read_header(file, delimiter=form.delimiter, encoding=form.encoding)
    )
    positions = _positions(file, header, needed, form)
    for chunk in read_csv(
        file,
        delimiter=form.delimiter,
        encoding=form.encoding,
        num_columns=len(header),
        skip_rows=0 if form.columns is not None else 1,
        bad=bad,
    ):
        yield Chunk([chunk.columns[i] for i in positions], chunk.lines)


def _positions(file: Path, header: Sequence[str], needed: Mapping[str, None], form: Format) -> list[int]:
    for name in needed:
        if name not in header:
            hint = "" if len(header) > 1 else f"; is the delimiter {form.delimiter!r}? (format.delimiter)"
            raise DataError(f"{file}: no column '{name}' {nearest(name, header)}{hint}")
        if list(header).count(name) > 1:
            raise DataError(
                f"{file}: column '{name}' is there {list(header).count(name)} times; names must differ"
            )
    return [list(header).index(name) for name in needed]


def _parquet_chunks(file: Path, form: Format, needed: Mapping[str, None], bad: BadRows) -> Iterator[Chunk]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingPackage(
            f"{file}: reading Parquet needs pyarrow; pip install pyarrow, or write the table as CSV"
        ) from error
    try:
        with pq.ParquetFile(file) as opened:
            _positions(file, opened.schema_arrow.names, needed, form)
            if opened.metadata.num_rows == 0:
                raise DataError(f"{file}: holds no rows; the file is empty or cut short")
            first = 1
            for batch in opened.iter_batches(batch_size=CHUNK_ROWS, columns=list(needed)):
                cells = [
                    tuple(plain_values(pa, batch.column(name), f"{file}: column '{name}'")) for name in needed
                ]
                yield Chunk(cells, range(first, first + batch.num_rows))
                first += batch.num_rows
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{file}: not a whole Parquet file ({error})") from error
