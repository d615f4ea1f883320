"""From raw values, as canonical texts, to program rows: what is read of a vocabulary, looked up."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from ondevice.bundle.fingerprints import text_hashes
from ondevice.bundle.vocabulary_file import FINGERPRINTED, HASHED, FieldKeys, form_of, text_of
from ondevice.data.key_hash import key_hash


class RowLookup:
    """Rows of canonical texts, and texts of rows.

    Args:
        fields: the keys of each field.
    """

    def __init__(self, fields: Sequence[FieldKeys]) -> None:
        self.fields = list(fields)
        self._groups = [
            [
                (g, [int(k) for k in g.keys] if g.form else list(g.keys))
                for g in f.groups
                if g.form < FINGERPRINTED
            ]
            for f in fields
        ]
        self._hashed = [next((g for g in f.groups if g.form == HASHED), None) for f in fields]
        self._row_at = [_rows_of_places(f) for f in fields]

    def rows(self, field: int, texts: Sequence[str | None]) -> np.ndarray:
        """`row` of each text, (n,) int64."""
        prints = self.fields[field].fingerprints
        if prints is None:
            return np.fromiter(
                (self._listed_or_hashed_row(field, text) for text in texts), np.int64, len(texts)
            )
        rows = np.full(len(texts), self.fields[field].unknown_row, dtype=np.int64)
        known = [(at, text) for at, text in enumerate(texts) if text is not None and _is_utf8(text)]
        places = prints.places(text_hashes([text for _, text in known]))
        found = np.array([at for at, _ in known], dtype=np.int64)[places >= 0]
        rows[found] = self._row_at[field][places[places >= 0]]
        return rows

    def row(self, field: int, text: str | None) -> int:
        """Row of a canonical text; the field's unknown row for None and, unless it is hashed, for what is not there.

        One text in 2^bits that is not there has the row of another key, where keys are fingerprints.
        """
        return int(self.rows(field, [text])[0])

    def _listed_or_hashed_row(self, field: int, text: str | None) -> int:
        unknown = self.fields[field].unknown_row
        if text is None:
            return unknown
        form, key = form_of(text)
        for group, keys in self._groups[field]:
            if group.form != form:
                continue
            # Strings ascend by code point as they do by UTF-8 byte.
            place = bisect_left(keys, key)  # type: ignore[type-var]
            if place < len(keys) and keys[place] == key:
                return group.base_row + place
        hashed = self._hashed[field]
        if hashed is None:
            return unknown
        try:
            return hashed.base_row + key_hash(text) % len(hashed.keys)
        except UnicodeEncodeError:
            return unknown

    def items(self, field: int) -> Iterator[tuple[int, str]]:
        """Row and canonical text of every key of a field that is stored as itself, by ascending row."""
        for group, keys in sorted(self._groups[field], key=lambda g: g[0].base_row):
            for place, key in enumerate(keys):
                yield group.base_row + place, text_of(group.form, key)

    def fingerprint_bits(self) -> dict[int, int]:
        """Bits of a fingerprint in each field that stores them in place of keys."""
        prints = ((number, field.fingerprints) for number, field in enumerate(self.fields))
        return {number: each.bits for number, each in prints if each is not None}

    def num_keys(self, fields: Iterable[int] | None = None) -> int:
        """Number of stored keys of some fields, by default of all; a hashed field has none."""
        chosen = range(len(self.fields)) if fields is None else fields
        return sum(len(g.keys) for f in chosen for g in self.fields[f].groups if g.form != HASHED)


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
