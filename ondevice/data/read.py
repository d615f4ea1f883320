"""Tables that people bring, read by DuckDB: delimited text, JSON lines, Parquet, and tables in the process.

Whatever the source, rows come as Arrow batches of a fixed size in the order of the files, so that all that follows
is the same for every kind of table and for every number of threads.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import io
import itertools
import json
import lzma
import shutil
import tempfile
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from ondevice.data.parts import (
    WAY_OUT,
    BadRows,
    Format,
    Part,
    decoded,
    line_at,
    lines_of,
    open_packed,
    packing_of,
)
from ondevice.data.read_errors import DAMAGED, readable_error, trouble_of
from ondevice.data.sources import cache_directory
from ondevice.errors import DataError, MissingPackage, UserError, nearest

CHUNK_ROWS = 1 << 16
MOST_REJECTED = 1_000_000
NAMING_LINES = 1000  # lines of JSON in which every column must be named once

_NEVER = "\x01"  # a character that no line of text or JSON holds


@dataclass(frozen=True)
class Scan:
    """How DuckDB reads one file: its columns' names, an expression for each, and the source in SQL."""

    names: list[str]
    expressions: list[str]
    source: str
    file: Path
    rejects: str = ""
    troubles: bool = False


class Engine:
    """A DuckDB of this process's own, without network; use it in a ``with`` statement.

    Args:
        memory: bytes that it may hold; None: DuckDB's own bound.
        threads: of the reading; None: one per core.
        lists: columns in which JSON may have a list.
    """

    def __init__(
        self, memory: int | None = None, threads: int | None = None, lists: Collection[str] = ()
    ) -> None:
        self.lists = frozenset(lists)
        try:
            import duckdb
            import pyarrow
        except ImportError as error:
            raise MissingPackage(
                "reading tables needs duckdb and pyarrow; pip install duckdb pyarrow"
            ) from error
        root = cache_directory()
        try:
            root.mkdir(parents=True, exist_ok=True)
            self.scratch = Path(tempfile.mkdtemp(dir=root, prefix=".reading."))
        except OSError as error:
            raise UserError(
                f"cannot write {root}: {error}; set ONDEVICE_CACHE to a folder that can be written"
            ) from error
        bounds = {"memory_limit": f"{memory}B"} if memory is not None else {}
        bounds.update({"threads": str(threads)} if threads is not None else {})
        alone = {"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"}
        spill = {"temp_directory": str(self.scratch / "spill")}
        self._root = duckdb.connect(config={**bounds, **alone, **spill})
        self.database = self.cursor()
        # the last two come while batches are fetched
        self.errors = (duckdb.Error, pyarrow.ArrowException, OSError)
        # DuckDB 1, which Python 3.10 has, does not see that gzip ends in the middle
        is_old = int(duckdb.__version__.split(".")[0]) < 2
        self.read_directly = (None, "zstd") if is_old else (None, "gzip", "zstd")
        self._number = 0

    def cursor(self) -> Any:
        """A further connection to the same database, which prints no progress on stdout."""
        cursor = self._root.cursor()
        cursor.execute("SET enable_progress_bar = false")
        return cursor

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._root.close()
        shutil.rmtree(self.scratch, ignore_errors=True)

    def batches(
        self, part: Part, columns: Sequence[str], form: Format, bad: BadRows
    ) -> Iterator[tuple[np.ndarray, Any]]:
        """Numbers (n,) of rows within the file, from 0, and an Arrow batch of their columns.

        Every batch has `CHUNK_ROWS` rows but the last, and those from which lines have been left out.

        Raises: UserError: for a file that cannot be read, an absent column, and as `BadRows` says.
        """
        done, normal = 0, True
        while True:
            try:
                with self._scan(part, form, normal) as scan:
                    place = 0
                    for batch in self._run(part, scan, columns, form):
                        numbers = np.arange(place, place + batch.num_rows)
                        place += len(numbers)
                        if place > done:
                            done = place
                            yield _without_troubles(part, scan, numbers, batch, bad)
                    self._report_rejects(part, scan, form, bad)
                return
            except self.errors as error:
                if not normal or "invalid state" not in str(error):
                    raise readable_error(part, error) from error
                normal = False  # lines end in two ways: go on with a copy in which they do not

    def names(self, part: Part, form: Format) -> list[str]:
        """The columns of a file. Raises UserError when it cannot be read."""
        with self._scan(part, form, True) as scan:
            return scan.names

    def _run(self, part: Part, scan: Scan, columns: Sequence[str], form: Format) -> Iterator[Any]:
        import pyarrow as pa

        chosen = [
            f"{scan.expressions[place]} AS k{i}"
            for i, place in enumerate(_positions(part, scan.names, columns, form))
        ]
        names = list(columns)
        if scan.troubles:
            chosen.append(f"{_trouble_sql(chosen)} AS trouble")
            names.append("trouble")
        reader = self.database.sql(f"SELECT {', '.join(chosen)} FROM {scan.source}").to_arrow_reader(
            CHUNK_ROWS
        )
        pending: list[Any] = []
        waiting = 0
        for batch in reader:
            pending.append(batch)
            waiting += batch.num_rows
            while waiting >= CHUNK_ROWS:
                table = pa.Table.from_batches(pending)
                yield _one_batch(table.slice(0, CHUNK_ROWS), names)
                pending = table.slice(CHUNK_ROWS).to_batches()
                waiting -= CHUNK_ROWS
        if waiting:
            yield _one_batch(pa.Table.from_batches(pending), names)

    @contextlib.contextmanager
    def _scan(self, part: Part, form: Format, normal: bool) -> Iterator[Scan]:
        """How a file is read; a copy that had to be made of it lasts as long as the block."""
        kind = part.kind
        if kind == "parquet":
            copy, scan = part.path, self._parquet(part.path)
        else:
            copy = self._plain(part.path, form, normal)
            scan = self._text(part, copy, form) if kind == "text" else self._json(part, copy)
        added = {key: value for key, value in part.partitions.items() if key not in scan.names}
        try:
            values = [*scan.expressions, *map(_quoted, added.values())]
            yield dataclasses.replace(scan, names=[*scan.names, *added], expressions=values)
        finally:
            if copy != part.path:
                copy.unlink(missing_ok=True)

    def _parquet(self, path: Path) -> Scan:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            schema = pq.read_schema(path)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{path}: not a whole Parquet file ({error})") from error
        source = f"read_parquet({_quoted(str(path))}, hive_partitioning=false)"
        return Scan(list(schema.names), self._expressions(source, schema), source, path)

    def _expressions(self, source: str, schema: Any) -> list[str]:
        """An SQL expression per column; what Arrow or Python has no number or text for becomes a text."""
        import pyarrow as pa

        described = self.database.sql(f"DESCRIBE SELECT * FROM {source}").fetchall()
        expressions = []
        for (name, kind, *_), arrow in zip(described, schema.types, strict=True):
            column = '"' + name.replace('"', '""') + '"'
            if pa.types.is_fixed_size_binary(arrow) and kind == "BLOB":
                column = f"lower(hex({column}))"
            elif kind in ("INTERVAL", "UUID", "BIT", "UHUGEINT") or kind.startswith("TIME "):
                column = f"CAST({column} AS VARCHAR)"
            expressions.append(column)
        return expressions

    def _text(self, part: Part, copy: Path, form: Format) -> Scan:
        delimiter = form.delimiter_of(part.path)
        names = list(form.columns) if form.columns is not None else self._header(part, copy, form)
        self._number += 1
        columns = ", ".join(f"'c{i}': 'VARCHAR'" for i in range(len(names)))
        source = (
            f"read_csv({_quoted(str(copy))}, delim={_quoted(delimiter)}, quote={_quoted(form.quote)}, "
            f"escape={_quoted(form.quote if form.escape is None else form.escape)}, "
            f"header={'true' if form.columns is None else 'false'}, skip={form.skip}, columns={{{columns}}}, "
            f"compression={_quoted(packing_of(copy) or 'none')}, auto_detect=false, null_padding=false, "
            f"ignore_errors=true, store_rejects=true, rejects_table='rejects{self._number}', "
            f"rejects_scan='scans{self._number}', rejects_limit={MOST_REJECTED})"
        )
        return Scan(names, [f"c{i}" for i in range(len(names))], source, copy, f"rejects{self._number}")

    def _lines(self, copy: Path) -> str:
        """A file as one text per line, empty ones as null."""
        return (
            f"read_csv({_quoted(str(copy))}, delim={_quoted(_NEVER)}, quote='', escape='', header=false, "
            f"columns={{'line': 'VARCHAR'}}, compression={_quoted(packing_of(copy) or 'none')}, auto_detect=false)"
        )

    def _header(self, part: Part, copy: Path, form: Format) -> list[str]:
        lines = list(itertools.islice(lines_of(copy, "utf-8-sig"), form.skip + 1))
        line = lines[-1].rstrip("\r\n") if len(lines) > form.skip else ""
        if not line:
            raise DataError(f"{part.path}: is empty; expected a header line with the column names")
        if not decoded(line):
            raise DataError(
                f"{part.path}:1: bytes that are not {form.encoding}; name the right encoding (format.encoding)"
            )
        delimiter = form.delimiter_of(part.path)
        if len(delimiter) > 1 or not form.quote:
            return line.split(delimiter)
        return next(csv.reader([line], delimiter=delimiter, quotechar=form.quote, escapechar=form.escape))

    def _json(self, part: Part, copy: Path) -> Scan:
        """JSON lines: every name of the first lines is a column; numbers become the texts that they write."""
        names: dict[str, None] = {}
        for line in itertools.islice(lines_of(copy, "utf-8-sig"), NAMING_LINES):
            if not names and line.strip() == "[":  # an array over several lines
                break
            with contextlib.suppress(ValueError):
                record = json.loads(line)
                names.update(dict.fromkeys(record if isinstance(record, dict) else ()))
        if not names:
            raise DataError(
                f'{part.path}:1: no JSON object; write one object on each line, such as {{"user": 1, "item": 2}}'
            )
        expressions = []
        for name in names:
            path = _quoted('$."' + name.replace('"', '\\"') + '"')
            text = f"json_extract_string(doc, {path})"
            expressions.append(
                f"CASE json_type(doc, {path}) WHEN 'BOOLEAN' THEN upper({text}[1]) || {text}[2:] "
                f"WHEN 'DOUBLE' THEN regexp_replace({text}, '\\.0+$', '') "
                f"WHEN 'ARRAY' THEN {self._list(name, path)} WHEN 'OBJECT' THEN '{_NEVER}' ELSE {text} END"
            )
        source = f"(SELECT line, CASE WHEN json_valid(line) THEN line END AS doc FROM {self._lines(copy)})"
        return Scan(list(names), expressions, source, copy, troubles=True)

    def _list(self, name: str, path: str) -> str:
        """A list as the text of its values, each behind the character that `arrow.UNIT` is."""
        if name not in self.lists:
            return _quoted(_NEVER)
        values = f"json_extract_string(doc, {path[:-1]}[*]')"
        return f"CASE WHEN len({values}) > 0 THEN chr(31) || array_to_string({values}, chr(31)) END"

    def _plain(self, path: Path, form: Format, normal: bool) -> Path:
        """The file itself where DuckDB can read it, else a copy of its text in UTF-8 with plain line ends."""
        packing = packing_of(path)
        utf8 = form.encoding.lower().replace("_", "-") in ("utf-8", "utf8", "utf-8-sig", "ascii")
        if utf8 and normal and packing in self.read_directly:
            return path
        copy = self.scratch / f"plain-{self._number}"
        self._number += 1
        try:
            with open_packed(path) as raw, open(copy, "w", encoding="utf-8", errors="surrogateescape") as out:
                # surrogateescape keeps an undecodable byte, so that DuckDB names its line
                encoding = "utf-8-sig" if utf8 else form.encoding
                text = io.TextIOWrapper(raw, encoding=encoding, errors="surrogateescape")
                shutil.copyfileobj(text, out, 1 << 20)
        except UnicodeError as error:
            raise DataError(
                f"{path}: not whole in {form.encoding} ({error}); get the file again, or name the right encoding "
                "(format.encoding)"
            ) from error
        except (OSError, EOFError, lzma.LZMAError, ValueError) as error:
            if packing == "gzip":
                raise DataError(f"{path}: {DAMAGED}") from error
            raise DataError(f"cannot read {path}: {error}; is the file whole?") from error
        return copy

    def _report_rejects(self, part: Part, scan: Scan, form: Format, bad: BadRows) -> None:
        if not scan.rejects:
            return
        rows = self.database.sql(
            f"SELECT line_byte_position, any_value(error_type), any_value(error_message), any_value(column_name) "
            f"FROM {scan.rejects} GROUP BY 1 ORDER BY 1"
        ).fetchall()
        if not rows:
            return
        quotes = [row for row in rows if row[1] == "UNQUOTED VALUE"]
        if quotes:  # where such a row ends is not known, so nothing after it can be trusted
            way_out = "mend the line, or, where cells are never quoted, write format: {quote: ''}"
            raise DataError(
                f"{part.path}:{line_at(scan.file, quotes[0][0] - 1)}: a {form.quote} opens a cell and is not closed "
                f"before its end; {way_out if bad.way_out == WAY_OUT else bad.way_out}"
            )
        if len(rows) >= MOST_REJECTED:
            raise DataError(f"{part.path}: over a million lines cannot be read; is the format right?")
        first = rows[0]
        line = line_at(scan.file, first[0] - 1)
        bad.report(part.path, line, trouble_of(first[1], first[2]), len(rows))


