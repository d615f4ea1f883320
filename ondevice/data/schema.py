"""What a data set's columns mean: fields and their canonical keys, the label rule, the item side."""

from __future__ import annotations

import dataclasses
import math
import numbers
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ondevice.errors import UserError, nearest

SIDES = ("context", "item")
KINDS = ("integer", "string")
TRANSFORMS = ("log_bucket",)
SAMPLINGS = ("uniform", "popularity")
TABLE_SECTIONS = ("split", "format", "title")  # parts of a table's YAML file that are not the schema

_INTEGER = re.compile(r"\s*([+-]?[0-9]+)(?:\.0*)?\s*")
_SMALLEST, _LARGEST = -(2**63), 2**63 - 1


def log_bucket(value: float) -> int:
    """Bucket of a count or a duration: floor(ln(value)^2) above 2, else 1.

    The rule of the winners of the Criteo display advertising challenge.
    """
    return math.floor(math.log(value) ** 2) if value > 2 else 1


@dataclass(frozen=True)
class Field:
    """One column of an interaction, as the model sees it.

    Args:
        name: the name that raw rows use.
        side: ``context`` (what is known once per request) or ``item`` (what differs per candidate).
        kind: type of the canonical key, ``integer`` or ``string``.
        column: name in the source; the field's name when absent.
        transform: ``log_bucket`` turns a number into the integer key `log_bucket` (number - origin).
        origin: what ``log_bucket`` subtracts; None means the smallest value of the training split.
        min_count: values rarer than this in the training split share the unknown id.
    """

    name: str
    side: str
    kind: str
    column: str | None = None
    transform: str | None = None
    origin: float | None = 0.0
    min_count: int = 1

    def __post_init__(self) -> None:
        where = f"field '{self.name}'"
        if not isinstance(self.name, str) or not self.name:
            raise UserError(f"a field's name must be a non-empty text, got {self.name!r}")
        for option, value, allowed in (("side", self.side, SIDES), ("kind", self.kind, KINDS)):
            if value not in allowed:
                raise UserError(f"{where}: {option} '{value}' is unknown {nearest(value, allowed)}")
        if self.column is not None and (not isinstance(self.column, str) or not self.column):
            raise UserError(f"{where}: column must be a non-empty text, got {self.column!r}")
        if self.transform is not None and self.transform not in TRANSFORMS:
            raise UserError(
                f"{where}: transform '{self.transform}' is unknown {nearest(self.transform, TRANSFORMS)}"
            )
        if self.transform is not None and self.kind != "integer":
            raise UserError(f"{where}: transform '{self.transform}' makes integer keys; write kind: integer")
        if self.transform is None and self.origin != 0:
            raise UserError(f"{where}: origin has no meaning without a transform; remove it")
        if self.origin is not None and (not _is_number(self.origin) or not math.isfinite(self.origin)):
            raise UserError(f"{where}: origin must be a finite number or null, got {self.origin!r}")
        if not isinstance(self.min_count, int) or isinstance(self.min_count, bool) or self.min_count < 1:
            raise UserError(
                f"{where}: min_count must be a whole number of at least 1, got {self.min_count!r}"
            )

    @property
    def source_column(self) -> str:
        """The column's name in the source."""
        return self.column if self.column is not None else self.name

    def key(self, raw: Any) -> int | str | None:
        """Canonical key of a raw value; None stands for unknown (missing, unparsable, not a number).

        Integers: 25, 25.0, "25" and " 25 " are one key. Strings keep every character ("02138" is not
        2138); an empty string is a missing value.
        """
        if raw is None:
            return None
        if self.transform == "log_bucket":
            if self.origin is None:
                raise ValueError(
                    f"field '{self.name}': the origin is not known before a vocabulary is fitted"
                )
            number = number_of(raw)
            return None if number is None else log_bucket(number - self.origin)
        return _integer_key(raw) if self.kind == "integer" else _string_key(raw)

    def keys(self, raws: Sequence[Any]) -> list[int | str | None]:
        """Canonical keys of many raw values."""
        key = self.key
        return [key(raw) for raw in raws]

    def raw(self, key: int | str | None) -> int | float | str | None:
        """A raw value whose canonical key is ``key``."""
        if key is None or self.transform is None:
            return key
        assert self.origin is not None
        assert isinstance(key, int)
        middle = self.origin + math.exp(math.sqrt(key + 0.5))
        for candidate in (round(middle), middle, self.origin + math.exp(math.sqrt(key + 0.25))):
            if self.key(candidate) == key:
                return candidate
        raise ValueError(f"field '{self.name}': no number has the bucket {key}")


