"""catalog.bin: titles and raw values of the items, in columns."""

from __future__ import annotations

import zlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ondevice.bundle.catalog_file import check_order, decode, encode
from ondevice.bundle.subset import varint
from ondevice.errors import UserError

ITEMS: list[dict[str, Any]] = [
    {"title": "Heat", "film": 7, "year": 1995, "genre": "Crime"},
    {"film": 3, "year": None, "genre": "Crime"},
]

# Two items, two columns beside the key: titles as texts, "Heat" and none; two years; a genre that both have.
BY_HAND = (
    b"\x02\x03"
    + b"\x05title\x01\x04\x00Heat"
    + b"\x04year\x02\x02\x04\x041995null\x00\x01"
    + b"\x05genre\x01\x05\x05CrimeCrime"
)


def content(data: bytes) -> bytes:
    assert data[:4] == b"ODC1"
    return zlib.decompress(data[5:], -15)


def packed(content: bytes, size: int | None = None) -> bytes:
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    return (
        b"ODC1" + varint(len(content) if size is None else size) + deflate.compress(content) + deflate.flush()
    )


def test_a_file_by_hand() -> None:
    data = encode(ITEMS, [7, 3], "film")
    assert content(data) == BY_HAND
    assert data[4] == len(BY_HAND)
    assert decode(data, [7, 3], "film") == ITEMS


def test_raw_values_that_are_not_the_keys_have_a_column() -> None:
    items = [{"ad": "0a"}, {"ad": "ff"}]  # of a field whose keys are the numbers these write
    assert decode(encode(items, [10, 255], "ad"), [10, 255], "ad") == items


def test_values_that_repeat_take_a_number_each() -> None:
    items = [{"film": i, "genre": ("Action|Adventure|Thriller", "Comedy|Drama")[i % 2]} for i in range(100)]
    assert len(encode(items, range(100), "film")) < 80
    assert decode(encode(items, range(100), "film"), range(100), "film") == items


scalar = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
)
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.fixed_dictionaries({"genre": text, "price": st.one_of(scalar, text)}, optional={"title": text}),
        min_size=1,
        max_size=12,
    )
)
def test_any_values_come_back(values: list[dict[str, Any]]) -> None:
    items = [{"film": 3 * i, **item} for i, item in enumerate(values)]
    keys = [item["film"] for item in items]
    expected = [{k: v for k, v in item.items() if k != "title" or v} for item in items]
    assert decode(encode(items, keys, "film"), keys, "film") == expected


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"", "does not begin with ODC1"),
        (b"ODV2\x00", "does not begin with ODC1"),
        (packed(BY_HAND)[:-3], "does not unpack to|cannot be unpacked"),
        (packed(BY_HAND) + b"x", "does not unpack to"),
        (packed(BY_HAND, size=3), "does not unpack to 3 bytes"),
        (b"ODC1" + b"\xff" * 4 + b"\x7f", "says that it unpacks to"),
        (packed(b"\x03\x00"), "3 items, where the model knows 2"),
        (packed(BY_HAND + b"x"), "1 bytes follow the last column"),
        (packed(b"\x02\x02" + 2 * b"\x01a\x01\x00\x00"), "column 'a' is there twice"),
        (packed(b"\x02\x01\x01a\x03"), "no form 3 of a column"),
        (packed(b"\x02\x01\x01a\x01\x01\x02xy"), "ends 1 bytes early"),
        (packed(b"\x02\x01\x01a\x01\x01\x01x\xff"), "not UTF-8"),
        (packed(b"\x02\x01\x01a\x02\x01\x011\x00\x01"), "a value beyond the 1 of its column"),
        (packed(b"\x02\x01\x01a\x02\x01\x02{}\x00\x00"), "no JSON scalar"),
        (packed(b"\x02\x01\x01a\x02\x01\x03NaN\x00\x00"), "no JSON scalar"),
        (packed(b"\x02\x01\x01a\x02\x01\x80\x7d" + b"[" * 16_000 + b"\x00\x00", size=None), "no JSON scalar"),
        (packed(b"\x02\x01\x01a\x02\xff\xff\x03"), "65535 texts in 0 bytes"),
    ],
)
def test_what_is_no_catalog_is_refused(data: bytes, match: str) -> None:
    with pytest.raises(UserError, match=match):
        decode(data, [7, 3], "film", "catalog.bin")


def test_items_in_another_order_are_refused() -> None:
    check_order(ITEMS, [7, 3], [7, 3])
    with pytest.raises(UserError, match="stands where the item 3 belongs"):
        check_order(ITEMS, [7, 3], [3, 7])
    with pytest.raises(UserError, match="2 items, where the vocabulary knows 3 keys"):
        check_order(ITEMS, [7, 3], [7, 3, 9])
