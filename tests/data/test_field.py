"""Keys of hexadecimal texts, of integers as AutoInt feeds them, and of missing values."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ondevice.data import Field, Schema, Vocabulary
from ondevice.data.field import log_bucket, log_integer
from ondevice.data.keys import LARGEST, SMALLEST
from ondevice.data.schema import Label
from ondevice.errors import UserError

HEX = Field("h", "context", "integer", transform="hex", missing=-1)
LOGARITHM = Field("n", "context", "integer", transform="log_integer", missing=-100)
PLAIN = Field("p", "context", "integer", missing=-7)


def test_integers_above_two_by_their_logarithm() -> None:
    """As AutoInt and PEP do: ln(3)^2 = 1.2, ln(5)^2 = 2.6, ln(1000)^2 = 47.7."""
    values = [3, "5", 1000, 2, " 2 ", 1, 0, -3, None, "", "x", 2.5, "2.5", True]
    assert [LOGARITHM.key(v) for v in values] == [1, 2, 47, 2, 2, 1, 0, -3, -100, -100, None, None, None, 1]


def test_hexadecimal_texts() -> None:
    values = ["68fd1e64", "FFFFFFFF", "0000000a", "a", None, "", "?", "-1", " a", 10, "1" * 16, "0xa"]
    assert [HEX.key(v) for v in values] == [0x68FD1E64, 2**32 - 1, 10, 10, -1, -1, *[None] * 6]


def test_without_a_key_of_its_own_a_missing_value_is_unknown() -> None:
    for transform in (None, "hex", "log_integer", "log_bucket"):
        field = Field("f", "context", "integer", transform=transform)
        assert [field.key(v) for v in (None, "")] == [None, None]
        assert field.raw(None) is None


@settings(deadline=None)
@given(st.integers(SMALLEST, LARGEST))
def test_a_logarithm_is_a_bucket_above_two(value: int) -> None:
    assert log_integer(value) == (log_bucket(value) if value > 2 else value)


@pytest.mark.parametrize("field", [HEX, LOGARITHM, PLAIN], ids=lambda f: f.name)
@settings(deadline=None)
@given(value=st.integers(-200, 2**33) | st.none() | st.text("0123456789abcdef", max_size=9))
def test_the_raw_value_of_a_key_has_that_key(field: Field, value: Any) -> None:
    key = field.key(value)
    assert field.key(field.raw(key)) == key


def test_an_unknown_value_and_a_missing_one_differ() -> None:
    vocabulary = Vocabulary([HEX, LOGARITHM], [[-1, 5], [-100, 1, 47]])  # type: ignore[list-item]
    assert vocabulary.encode_row({"h": None, "n": ""}).tolist() == [1, 4]
    assert vocabulary.encode_row({}).tolist() == [1, 4]
    assert vocabulary.encode_row({"h": "?", "n": "?"}).tolist() == [0, 3]
    for row in range(7):
        field = vocabulary.field_of(row)
        assert vocabulary.encode_column(field, [vocabulary.raw_of(row)])[0] == row


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "string", "transform": "hex"}, "transform 'hex' makes integer keys; write kind: integer"),
        (
            {"kind": "string", "missing": 1},
            "missing must be a whole number, of a field of kind integer, or null",
        ),
        ({"kind": "integer", "missing": "x"}, "missing must be a whole number"),
        ({"kind": "integer", "missing": True}, "missing must be a whole number"),
        ({"kind": "integer", "transform": "log_integer", "origin": 3.0}, "origin has no meaning without"),
        ({"kind": "integer", "transform": "hexx"}, "transform 'hexx' is unknown (did you mean 'hex'?"),
    ],
)
def test_mistakes(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        Field("f", "context", **options)
    assert message in str(caught.value)


def test_a_schema_reads_back_and_says_missing_only_where_it_is_set() -> None:
    """What a store is named by must not change for schemas that do not use it."""
    schema = Schema("s", (HEX, Field("q", "item", "string")), Label(column="y"))
    values = schema.to_dict()
    assert Schema.from_dict(values) == schema
    assert [field.get("missing", "absent") for field in values["fields"]] == [-1, "absent"]
