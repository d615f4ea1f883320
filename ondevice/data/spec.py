"""A table's YAML file: the schema, and what only the reader needs."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ondevice.data.parts import Format
from ondevice.data.schema import Field, Schema, check_keys, made, read_yaml
from ondevice.data.splits import KINDS
from ondevice.errors import ConfigError, DataError, nearest

SECTIONS = ("split", "format", "title", "weight", "tables")  # of the file, beside the schema


@dataclass(frozen=True)
class Split:
    """The ``split`` section: how rows are divided when the options do not say otherwise.

    Args:
        kind: ``random``, ``temporal`` (the oldest rows train) or ``leave_last_out`` (each user's last row tests,
            the one before it validates).
        time: column with a number or a date; needed by the last two.
        time_format: of strptime, for dates that are not as ISO 8601 writes them.
        fractions: of train, valid and test.
        group: fields; rows that are equal in all of them stay together in a random split.
        user: the field whose rows ``leave_last_out`` divides.
    """

    kind: str = "random"
    time: str | None = None
    time_format: str | None = None
    fractions: Sequence[float] = (0.8, 0.1, 0.1)
    group: Sequence[str] = ()
    user: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise DataError(f"split.kind: '{self.kind}' is unknown {nearest(str(self.kind), KINDS)}")
        for name in ("time", "time_format", "user"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, str):
                raise DataError(f"split.{name} must be a text, got {value!r}")
        group = (self.group,) if isinstance(self.group, str) else self.group
        if not isinstance(group, Sequence):
            raise DataError(f"split.group must be a list of fields, got {group!r}")
        object.__setattr__(self, "group", tuple(group))


@dataclass(frozen=True)
class SideTable:
    """One of the ``tables``: what is known of users, or of items, a row for each.

    Args:
        path: a file, a folder, a pattern or a list of them; beside the YAML file, if it is relative.
        key: the field by which it is joined.
        column: the key's column there; None: called as the field's.
        format: how its text files are written.
    """

    path: Any
    key: str
    column: str | None = None
    format: Format = field(default_factory=Format)

    def key_column(self, spec: TableSpec) -> str:
        """The name of the key in this table."""
        return self.column if self.column is not None else spec.field(self.key).source_column


@dataclass(frozen=True)
class Computed:
    """What the code of a data set makes of a table's columns.

    Args:
        columns: further columns by name: the column that each is made of, and what each of its texts becomes (an
            integer, a text or None); a ValueError says why a text cannot be read.
        ties: columns of whole numbers that order rows of equal time, under a temporal split.
        items: gives further items for the catalog, once all rows are read: their rows, and titles by key.
    """

    columns: Mapping[str, tuple[str, Callable[[Any], Any]]] = field(default_factory=dict)
    ties: Sequence[str] = ()
    items: Callable[[], tuple[list[dict[str, Any]], dict[Any, str]]] | None = None


@dataclass(frozen=True)
class TableSpec:
    """What a table's columns mean and how its files are written.

    Args:
        schema: fields and label rule.
        split: how rows are divided.
        format: how text files are written.
        title: column with a title for people, kept for the catalog.
        weight: column with what a row counts in losses and metrics.
        tables: further tables, joined by key.
        computed: what the code of a data set adds; nothing of it stands in a YAML file.
    """

    schema: Schema
    split: Split = field(default_factory=Split)
    format: Format = field(default_factory=Format)
    title: str | None = None
    weight: str | None = None
    tables: Mapping[str, SideTable] = field(default_factory=dict)
    computed: Computed = field(default_factory=Computed)

    @classmethod
    def from_yaml(cls, path: str | os.PathLike[str], tables: Mapping[str, Any] | None = None) -> TableSpec:
        """Read and check a file. Raises UserError for a key that is unknown, missing, or there twice.

        Args:
            path: of the file.
            tables: where further tables are, if not where the file says.
        """
        spec = cls.from_dict(read_yaml(path), str(path))
        for name in tables or {}:
            if name not in spec.tables:
                raise ConfigError(f"data.tables: {path} has no table '{name}' {nearest(name, spec.tables)}")
        places = {name: _beside(Path(path), side.path) for name, side in spec.tables.items()} | dict(
            tables or {}
        )
        located = {name: dataclasses.replace(side, path=places[name]) for name, side in spec.tables.items()}
        return dataclasses.replace(spec, tables=located)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "schema") -> TableSpec:
        """The same from a mapping."""
        schema = Schema.from_dict({k: v for k, v in values.items() if k not in SECTIONS}, where)
        sections: dict[str, Any] = {}
        for name, kind in (("split", Split), ("format", Format)):
            sections[name] = made(kind, values.get(name, {}), f"{where}.{name}", where)
        for name in ("title", "weight"):
            sections[name] = values.get(name)
            if sections[name] is not None and not isinstance(sections[name], str):
                raise DataError(f"{where}: {name} must be a column name, got {sections[name]!r}")
        if sections["title"] is not None and schema.item_key is None:
            raise DataError(
                f"{where}: title belongs to an item; set item_key to the field that names an item"
            )
        split: Split = sections["split"]
        for name in (*split.group, *([split.user] if split.user is not None else [])):
            if name not in schema.names and name != schema.user_key:
                raise DataError(f"{where}: split: '{name}' is not a field {nearest(str(name), schema.names)}")
            if not schema.named(name).names_values:
                raise DataError(f"{where}: split: '{name}' must have one value of kind integer or string")
        if None not in (split.user, schema.user_key) and split.user != schema.user_key:
            raise DataError(f"{where}: split.user '{split.user}' and user_key '{schema.user_key}'; keep one")
        tables = values.get("tables", {})
        if not isinstance(tables, Mapping):
            raise DataError(f"{where}.tables: must be a mapping of names to tables, got {tables!r}")
        sections["tables"] = {
            name: _side(schema, f"{where}.tables.{name}", each) for name, each in tables.items()
        }
        return cls(schema, **sections)

    def field(self, name: str) -> Field:
        """The field of a name."""
        return self.schema.named(name)

    def field_of(self, column: str) -> Field | None:
        """A field that is read from a column, if one is."""
        return next((each for each in self.schema.columns if each.source_column == column), None)

    @property
    def list_columns(self) -> list[str]:
        """Columns in which a row may have a list of values."""
        return [field.source_column for field in self.schema.columns if field.slots > 1]

    @property
    def user(self) -> str | None:
        """The field, or the ``user_key``, that says whose row it is, where one does."""
        return self.schema.user_key or self.split.user or self.schema.label.context_key

    def to_dict(self) -> dict[str, Any]:
        """JSON-able values; `from_dict` makes the same of them."""
        return {
            **self.schema.to_dict(),
            "split": {**dataclasses.asdict(self.split), "group": list(self.split.group)},
            "format": dataclasses.asdict(self.format),
            "title": self.title,
            "weight": self.weight,
            "tables": {name: dataclasses.asdict(side) for name, side in self.tables.items()},
        }

    def meaning(self) -> dict[str, Any]:
        """`to_dict` without where further tables are: the same table means the same anywhere."""
        values = self.to_dict()
        for side in values["tables"].values():
            del side["path"]
        return values

    def needed(self, timed: bool) -> list[str]:
        """Columns to read, in a fixed order."""
        extra = [
            self.schema.label.column,
            self.title,
            self.split.time if timed else None,
            self.weight,
            *(self.computed.ties if timed else ()),
        ]
        wanted = [field.source_column for field in self.schema.columns] + [c for c in extra if c is not None]
        made = self.computed.columns
        return list(dict.fromkeys(made[name][0] if name in made else name for name in wanted))


def _side(schema: Schema, where: str, values: Any) -> SideTable:
    check_keys(SideTable, values, where)
    form = made(Format, values.get("format", {}), f"{where}.format", where)
    if values["key"] not in schema.names and values["key"] != schema.user_key:
        raise DataError(
            f"{where}.key: '{values['key']}' is not a field {nearest(str(values['key']), schema.names)}"
        )
    if not schema.named(values["key"]).names_values:
        raise DataError(f"{where}.key: '{values['key']}' must have one value of kind integer or string")
    return SideTable(**{**values, "format": form})


def _beside(file: Path, place: Any) -> Any:
    """A path that stands in a YAML file: relative ones are beside it."""
    if isinstance(place, (list, tuple)):
        return [_beside(file, each) for each in place]
    if not isinstance(place, (str, os.PathLike)):
        return place  # `find_parts` says what is wrong with it
    return str((file.parent / Path(place).expanduser()).resolve())
