"""From raw values by field name to program rows."""

from __future__ import annotations

import functools
import itertools
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ondevice.bundle.row_lookup import RawLookup, RowLookup, columns_of
from ondevice.data.field import is_number
from ondevice.data.gaps import history_buckets
from ondevice.data.schema import Schema
from ondevice.errors import UserError, nearest

Raw = Mapping[str, Any]


class RawRows:
    """The program rows of raw values.

    Args:
        schema: of the bundle.
        vocabulary: of the same fields.
    """

    def __init__(self, schema: Schema, vocabulary: RowLookup) -> None:
        self.schema, self.vocabulary = schema, vocabulary
        self.lookups = list(map(self._raw_lookup, range(len(schema.fields))))

    def _raw_lookup(self, f: int) -> RawLookup:
        """What finds the rows of a field's raw values."""
        field, lookup = self.schema.fields[f], self.vocabulary
        kind = {"integer": int, "string": str}.get(field.kind) if field.transform is None else None
        keys = functools.partial(lookup.plain_keys, f, kind) if kind else lambda: None
        rows = functools.partial(self._single_rows, f)
        return RawLookup(rows, field.is_foreign, lookup.fields[f].unknown_row, kind, keys)

    def named_rows(self, raws: Sequence[Raw], fields: Sequence[int] | None = None) -> np.ndarray:
        """The rows of raw values that name their fields, (n, slots of the fields) int64; an absent value is unknown.

        Raises: UserError: when one names a field that is none of these, or has a text for a number.
        """
        chosen = list(range(len(self.schema.fields)) if fields is None else fields)
        names = [self.schema.fields[f].name for f in chosen]
        columns, are_exact = columns_of(raws, names)
        for name in () if are_exact else itertools.chain.from_iterable(raws):
            if name not in names:
                other = " of this side" if fields is not None and name in self.schema.names else ""
                raise UserError(f"'{name}' is not a field{other} {nearest(str(name), names)}")
        return self._rows_of(columns, chosen, refuses=True)

    def rows(self, raws: Sequence[Raw], fields: Sequence[int]) -> np.ndarray:
        """`named_rows` of what is known to name fields; of a catalog, whose values nobody misspelt."""
        columns, _ = columns_of(raws, [self.schema.fields[f].name for f in fields])
        return self._rows_of(columns, fields)

    def _rows_of(
        self, columns: Sequence[Sequence[Any]], fields: Sequence[int], refuses: bool = False
    ) -> np.ndarray:
        """Program rows of the raw values of each of some fields.

        Args:
            refuses: whether texts are refused where a field takes numbers.
        """
        parts = []
        for f, values in zip(fields, columns, strict=True):
            field, lookup = self.schema.fields[f], self.lookups[f]
            if field.is_history:
                parts.append(self._history_rows(f, values, refuses))
                continue
            rows = lookup.known(values) if field.slots == 1 else None
            if rows is None:
                for value in values if refuses and field.has_integer_keys else ():
                    if field.is_foreign(value):
                        raise UserError(
                            f"'{field.name}' takes numbers, not {value!r}; give None for an unknown value"
                        )
                rows = lookup.rows(values) if field.slots == 1 else self._bag_rows(f, values)
            parts.append(rows.reshape(len(values), field.slots))
        return np.concatenate(parts, 1)

    def _single_rows(self, f: int, values: Sequence[Any]) -> np.ndarray:
        """The rows of raw values of a field of one slot, (n,) int64."""
        keys = self.schema.fields[f].keys(values)
        return self.vocabulary.rows(f, [None if key is None else str(key) for key in keys])

    def _bag_rows(self, f: int, values: Sequence[Any]) -> np.ndarray:
        """The rows of raw values of a field of several slots, (n · slots,) int64."""
        field = self.schema.fields[f]
        texts: list[str | None] = []
        for bag in map(field.kept, values):
            texts += [str(key) for key in bag]
            texts += [None] * (field.slots - len(bag))  # a slot without a value reads the unknown row
        return self.vocabulary.rows(f, texts)

    def _history_rows(self, f: int, values: Sequence[Any], refuses: bool) -> np.ndarray:
        """The rows of a history's slots, (n, L) int64, of lists of raw values of the field that it is of."""
        source, slots = self.schema.slots.sources[f], self.schema.fields[f].slots
        item, lookup = self.schema.fields[source], self.lookups[source]
        lists = [[] if value is None else list(item.elements(value)) for value in values]
        wrong = next((v for v in itertools.chain(*lists) if item.is_foreign(v)), None) if refuses else None
        if wrong is not None:
            raise UserError(f"'{self.schema.fields[f].name}' takes numbers, not {wrong!r}; leave it out")
        return np.array([lookup.last(each, slots) for each in lists], dtype=np.int64).reshape(-1, slots)

    def gaps(
        self, history: Sequence[Any], times: Sequence[float | None] | None, now: float | None
    ) -> np.ndarray:
        """The buckets of a history's time gaps, (L,) int64: of its last known values, at the end.

        Args:
            history: raw values, the newest last.
            times: of each, in seconds; None where it is not known.
            now: the moment of asking, which gaps until the next item need; None: that of the clock.

        Raises: UserError: when there are not as many times, or one is no number.
        """
        (f,) = (f for f, field in enumerate(self.schema.fields) if field.gaps is not None)
        field, values = self.schema.fields[f], list(history)
        if times is None and values:
            raise UserError(
                f"'{field.name}' is read with time gaps; give times=[…], the seconds of each of its {len(values)} items"
            )
        moments = [] if times is None else list(times)
        if len(moments) != len(values):
            raise UserError(f"times: {len(moments)} for a history of {len(values)} items; give one for each")
        for moment in (*moments, now):
            if moment is not None and not (is_number(moment) and math.isfinite(moment)):
                raise UserError(
                    f"times: seconds are wanted, or None where they are not known, not {moment!r}"
                )
        known = self.lookups[self.schema.slots.sources[f]].are_known(values)
        kept = [moment for moment, is_known in zip(moments, known, strict=True) if is_known]
        read = history_buckets(kept, str(field.gaps), time.time() if now is None else now)[-field.slots :]
        return np.pad(read, (field.slots - len(read), 0))
