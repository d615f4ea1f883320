"""Tables of users and items of their own, joined to the rows by key."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ondevice.data.arrow import canonical, plain_values, unpacked
from ondevice.data.parts import BadRows, Part, find_parts, line_of
from ondevice.data.read import Engine
from ondevice.data.sources import say
from ondevice.data.spec import SideTable, TableSpec
from ondevice.errors import DataError, nearest


class Joined:
    """The rows of a table with the columns that other tables hold, read batch by batch.

    A column that the table itself lacks comes from the one other table that has it. Rows keep their order; what is
    looked up is the keys of one batch at a time, so a table of any size is joined to rows of any number.

    Args:
        engine: reads all of them.
        spec: what the columns mean, and where the other tables are.
        parts: the files of the rows.
        bad: counts rows that cannot be used.
        columns: those wanted.

    Raises: UserError: when a table cannot be read, has a key twice, or no table has a column.
    """

    def __init__(
        self, engine: Engine, spec: TableSpec, parts: Sequence[Part], bad: BadRows, columns: Sequence[str]
    ) -> None:
        self.engine, self.spec, self.bad, self.columns = engine, spec, bad, list(columns)
        self.database = engine.cursor()  # while rows are read, their connection is taken
        self.sides: dict[str, list[str]] = {}
        self._seen = self._first = 0
        self._missing = dict.fromkeys(spec.tables, 0)
        main = engine.names(parts[0], spec.format) if spec.tables else list(columns)
        of_table = {name: self._names(side) for name, side in spec.tables.items()}
        for column in columns:
            if column in main:
                continue
            holders = [name for name, names in of_table.items() if column in names]
            if len(holders) > 1:
                raise DataError(
                    f"column '{column}' is in the tables {' and '.join(holders)}; rename one of them"
                )
            if not holders:
                everywhere = [*main, *(name for names in of_table.values() for name in names)]
                raise DataError(f"{parts[0].path}: no column '{column}' {nearest(column, everywhere)}")
            self.sides.setdefault(holders[0], []).append(column)
        taken = {column for names in self.sides.values() for column in names}
        self.main_columns = [column for column in columns if column not in taken]
        for name in self.sides:
            self._load(name)

    def batches(self, part: Part) -> Iterator[tuple[np.ndarray, Any]]:
        """As `Engine.batches`, with the columns of the other tables."""
        import pyarrow as pa

        for numbers, batch in self.engine.batches(part, self.main_columns, self.spec.format, self.bad):
            if not self.sides:
                yield numbers, batch
                continue
            taken = {name: batch.column(name) for name in self.main_columns}
            self._seen += len(numbers)
            for name, columns in self.sides.items():
                key = self.spec.field(self.spec.tables[name].key)
                keys, _ = canonical(key, batch.column(key.source_column), self._absent, str(part.path))
                for column, values in zip(columns, self._look_up(name, keys), strict=True):
                    taken[column] = values
            yield numbers, pa.record_batch({name: taken[name] for name in self.columns})

    def tell(self) -> None:
        """Say how many rows had no partner."""
        for name, missing in self._missing.items():
            if missing:
                side = self.spec.tables[name]
                say(
                    f"{self.spec.schema.name}: {missing} of {self._seen} rows ({missing / self._seen:.1%}) have a "
                    f"'{side.key}' that {side.path} lacks; what it would say is missing there"
                )

    def items(self) -> tuple[list[dict[str, Any]], dict[Any, str]]:
        """Each row of the table whose key names the item: key and fields by name, and its title by key."""
        key = self.spec.schema.item_key
        name = next((n for n in self.sides if self.spec.tables[n].key == key), None)
        if name is None:
            return [], {}
        columns = self.sides[name]
        rows = self.database.sql(f'SELECT * FROM "side {name}"').fetchall()
        fields = [field for field in self.spec.schema.columns if field.source_column in columns]
        places = {field: 1 + columns.index(field.source_column) for field in fields}
        items = [
            {
                key: row[0],
                **{f.name: unpacked(row[at]) if f.slots > 1 else row[at] for f, at in places.items()},
            }
            for row in rows
        ]
        title = self.spec.title
        titles = {row[0]: row[1 + columns.index(title)] or "" for row in rows} if title in columns else {}
        return items, titles

    @property
    def _absent(self) -> frozenset[str]:
        return frozenset(self.spec.format.missing)

    def _names(self, side: SideTable) -> list[str]:
        names = self.engine.names(find_parts(side.path)[0], side.format)
        column = side.key_column(self.spec)
        if column not in names:
            raise DataError(
                f"{side.path}: no column '{column}' {nearest(column, names)} (tables: key, column)"
            )
        return [name for name in names if name != column]

    def _load(self, name: str) -> None:
        """The key and the wanted columns of a table, as canonical keys, in a table of the engine."""
        import pyarrow as pa

        side, columns = self.spec.tables[name], self.sides[name]
        wanted = [side.key_column(self.spec), *columns]
        database, table = self.database, f'"side {name}"'
        absent = frozenset(side.format.missing)
        made = False
        for part in find_parts(side.path):
            for numbers, batch in self.engine.batches(part, wanted, side.format, self.bad):
                arrays, wrong = [], {}
                for place, column in enumerate(wanted):
                    field = self.spec.field(side.key) if place == 0 else self.spec.field_of(column)
                    self._check_one_reading(side, column)
                    where = f"{part.path}: column '{column}'"
                    if field is None:
                        texts = plain_values(batch.column(column), where)
                        arrays.append(pa.array([None if t is None else str(t) for t in texts], pa.string()))
                        continue
                    array, more = canonical(field, batch.column(column), absent, where)
                    arrays.append(array)
                    wrong.update(more)
                if wrong:
                    first = min(wrong)
                    line = line_of(part, wanted, side.format, int(numbers[first]))
                    self.bad.report(part.path, line, wrong[first], len(wrong))
                keep = ~np.isin(np.arange(len(numbers)), list(wrong)) & arrays[0].is_valid().to_numpy(False)
                loaded = pa.table({f"c{i}": array for i, array in enumerate(arrays)}).filter(pa.array(keep))
                database.register("loaded", loaded)
                start = f"INSERT INTO {table}" if made else f"CREATE TABLE {table} AS"
                database.execute(f"{start} SELECT * FROM loaded").fetchall()
                database.unregister("loaded")
                made = True
        if not made:
            raise DataError(f"{side.path}: holds no rows; the file is empty or cut short")
        twice = database.sql(
            f"SELECT c0 FROM {table} GROUP BY c0 HAVING count(*) > 1 ORDER BY c0 LIMIT 1"
        ).fetchall()
        if twice:
            raise DataError(
                f"{side.path}: {wanted[0]} {twice[0][0]!r} is there more than once; keep one row for each"
            )

    def _check_one_reading(self, side: SideTable, column: str) -> None:
        """Refuse a column that one field reads as several values and another otherwise: it is kept as one of them."""
        readers = [f for f in self.spec.schema.columns if f.source_column == column]
        if len(readers) > 1 and any(reader.slots > 1 for reader in readers):
            names = " and ".join(f"'{reader.name}'" for reader in readers)
            raise DataError(
                f"{side.path}: column '{column}' is read by {names}, one with several values; copy the column"
            )

    def _look_up(self, name: str, keys: Any) -> list[Any]:
        """The columns of a table for keys (n,), null where it has none."""
        import pyarrow as pa

        encoded = keys.dictionary_encode()
        asked = pa.table({"place": pa.array(np.arange(len(encoded.dictionary))), "key": encoded.dictionary})
        database = self.database
        database.register("asked", asked)
        wanted = ", ".join(f"c{i + 1}" for i in range(len(self.sides[name])))
        partners = (
            database.sql(
                f'SELECT c0 IS NULL AS absent, {wanted} FROM asked LEFT JOIN "side {name}" ON key = c0 ORDER BY place'
            )
            .to_arrow_table()
            .combine_chunks()
        )
        database.unregister("asked")
        columns = [column.combine_chunks() for column in partners.itercolumns()]
        taken = [column.take(encoded.indices) for column in columns]
        self._missing[name] += int(np.count_nonzero(taken[0].fill_null(True).to_numpy(zero_copy_only=False)))
        return taken[1:]
