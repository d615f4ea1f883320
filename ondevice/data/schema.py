"""What a data set's columns mean: fields and their canonical keys, the label rule, the item side."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ondevice.data.field import Field, is_number, is_whole, log_bucket, number_of
from ondevice.data.slots import Slots
from ondevice.errors import DataError, UserError, nearest

__all__ = ["Field", "Label", "Schema", "check_keys", "log_bucket", "number_of", "read_yaml"]

SAMPLINGS = ("uniform", "popularity")


@dataclass(frozen=True)
class Label:
    """How a row becomes a label of 0 or 1.

    Four forms: a column of 0 and 1 (``column`` alone); a rating, positive when it is above
    ``positive_above``; texts, of which ``positive`` and ``negative`` list those of each class; every row positive
    (``positive_only``), with ``negatives`` sampled items per row.

    Args:
        column: the label's column; absent with ``positive_only``.
        positive_above: ratings above it are positive, the others negative; None: the column is 0/1.
        positive: texts of the column that are positive.
        negative: texts that are negative; none: all others.
        drop: rows with one of these values are left out.
        minimum: smallest value allowed in the column.
        maximum: largest value allowed in the column.
        positive_only: every row is an interaction that happened.
        negatives: sampled negatives per positive row.
        sampling: ``uniform`` over the items of the training split, or by their ``popularity`` there.
        context_key: the context field that says whose interaction it is; a sampled pair of it and an item
            is never a positive of any split.
    """

    column: str | None = None
    positive_above: float | None = None
    drop: tuple[float | str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    positive_only: bool = False
    negatives: int = 0
    sampling: str = "uniform"
    context_key: str | None = None
    positive: tuple[str, ...] = ()
    negative: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.positive_only, bool):
            raise DataError(f"label: positive_only must be true or false, got {self.positive_only!r}")
        for option in ("positive", "negative"):
            texts = getattr(self, option)
            if not isinstance(texts, (list, tuple)):
                raise DataError(f"label: {option} must be a list of texts, got {texts!r}")
            object.__setattr__(self, option, tuple(_text(value) for value in texts))
        if (self.negative and not self.positive) or set(self.positive) & set(self.negative):
            raise DataError("label: positive and negative list texts, positive at least one, none in both")
        if self.positive and isinstance(self.drop, (list, tuple)):
            object.__setattr__(self, "drop", tuple(_text(value) for value in self.drop))
        elif isinstance(self.drop, (list, tuple)) and all(is_number(value) for value in self.drop):
            object.__setattr__(self, "drop", tuple(float(value) for value in self.drop))
        else:
            raise DataError(f"label: drop must be a list of numbers, got {self.drop!r}")
        for option in ("positive_above", "minimum", "maximum"):
            value = getattr(self, option)
            if value is not None and not is_number(value):
                raise DataError(f"label: {option} must be a number, got {value!r}")
            if value is not None and self.positive:
                raise DataError(f"label: {option} is for numbers; remove it, or positive")
        if self.sampling not in SAMPLINGS:
            raise DataError(
                f"label: sampling '{self.sampling}' is unknown {nearest(self.sampling, SAMPLINGS)}"
            )
        if self.positive_only:
            if self.column is not None or self.positive_above is not None or self.drop or self.positive:
                raise DataError(
                    "label: positive_only takes every row as a positive; remove column, positive_above, drop"
                )
            if not is_whole(self.negatives) or self.negatives < 1:
                raise DataError(f"label: positive_only needs negatives of at least 1, got {self.negatives!r}")
            if self.context_key is None:
                raise DataError(
                    "label: positive_only needs context_key, the field that names whose interaction it is"
                )
        elif not isinstance(self.column, str) or not self.column:
            raise DataError("label: name the column (column: ...), or write positive_only: true")
        elif self.negatives != 0 or self.context_key is not None:
            raise DataError("label: negatives and context_key belong to positive_only: true")

    def parse(self, raw: Any) -> int | None:
        """1, 0, or None for a row to drop. Raises ValueError, saying why, for a value outside the rule."""
        if self.positive:
            return self._of_text(raw)
        if isinstance(raw, str) and raw.strip().lower() in ("true", "false"):
            raw = raw.strip().lower() == "true"
        number = number_of(raw)
        if number is None and (raw is None or raw == ""):
            raise ValueError(f"label '{self.column}' is missing")
        if number is None:
            hint = " (for texts, set label.positive)" if isinstance(raw, str) and raw else ""
            raise ValueError(f"label '{self.column}' is not a number: {raw!r}{hint}")
        if number in self.drop:
            return None
        low, high = self.minimum, self.maximum
        if (low is not None and number < low) or (high is not None and number > high):
            raise ValueError(f"label '{self.column}' is {raw!r}, outside {low} to {high}")
        if self.positive_above is not None:
            return int(number > self.positive_above)
        if number not in (0.0, 1.0):
            raise ValueError(
                f"label '{self.column}' is {raw!r}, not 0 or 1 (for ratings, set label.positive_above)"
            )
        return int(number)

    def _of_text(self, raw: Any) -> int | None:
        text = "" if raw is None else _text(raw)
        if text in self.drop:
            return None
        if text in self.positive:
            return 1
        if text in self.negative or (text and not self.negative):
            return 0
        raise ValueError(
            f"label '{self.column}' is {raw!r}, in neither list; add it to label.positive, negative or drop"
        )


def _text(value: Any) -> str:
    """A label as the text that a table has for it; YAML reads yes and true as booleans, 1 as a number."""
    return str(value).strip().lower() if isinstance(value, bool) else str(value).strip()


@dataclass(frozen=True)
class Schema:
    """The fields of a data set in the order of a row of ids, its label rule, and what names an item and a user.

    Args:
        name: of the data set.
        fields: in the order of a row of ids.
        label: how a row becomes a label.
        item_key: the field that names an item.
        user_key: the field, or the column that no field reads, that says whose row it is: histories are made by it.
    """

    name: str
    fields: tuple[Field, ...]
    label: Label
    item_key: str | None = None
    user_key: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "fields", tuple(self.fields))
        where = f"schema '{self.name}'"
        if not isinstance(self.name, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", self.name):
            raise DataError(f"a schema's name may hold letters, digits, '.', '_' and '-', got {self.name!r}")
        if not self.fields:
            raise DataError(f"{where}: needs at least one field")
        names = self.names
        for name in names:
            if names.count(name) > 1:
                raise DataError(
                    f"{where}: field '{name}' is there {names.count(name)} times; names must differ"
                )
        sides = {field.name: field.side for field in self.fields}
        for option, key, side in (
            ("item_key", self.item_key, "item"),
            ("label.context_key", self.label.context_key, "context"),
        ):
            if key == self.user_key and key not in sides and side == "context":
                continue
            if key is not None and sides.get(key) != side:
                allowed = [n for n in names if sides[n] == side]
                raise DataError(
                    f"{where}: {option} '{key}' is not a field of side {side} {nearest(str(key), allowed)}"
                )
        for option, key in (
            ("item_key", self.item_key),
            ("label.context_key", self.label.context_key),
            ("user_key", self.user_key),
        ):
            if key is not None and (not isinstance(key, str) or not self.named(key).names_values):
                raise DataError(f"{where}: {option} '{key}' must have one value of kind integer or string")
        if self.label.positive_only and self.item_key is None:
            raise DataError(
                f"{where}: positive_only samples items; set item_key to the field that names an item"
            )
        self._check_histories(where)

    def _check_histories(self, where: str) -> None:
        allowed = [field.name for field in self.fields if field.side == "item" and field.names_values]
        for field in self.histories:
            if field.of not in allowed:
                raise DataError(
                    f"{where}: field '{field.name}': of '{field.of}' is no field of side item that has one value of "
                    f"kind integer or string {nearest(str(field.of), allowed)}"
                )
        if len({field.of for field in self.histories}) > 1:
            raise DataError(f"{where}: histories of several fields; keep those of one")

    @property
    def names(self) -> tuple[str, ...]:
        """Field names in order."""
        return tuple(field.name for field in self.fields)

    @property
    def histories(self) -> tuple[Field, ...]:
        """The fields that are made of earlier rows."""
        return tuple(field for field in self.fields if field.is_history)

    @property
    def num_gaps(self) -> int:
        """Columns of time gaps that a program reads after those of the context: a history's slots, or 0."""
        return sum(field.slots for field in self.histories if field.gaps is not None)

    @property
    def columns(self) -> tuple[Field, ...]:
        """What is read of a source, a column each: all fields but histories, and what names a user."""
        read = [field for field in self.fields if not field.is_history]
        if self.user_key is not None and self.user_key not in self.names:
            read.append(self.named(self.user_key))
        return tuple(read)

    @property
    def stored(self) -> tuple[Field, ...]:
        """The fields, and after them what names a user where no field does."""
        return (*self.fields, *(field for field in self.columns if field not in self.fields))

    def named(self, name: str) -> Field:
        """The field of a name; for a ``user_key`` that is none, what reads its column."""
        field = next((each for each in self.fields if each.name == name), None)
        return Field(name, "context", "string") if field is None else field

    @property
    def context_fields(self) -> tuple[int, ...]:
        """Positions of the fields that are known once per request."""
        return tuple(i for i, field in enumerate(self.fields) if field.side == "context")

    @property
    def item_fields(self) -> tuple[int, ...]:
        """Positions of the fields that differ per candidate."""
        return tuple(i for i, field in enumerate(self.fields) if field.side == "item")

    @property
    def slots(self) -> Slots:
        """The columns of a row of ids."""
        return Slots(
            tuple(field.slots for field in self.fields),
            tuple(field.pooling if field.pools else None for field in self.fields),
            tuple(self.names.index(field.of or field.name) for field in self.fields),
        )

    @property
    def context_columns(self) -> tuple[int, ...]:
        """Columns, of a row of ids, of the context's fields."""
        return self.slots.of(self.context_fields)

    @property
    def item_columns(self) -> tuple[int, ...]:
        """Columns, of a row of ids, of the item's fields."""
        return self.slots.of(self.item_fields)

    def to_dict(self) -> dict[str, Any]:
        """The schema as JSON-able values; `from_dict` gives the same schema back."""
        label = {**dataclasses.asdict(self.label), "drop": list(self.label.drop)}
        for name in ("positive", "negative"):
            label[name] = list(label[name])
        return {
            "name": self.name,
            "fields": [_described(field) for field in self.fields],
            "label": {k: v for k, v in label.items() if v or k not in ("positive", "negative")},
            "item_key": self.item_key,
            **({"user_key": self.user_key} if self.user_key is not None else {}),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "schema") -> Schema:
        """The schema in a mapping as `to_dict` writes it; defaults may be absent, unknown keys not."""
        check_keys(cls, values, where)
        if not isinstance(values["fields"], Sequence) or isinstance(values["fields"], str):
            raise DataError(
                f"{where}.fields: must be a list of fields, got {type(values['fields']).__name__}"
            )
        fields = []
        for position, field in enumerate(values["fields"]):
            name = field.get("name", position) if isinstance(field, Mapping) else position
            place = f"{where}.fields[{name}]"
            fields.append(made(Field, field, place, place))
        label = made(Label, values["label"], f"{where}.label", where)
        keys = (values.get("item_key"), values.get("user_key"))
        with at(where):
            return cls(values["name"], tuple(fields), label, *keys)


