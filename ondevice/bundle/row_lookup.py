"""From raw values, as canonical texts, to program rows: what is read of a vocabulary, looked up."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from operator import itemgetter
from typing import Any

import numpy as np

from ondevice.bundle.fingerprints import text_hashes
from ondevice.bundle.vocabulary_file import (
    FINGERPRINTED,
    HASHED,
    INTEGERS,
    STRINGS,
    FieldKeys,
    form_of,
    text_of,
)
from ondevice.data.key_hash import key_hash

REMEMBERED = 1 << 16
"""Most raw values of a field and a type whose rows are remembered."""
_REMEMBERED_TYPES = (int, str, float)
_NUMERIC = tuple("-0123456789")


class RowLookup:
    """Rows of canonical texts, and texts of rows.

    Args:
        fields: the keys of each field.
    """

    def __init__(self, fields: Sequence[FieldKeys]) -> None:
        self.fields = list(fields)
        self._listed: list[dict[str, int] | None] = [None] * len(self.fields)
        self._hashed = [next((g for g in f.groups if g.form == HASHED), None) for f in fields]
        self._row_at = [_rows_of_places(f) for f in fields]

    def rows(self, field: int, texts: Sequence[str | None]) -> np.ndarray:
        """`row` of each text, (n,) int64."""
        prints = self.fields[field].fingerprints
        if prints is None:
            unknown = self.fields[field].unknown_row
            if all(text is None for text in texts):
                return np.full(len(texts), unknown)
            if self._hashed[field] is None:
                listed = self._listed_rows(field)
                return np.fromiter((listed.get(text, unknown) for text in texts), np.int64, len(texts))  # type: ignore[arg-type]
            return np.fromiter((self._hashed_row(field, text) for text in texts), np.int64, len(texts))
        rows = np.full(len(texts), self.fields[field].unknown_row, dtype=np.int64)
        known = [(at, text) for at, text in enumerate(texts) if text is not None and _is_utf8(text)]
        places = prints.places(text_hashes([text for _, text in known]))
        known_at = np.array([at for at, _ in known], dtype=np.int64)[places >= 0]
        rows[known_at] = self._row_at[field][places[places >= 0]]
        return rows

    def row(self, field: int, text: str | None) -> int:
        """Row of a canonical text; the field's unknown row for None and, unless it is hashed, for what is not there.

        One text in 2^bits that is not there has the row of another key, where keys are fingerprints.
        """
        return int(self.rows(field, [text])[0])

    def _listed_rows(self, field: int) -> dict[str, int]:
        """The row of each canonical text of a field that is stored as itself; made when it is first asked for."""
        listed = self._listed[field]
        if listed is None:
            listed = {text: row for row, text in self.items(field)}
            for group in self.fields[field].groups:
                if group.form == STRINGS:  # a text that has another form is no key, whoever wrote it there
                    for text in map(str, group.keys):
                        if text[:1] in _NUMERIC and form_of(text)[0] != STRINGS:
                            del listed[text]
            self._listed[field] = listed
        return listed

    def _hashed_row(self, field: int, text: str | None) -> int:
        """The row of a text in a field of which a group is hashed."""
        unknown, hashed = self.fields[field].unknown_row, self._hashed[field]
        if text is None or hashed is None:
            return unknown
        row = self._listed_rows(field).get(text)
        if row is not None:
            return row
        try:
            return hashed.base_row + key_hash(text) % len(hashed.keys)
        except UnicodeEncodeError:
            return unknown

    def plain_keys(self, field: int, kind: type) -> dict[Any, int] | None:
        """The row of each key whose text is that of an int or a str; None where others than the listed have rows."""
        if self.fields[field].fingerprints is not None or self._hashed[field] is not None:
            return None
        if kind is str:
            return {
                text: row for text, row in self._listed_rows(field).items() if text
            }  # "" is a missing value
        rows: dict[Any, int] = {}
        for group in self.fields[field].groups:
            if group.form == INTEGERS:
                rows.update(zip(group.keys, itertools.count(group.base_row)))
        return rows

    def items(self, field: int) -> Iterator[tuple[int, str]]:
        """Row and canonical text of every key of a field that is stored as itself, by ascending row."""
        listed = (group for group in self.fields[field].groups if group.form < FINGERPRINTED)
        for group in sorted(listed, key=lambda group: group.base_row):
            for row, key in enumerate(group.keys, group.base_row):
                yield row, text_of(group.form, key)

    def fingerprint_bits(self) -> dict[int, int]:
        """Bits of a fingerprint in each field that stores them in place of keys."""
        prints = ((number, field.fingerprints) for number, field in enumerate(self.fields))
        return {number: each.bits for number, each in prints if each is not None}

    def num_keys(self, fields: Iterable[int] | None = None) -> int:
        """Number of stored keys of some fields, by default of all; a hashed field has none."""
        chosen = range(len(self.fields)) if fields is None else fields
        return sum(len(g.keys) for f in chosen for g in self.fields[f].groups if g.form != HASHED)


class RawLookup:
    """Rows of one field's raw values: at once where they are keys as they stand, else remembered once they were seen.

    Only values of one plain type, or None, are looked up together: 1, 1.0 and True are one key of a dictionary.

    Args:
        rows: gives the row of each raw value, as a vocabulary has it.
        is_foreign: whether a raw value is a mistake, and not one that is unknown; those are not remembered.
        unknown_row: of what is in no vocabulary.
        kind: type of the raw values that are keys as they stand; None for none.
        keys: the row of each such key; None where a key that is not listed may have a row.
    """

    def __init__(
        self,
        rows: Callable[[Sequence[Any]], np.ndarray],
        is_foreign: Callable[[Any], bool],
        unknown_row: int,
        kind: type | None = None,
        keys: Callable[[], dict[Any, int] | None] = lambda: None,
    ) -> None:
        self._rows, self._is_foreign, self._unknown_row = rows, is_foreign, unknown_row
        self._known: dict[type, dict[Any, int]] = {each: {} for each in _REMEMBERED_TYPES}
        self._kind, self._keys = kind, keys

    @cached_property
    def _listed(self) -> dict[Any, int] | None:
        """The row of every key that stands for itself, and of None."""
        listed = self._keys()
        return listed if listed is None else {**listed, None: int(self._rows([None])[0])}

    def known(self, values: Sequence[Any]) -> np.ndarray | None:
        """The row of each value, (n,) int64, where all of them stand for themselves or are remembered; else None."""
        kind = _kind_of(values)
        listed = self._listed if kind is self._kind and kind is not None else None
        rows_of = listed if listed is not None else self._known.get(kind) if kind else None
        if rows_of is None:
            return None
        with contextlib.suppress(KeyError):
            # one call for all values; a getter of one name gives no tuple, and there is none of no name
            rows = itemgetter(*values)(rows_of) if len(values) > 1 else [rows_of[value] for value in values]
            return np.fromiter(rows, np.int64, len(values))
        if listed is None:
            return None
        return np.fromiter(
            map(listed.get, values, itertools.repeat(self._unknown_row)), np.int64, len(values)
        )

    def rows(self, values: Sequence[Any]) -> np.ndarray:
        """The row of each value, (n,) int64."""
        kind = _kind_of(values)
        known = self._known.get(kind) if kind else None
        if known is None:
            return self._rows(values)
        new = [value for value in dict.fromkeys(values) if value not in known]
        new_rows = dict(zip(new, self._rows(new).tolist(), strict=True))
        rows = [new_rows[value] if value in new_rows else known[value] for value in values]
        if len(known) + len(new_rows) > REMEMBERED:
            known.clear()
        known.update((value, row) for value, row in new_rows.items() if not self._is_foreign(value))
        return np.array(rows, dtype=np.int64)

    def all_rows(self, values: Sequence[Any]) -> np.ndarray:
        """`known`, or `rows` where that knows not all."""
        known = self.known(values)
        return self.rows(values) if known is None else known

    def are_known(self, values: Sequence[Any]) -> np.ndarray:
        """Which values are not unknown, (n,) bool."""
        is_known: np.ndarray = self.all_rows(values) != self._unknown_row
        return is_known

    def last(self, values: Sequence[Any], count: int) -> np.ndarray:
        """The rows of the last ``count`` values that are not unknown, which end at the last place, (count,) int64."""
        rows = self.all_rows(values)
        rows = rows[rows != self._unknown_row][-count:]
        return np.pad(rows, (count - len(rows), 0), constant_values=self._unknown_row)


def columns_of(
    raws: Sequence[Mapping[str, Any]], names: Sequence[str]
) -> tuple[Sequence[Sequence[Any]], bool]:
    """The values of each name in all rows, None where a row has none; and whether every row has these names alone."""
    with contextlib.suppress(KeyError):  # rows that have every name need no question for each
        columns = [list(map(itemgetter(name), raws)) for name in names]
        return columns, set(map(len, raws)) == {len(names)}
    return [[raw.get(name) for raw in raws] for name in names], False


def _kind_of(values: Sequence[Any]) -> type | None:
    """The type of all values that are not None, int where there are none; None for several."""
    kinds = set(map(type, values)) - {type(None)}
    return None if len(kinds) > 1 else kinds.pop() if kinds else int


def _is_utf8(text: str) -> bool:
    """Whether it has UTF-8 bytes: no half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _rows_of_places(field: FieldKeys) -> np.ndarray:
    """The row of each place of a fingerprinted field, (n,) int64; nothing for another."""
    if field.fingerprints is None:
        return np.empty(0, dtype=np.int64)
    rows = np.empty(sum(len(group.keys) for group in field.groups), dtype=np.int64)
    for group in field.groups:
        rows[np.asarray(group.keys)] = group.base_row + np.arange(len(group.keys))
    return rows
