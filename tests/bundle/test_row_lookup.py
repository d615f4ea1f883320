"""Raw values to rows, many at once: the same as one after the other, whatever their types."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ondevice.bundle.row_lookup import REMEMBERED, RawLookup, RowLookup
from ondevice.bundle.vocabulary_file import INTEGERS, STRINGS, FieldKeys, Group
from ondevice.data.field import Field

GROUPS = (
    Group(0, INTEGERS, [-2, 1, 5, 2**40]),
    Group(4, INTEGERS + 3, [1, 7]),  # "001" and "007"
    Group(6, STRINGS, ["", "1.5", "True", "x"]),
)
VOCABULARY = RowLookup([FieldKeys(10, GROUPS)])
FIELDS = [
    Field("a", "context", "integer"),
    Field("a", "context", "integer", missing=5),
    Field("a", "context", "string"),
    Field("a", "context", "integer", transform="log_integer"),
]
VALUES = [
    *(None, 1, 1.0, True, False, 5, "5", " 5 ", 7, "007", "7", -2, 2**40, 2**70),
    *("x", "", "1.5", 1.5, float("nan"), "True", "y", np.int64(1), np.float32(1.5)),
]


def slow(field: Field, values: Sequence[Any]) -> np.ndarray:
    keys = field.keys(values)
    return VOCABULARY.rows(0, [None if key is None else str(key) for key in keys])


def lookup_of(field: Field) -> RawLookup:
    kind = {"integer": int, "string": str}[field.kind] if field.transform is None else None
    return RawLookup(
        lambda values: slow(field, values),
        field.is_foreign,
        10,
        kind,
        lambda: VOCABULARY.plain_keys(0, kind) if kind else None,
    )


@pytest.mark.parametrize("field", FIELDS, ids=["integer", "missing", "string", "transform"])
@given(st.lists(st.lists(st.sampled_from(VALUES), max_size=5), min_size=1, max_size=6))
def test_many_values_have_the_rows_of_each(field: Field, batches: list[list[Any]]) -> None:
    lookup = lookup_of(field)
    for values in batches:
        expected = slow(field, values).tolist()
        known = lookup.known(values)
        assert known is None or known.tolist() == expected
        assert lookup.rows(values).tolist() == expected
        known = lookup.known(values)
        assert known is None or known.tolist() == expected


def test_values_are_remembered_and_mistakes_are_not() -> None:
    lookup = lookup_of(FIELDS[0])
    assert lookup.known([1, 5, 99, None]).tolist() == [1, 2, 10, 10]  # type: ignore[union-attr]
    assert lookup.known(["5"]) is None
    assert lookup.rows(["5", "five"]).tolist() == [2, 10]
    assert lookup.known(["5"]).tolist() == [2]  # type: ignore[union-attr]
    assert lookup.known(["five"]) is None, "somebody has to refuse it"


def test_no_more_values_are_remembered_than_a_limit() -> None:
    lookup = lookup_of(FIELDS[0])
    for part in range(3):
        lookup.rows([str(value) for value in range(part * 30_000, (part + 1) * 30_000)])
    assert sum(map(len, lookup._known.values())) <= REMEMBERED


def test_a_text_of_another_form_is_no_key() -> None:
    wrong = RowLookup([FieldKeys(3, (Group(0, STRINGS, ["5", "a"]),))])
    assert (wrong.row(0, "5"), wrong.row(0, "a")) == (3, 1)