def _described(field: Field) -> dict[str, Any]:
    """A field's values; ``missing`` only where it is set, so that fingerprints outlive its invention."""
    values = field.to_dict()
    return values if values["missing"] is not None else {k: v for k, v in values.items() if k != "missing"}


def read_yaml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The mapping in a YAML file; a key given twice is refused, where YAML would keep the last.

    Raises: UserError: when the file is absent, not YAML, or not a mapping.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        pass

    def mapping(loader: Any, node: Any) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = loader.construct_object(key_node, deep=True)
            if isinstance(key, (str, int, float, bool)) and key in seen:
                raise DataError(
                    f"{path}:{key_node.start_mark.line + 1}: key '{key}' is there twice; keep one"
                )
            seen.add(key if isinstance(key, (str, int, float, bool)) else id(key_node))
        return dict(loader.construct_pairs(node, deep=True))

    Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(
            f"data.schema: cannot read {path}: {reason}; give the path of a YAML file, from the folder of this command"
        ) from error
    try:
        values = yaml.load(text, Loader)
    except yaml.YAMLError as error:
        raise DataError(f"{path}: not YAML: {error}") from error
    if not isinstance(values, dict):
        raise DataError(
            f"{path}: must hold a mapping with name, fields and label, got {type(values).__name__}"
        )
    return values


def check_keys(kind: type, values: Any, where: str) -> None:
    """Refuse what is not a mapping, a key that ``kind`` does not know, and a missing one without default."""
    if not isinstance(values, Mapping):
        raise DataError(f"{where}: must be a mapping, got {type(values).__name__}")
    options = {option.name: option for option in dataclasses.fields(kind)}
    for key in values:
        if key not in options:
            raise DataError(f"{where}: unknown key '{key}' {nearest(str(key), options)}")
    for name, option in options.items():
        if name in values or option.default_factory is not dataclasses.MISSING:
            continue
        if option.default is dataclasses.MISSING:
            raise DataError(f"{where}: '{name}' is missing")


@contextlib.contextmanager
def at(where: str) -> Iterator[None]:
    """A UserError raised inside says ``where`` first."""
    try:
        yield
    except UserError as error:
        raise DataError(f"{where}: {error}") from error


def made(kind: type[Any], values: Any, section: str, where: str) -> Any:
    """What ``kind`` makes of a section's values; a wrong key is named in the section, a wrong value by ``where``."""
    check_keys(kind, values, section)
    with at(where):
        return kind(**values)