def _without_troubles(
    part: Part, scan: Scan, numbers: np.ndarray, batch: Any, bad: BadRows
) -> tuple[np.ndarray, Any]:
    """The rows of JSON lines that hold an object; empty lines vanish, others are reported."""
    if not scan.troubles:
        return numbers, batch
    import pyarrow as pa

    troubles = batch.column("trouble")
    batch = batch.drop_columns(["trouble"])
    if troubles.null_count == len(troubles):
        return numbers, batch
    for place, trouble in enumerate(troubles.to_pylist()):
        if trouble:
            bad.report(part.path, int(numbers[place]) + 1, trouble)
    good = np.flatnonzero(troubles.is_null().to_numpy(zero_copy_only=False))
    return numbers[good], batch.take(pa.array(good))


def _trouble_sql(chosen: Sequence[str]) -> str:
    nested = " OR ".join(f"k{i} = '{_NEVER}'" for i in range(len(chosen))) or "false"
    return (
        "CASE WHEN line IS NULL OR trim(line) = '' THEN '' WHEN doc IS NULL THEN 'not JSON' "
        f"WHEN json_type(doc) <> 'OBJECT' THEN 'no JSON object' WHEN {nested} "
        "THEN 'a list or an object where a field needs one value' END"
    )


def _positions(part: Part, names: Sequence[str], columns: Sequence[str], form: Format) -> list[int]:
    for name in columns:
        if name not in names:
            hint = ""
            if part.kind == "text" and len(names) == 1:
                hint = f"; is the delimiter {form.delimiter_of(part.path)!r}? (format.delimiter)"
            raise DataError(f"{part.path}: no column '{name}' {nearest(name, names)}{hint}")
        if names.count(name) > 1:
            raise DataError(
                f"{part.path}: column '{name}' is there {names.count(name)} times; names must differ"
            )
    return [names.index(name) for name in columns]


def _one_batch(table: Any, names: Sequence[str]) -> Any:
    return table.combine_chunks().rename_columns(list(names)).to_batches()[0]


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
