"""Keys computed array by array are those of `Field.key`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ondevice.data.field import Field, log_integer
from ondevice.data.keys import LARGEST, SMALLEST
from ondevice.data.preparation.columns import (
    encode_column,
    keys_of,
    log_integers,
    number_to_keys,
    numbers_of,
    parse_hexadecimal,
)

from .rows import patient

pa = pytest.importorskip("pyarrow", reason="large data are read with pyarrow")

PLAIN = Field("n", "context", "integer", missing=-7)
LOGARITHM = Field("n", "context", "integer", transform="log_integer", missing=-100)
HEX = Field("h", "context", "integer", transform="hex", missing=-1)
TEXT = Field("t", "context", "string")
BUCKET = Field("b", "context", "integer", transform="log_bucket", origin=3.0)
integers = st.integers(SMALLEST, LARGEST) | st.integers(-5, 3000)
hexadecimal = st.text("0123456789abcdefABCDEF", min_size=8, max_size=8)


def decoded(field: Field, column: Any) -> list[Any]:
    """The key of each row, None for unknown."""
    codes, keys = encode_column(field, column)
    listed = [None, *(keys.tolist() if isinstance(keys, np.ndarray) else keys)]
    assert listed[1:] == sorted(set(listed[1:]))
    assert codes.dtype == np.min_scalar_type(len(keys))
    if field.reads_numbers:
        listed[1:] = number_to_keys(field, numbers_of(np.array(listed[1:], dtype=np.int64))).tolist()
    return [listed[code] for code in codes]


def test_by_hand() -> None:
    """ln(3)^2 = 1.21, ln(8)^2 = 4.32, ln(1000)^2 = 47.7; 2 and below stay as they are."""
    values = [3, 8, 1000, 2, 1, 0, -1, None, 1000]
    codes, keys = encode_column(LOGARITHM, pa.array(values, pa.int64()))
    assert keys.tolist() == [-100, -1, 0, 1, 2, 4, 47]
    assert codes.tolist() == [4, 6, 7, 5, 4, 3, 2, 1, 7]
    codes, keys = encode_column(HEX, pa.array(["0000000a", "FFFFFFFF", None, "0000000A"]))
    assert (codes.tolist(), keys.tolist()) == ([2, 3, 1, 2], [-1, 10, 2**32 - 1])


@patient
@given(st.lists(integers))
def test_logarithms_are_those_of_single_values(values: list[int]) -> None:
    result = log_integers(np.array(values, dtype=np.int64))
    assert result.tolist() == [log_integer(value) for value in values]


def test_logarithms_at_every_step() -> None:
    """Both sides of each bound, where rounding could go wrong."""
    values = np.unique(
        np.concatenate([np.arange(-3, 5000), 2 ** np.arange(2, 62), 2 ** np.arange(2, 62) - 1])
    )
    assert log_integers(values).tolist() == [log_integer(int(value)) for value in values]


@pytest.mark.parametrize("kind", ["string", "large_string", "binary"])
@patient
@given(values=st.lists(hexadecimal | st.text(max_size=9) | st.none()))
def test_hexadecimal_texts(kind: str, values: list[str | None]) -> None:
    column = pa.array([None if v is None else v.encode() for v in values], pa.binary()).cast(kind)
    assert decoded(HEX, column) == [HEX.key(value) for value in values]


def test_hexadecimal_texts_of_a_slice() -> None:
    texts = pa.array(["zzzzzzzz", "00000001", "0000000g", "0000000f", "x"])
    keys, known = parse_hexadecimal(texts.slice(1, 3))
    assert (keys.tolist(), known.tolist()) == ([1, 0, 15], [True, False, True])
    assert parse_hexadecimal(texts) is None


@patient
@given(st.lists(integers | st.none()))
def test_integers(values: list[int | None]) -> None:
    column = pa.array(values, pa.int64())
    assert decoded(PLAIN, column) == [PLAIN.key(value) for value in values]
    assert decoded(LOGARITHM, column) == [LOGARITHM.key(value) for value in values]


@patient
@given(st.lists(st.text(max_size=3) | st.none()))
def test_texts(values: list[str | None]) -> None:
    assert decoded(TEXT, pa.array(values, pa.string())) == [TEXT.key(value) for value in values]


@patient
@given(st.lists(st.floats() | st.none()))
def test_numbers_with_fractions(values: list[float | None]) -> None:
    column = pa.array(values, pa.float64())
    for field in (PLAIN, TEXT):
        expected = [field.key(None if v is None or v != v else v) for v in values]
        assert decoded(field, column) == expected


@patient
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False) | st.none()))
def test_buckets_of_numbers(values: list[float | None]) -> None:
    for field in (BUCKET, Field("b", "context", "integer", transform="log_bucket", origin=3.0, missing=-7)):
        assert decoded(field, pa.array(values, pa.float64())) == [field.key(value) for value in values]


def test_a_column_of_nothing() -> None:
    for kind in (pa.null(), pa.int64(), pa.string()):
        assert decoded(PLAIN, pa.array([None, None], kind)) == [-7, -7]
        assert decoded(TEXT, pa.array([None, None], kind)) == [None, None]
        assert decoded(PLAIN, pa.array([], kind)) == []


def test_what_is_no_key_is_unknown() -> None:
    keys, known = keys_of(PLAIN, pa.array(["1", "x", "2.0"]))
    assert (keys.tolist(), known.tolist()) == ([1, 0, 2], [True, False, True])  # type: ignore[union-attr]
