"""JSON that others wrote: read strictly, and asked for entries by name and type."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any, NoReturn, TypeVar

from ondevice.errors import DamagedFile

MAX_DEPTH = 64  # levels of lists and objects in one another; the reader on the phone has the same limit
MAX_COUNT = 2**31 - 1

T = TypeVar("T")


def parse(content: bytes) -> Any:
    """RFC 8259 JSON in UTF-8: no NaN, no infinite number, no name twice in an object, at most 64 levels.

    Raises: ValueError: saying what is wrong.
    """
    try:
        value = json.loads(
            content.decode("utf-8"),
            parse_constant=_no_constant,
            parse_int=_integer,
            parse_float=_float,
            object_pairs_hook=_object,
        )
    except RecursionError:
        raise ValueError(f"more than {MAX_DEPTH} levels") from None
    if not _is_within(value, MAX_DEPTH):
        raise ValueError(f"more than {MAX_DEPTH} levels")
    return value


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number of JSON")


def _float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{text[:40]} is beyond a double")
    return value


def _integer(text: str) -> int:
    _float(text)
    return int(text)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"'{next(name for name in names if names.count(name) > 1)}' is there twice")
    return values


def _is_within(value: Any, levels: int) -> bool:
    if not isinstance(value, (dict, list)):
        return True
    inside = value.values() if isinstance(value, dict) else value
    return levels > 0 and all(_is_within(each, levels - 1) for each in inside)


class JsonObject:
    """An object with the path to it, so that a wrong entry is reported by its name.

    Args:
        values: its entries.
        file: the file it is in.
        path: of the object in the file, empty for the whole of it.
    """

    def __init__(self, values: Mapping[str, Any], file: object, path: str = "") -> None:
        self.values, self.file, self.path = values, file, path

    def __contains__(self, name: str) -> bool:
        return self.values.get(name) is not None

    def text(self, name: str) -> str:
        return self._entry(name, "a text", lambda value: value if isinstance(value, str) else None)

    def count(self, name: str, least: int = 0) -> int:
        """An integer from ``least`` to 2³¹ − 1."""
        expected = f"an integer of {least} to {MAX_COUNT}"
        return self._entry(name, expected, lambda value: value if is_count(value, least) else None)

    def number(self, name: str) -> float:
        def convert(value: Any) -> float | None:
            return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None

        return self._entry(name, "a number", convert)

    def items(self, name: str) -> list[Any]:
        return self._entry(name, "a list", lambda value: value if isinstance(value, list) else None)

    def texts(self, name: str) -> list[str]:
        values = self.items(name)
        return (
            values if all(isinstance(value, str) for value in values) else self.wrong(name, "a list of texts")
        )

    def counts(self, name: str) -> list[int]:
        values = self.items(name)
        return (
            values
            if all(map(is_count, values))
            else self.wrong(name, f"a list of integers of 0 to {MAX_COUNT}")
        )

    def child(self, name: str) -> JsonObject:
        values = self._entry(name, "an object", lambda value: value if isinstance(value, dict) else None)
        return JsonObject(values, self.file, self._at(name))

    def children(self) -> dict[str, JsonObject]:
        """All entries, each of which is an object."""
        return {name: self.child(name) for name in self.values}

    def objects(self, name: str) -> list[JsonObject]:
        values = self.items(name)
        for place, value in enumerate(values):
            if not isinstance(value, dict):
                self.wrong(f"{name}[{place}]", "an object")
        return [
            JsonObject(value, self.file, f"{self._at(name)}[{place}]") for place, value in enumerate(values)
        ]

    def wrong(self, name: str, expected: str) -> NoReturn:
        """Raises: DamagedFile: that the entry must be something else."""
        raise DamagedFile(
            f"{self.file}: {self._at(name)} must be {expected}; the file is damaged, export it again"
        )

    def _at(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path else name

    def _entry(self, name: str, expected: str, convert: Callable[[Any], T | None]) -> T:
        value = self.values.get(name)
        if value is None:
            raise DamagedFile(
                f"{self.file}: {self._at(name)} is missing; the file is damaged, export it again"
            )
        converted = convert(value)
        return self.wrong(name, expected) if converted is None else converted


def is_count(value: Any, least: int = 0) -> bool:
    """Whether it is an integer from ``least`` to 2³¹ − 1."""
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= MAX_COUNT