def number_of(raw: Any) -> float | None:
    """A finite number from a raw value, or None."""
    if isinstance(raw, (str, numbers.Real)):
        if isinstance(raw, str) and "_" in raw:  # float() takes 1_000 for 1000
            return None
        try:
            number = float(raw)
        except (ValueError, OverflowError):
            return None
        return number if math.isfinite(number) else None
    return None


def _integer_key(raw: Any) -> int | None:
    if isinstance(raw, numbers.Integral):
        value = int(raw)
    elif isinstance(raw, str):
        match = _INTEGER.fullmatch(raw)
        if match is None:
            return None
        value = int(match[1])
    elif isinstance(raw, numbers.Real) and math.isfinite(raw) and float(raw).is_integer():
        value = int(float(raw))
    else:
        return None
    return value if _SMALLEST <= value <= _LARGEST else None


def _string_key(raw: Any) -> str | None:
    if isinstance(raw, str):
        return str(raw) or None
    if isinstance(raw, numbers.Real) and not isinstance(raw, numbers.Integral):
        if not math.isfinite(raw):
            return None
        return str(int(float(raw))) if float(raw).is_integer() else repr(float(raw))
    return str(raw)


@dataclass(frozen=True)
class Label:
    """How a row becomes a label of 0 or 1.

    Three forms: a column of 0 and 1 (``column`` alone); a rating, positive when it is above
    ``positive_above``; every row positive (``positive_only``), with ``negatives`` sampled items per row.

    Args:
        column: the label's column; absent with ``positive_only``.
        positive_above: ratings above it are positive, the others negative; None: the column is 0/1.
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
    drop: tuple[float, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    positive_only: bool = False
    negatives: int = 0
    sampling: str = "uniform"
    context_key: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.positive_only, bool):
            raise UserError(f"label: positive_only must be true or false, got {self.positive_only!r}")
        if isinstance(self.drop, (list, tuple)) and all(_is_number(value) for value in self.drop):
            object.__setattr__(self, "drop", tuple(float(value) for value in self.drop))
        else:
            raise UserError(f"label: drop must be a list of numbers, got {self.drop!r}")
        for option in ("positive_above", "minimum", "maximum"):
            value = getattr(self, option)
            if value is not None and not _is_number(value):
                raise UserError(f"label: {option} must be a number, got {value!r}")
        if self.sampling not in SAMPLINGS:
            raise UserError(
                f"label: sampling '{self.sampling}' is unknown {nearest(self.sampling, SAMPLINGS)}"
            )
        whole = isinstance(self.negatives, int) and not isinstance(self.negatives, bool)
        if self.positive_only:
            if self.column is not None or self.positive_above is not None or self.drop:
                raise UserError(
                    "label: positive_only takes every row as a positive; remove column, positive_above, drop"
                )
            if not whole or self.negatives < 1:
                raise UserError(f"label: positive_only needs negatives of at least 1, got {self.negatives!r}")
            if self.context_key is None:
                raise UserError(
                    "label: positive_only needs context_key, the field that names whose interaction it is"
                )
        elif not isinstance(self.column, str) or not self.column:
            raise UserError("label: name the column (column: ...), or write positive_only: true")
        elif self.negatives != 0 or self.context_key is not None:
            raise UserError("label: negatives and context_key belong to positive_only: true")

    def parse(self, raw: Any) -> int | None:
        """1, 0, or None for a row to drop. Raises ValueError, saying why, for a value outside the rule."""
        if isinstance(raw, str) and raw.strip().lower() in ("true", "false"):
            raw = raw.strip().lower() == "true"
        number = number_of(raw)
        if number is None:
            raise ValueError(f"label '{self.column}' is not a number: {raw!r}")
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


@dataclass(frozen=True)
class Schema:
    """The fields of a data set in the order of a row of ids, its label rule, and what names an item."""

    name: str
    fields: tuple[Field, ...]
    label: Label
    item_key: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "fields", tuple(self.fields))
        where = f"schema '{self.name}'"
        if not isinstance(self.name, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", self.name):
            raise UserError(f"a schema's name may hold letters, digits, '.', '_' and '-', got {self.name!r}")
        if not self.fields:
            raise UserError(f"{where}: needs at least one field")
        names = self.names
        for name in names:
            if names.count(name) > 1:
                raise UserError(
                    f"{where}: field '{name}' is there {names.count(name)} times; names must differ"
                )
        sides = {field.name: field.side for field in self.fields}
        for option, key, side in (
            ("item_key", self.item_key, "item"),
            ("label.context_key", self.label.context_key, "context"),
        ):
            if key is not None and sides.get(key) != side:
                allowed = [n for n in names if sides[n] == side]
                raise UserError(
                    f"{where}: {option} '{key}' is not a field of side {side} {nearest(str(key), allowed)}"
                )
        if self.label.positive_only and self.item_key is None:
            raise UserError(
                f"{where}: positive_only samples items; set item_key to the field that names an item"
            )

    @property
    def names(self) -> tuple[str, ...]:
        """Field names in order."""
        return tuple(field.name for field in self.fields)

    @property
    def context_fields(self) -> tuple[int, ...]:
        """Positions of the fields that are known once per request."""
        return tuple(i for i, field in enumerate(self.fields) if field.side == "context")

    @property
    def item_fields(self) -> tuple[int, ...]:
        """Positions of the fields that differ per candidate."""
        return tuple(i for i, field in enumerate(self.fields) if field.side == "item")

    def to_dict(self) -> dict[str, Any]:
        """The schema as JSON-able values; `from_dict` gives the same schema back."""
        label = dataclasses.asdict(self.label)
        return {
            "name": self.name,
            "fields": [dataclasses.asdict(field) for field in self.fields],
            "label": {**label, "drop": list(self.label.drop)},
            "item_key": self.item_key,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "schema") -> Schema:
        """The schema in a mapping as `to_dict` writes it; defaults may be absent, unknown keys not."""
        check_keys(cls, values, where)
        if not isinstance(values["fields"], Sequence) or isinstance(values["fields"], str):
            raise UserError(
                f"{where}.fields: must be a list of fields, got {type(values['fields']).__name__}"
            )
        fields = []
        for position, field in enumerate(values["fields"]):
            name = field.get("name", position) if isinstance(field, Mapping) else position
            place = f"{where}.fields[{name}]"
            check_keys(Field, field, place)
            fields.append(_at(place, lambda field=field: Field(**field)))  # type: ignore[misc]
        check_keys(Label, values["label"], f"{where}.label")
        label = _at(where, lambda: Label(**values["label"]))
        return _at(where, lambda: cls(values["name"], tuple(fields), label, values.get("item_key")))

    @classmethod
    def from_yaml(cls, path: str | os.PathLike[str]) -> Schema:
        """The schema in a YAML file. The sections that only the table reader needs are left to it."""
        values = read_yaml(path)
        return cls.from_dict({k: v for k, v in values.items() if k not in TABLE_SECTIONS}, str(path))


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
                raise UserError(
                    f"{path}:{key_node.start_mark.line + 1}: key '{key}' is there twice; keep one"
                )
            seen.add(key if isinstance(key, (str, int, float, bool)) else id(key_node))
        return dict(loader.construct_pairs(node, deep=True))

    Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    try:
        values = yaml.load(text, Loader)
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not YAML: {error}") from error
    if not isinstance(values, dict):
        raise UserError(
            f"{path}: must hold a mapping with name, fields and label, got {type(values).__name__}"
        )
    return values


def check_keys(kind: type, values: Any, where: str) -> None:
    """Refuse what is not a mapping, a key that ``kind`` does not know, and a missing one without default."""
    if not isinstance(values, Mapping):
        raise UserError(f"{where}: must be a mapping, got {type(values).__name__}")
    options = {option.name: option for option in dataclasses.fields(kind)}
    for key in values:
        if key not in options:
            raise UserError(f"{where}: unknown key '{key}' {nearest(str(key), options)}")
    for name, option in options.items():
        if option.default is dataclasses.MISSING and name not in values:
            raise UserError(f"{where}: '{name}' is missing")


def _at(where: str, make: Callable[[], Any]) -> Any:
    """Call ``make``; a UserError it raises says ``where`` first."""
    try:
        return make()
    except UserError as error:
        raise UserError(f"{where}: {error}") from error


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
