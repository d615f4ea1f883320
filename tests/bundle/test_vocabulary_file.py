"""vocabulary.bin: by hand, as a round trip of anything, and damaged in every way."""

from __future__ import annotations

import contextlib
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ondevice.bundle.row_lookup import RowLookup
from ondevice.bundle.subset import Reader, encode_subset
from ondevice.bundle.vocabulary_file import (
    LARGEST,
    SMALLEST,
    FieldKeys,
    Group,
    decode,
    encode,
    form_of,
    text_of,
    vocabulary_bytes,
)
from ondevice.errors import UserError


def test_the_bytes_of_a_small_vocabulary_are_those_of_the_format() -> None:
    groups = (
        Group(0, 1, [-3, -1, 6, 7]),
        Group(4, 6, [2138, 2139]),  # width 5
        Group(6, 0, ["ab", "abc", "ü"]),
        Group(9, 1, [0, 5]),
    )
    expected = (
        b"ODV2"
        + bytes([1, 11, 4])  # one field, unknown row 11, four groups
        + bytes([0, 4, 1, 4, 2, 6, 6, 3, 0, 9, 2, 1])  # their first rows, keys and forms
        + bytes([5, 10])  # -3 as zigzag, and up to 7; of those 11, the places 1, 4, 5, 6 and 7 are missing:
        + bytes([64, 1, 0b10_110_0_0_0])  # gaps 1, 2, 0, 0, 0 with k = 0
        + bytes([128, 0b110011_00])  # which of the six are in the first group
        + bytes([0xB4, 0x21, 1])  # zigzag 4276 as a varint; two keys of two
        + bytes([0, 2, 0, 2, 1, 2])
        + "abcü".encode()
    )
    assert encode([FieldKeys(11, groups)]) == expected
    assert decode(expected, num_rows=11) == [FieldKeys(11, groups)]


@settings(max_examples=300, deadline=None)
@given(
    st.integers(1, 300).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(0, n - 1), min_size=1)))
)
def test_any_subset_is_read_back(case: tuple[int, set[int]]) -> None:
    count, members = case
    places = np.array(sorted(members), dtype=np.uint64)
    data = encode_subset(places, count)
    reader = Reader(data, "here")
    assert reader.subset(len(places), count).tolist() == places.tolist()
    assert reader.left == 0
    assert len(data) <= 1 + (count + 7) // 8


@pytest.mark.parametrize(
    ("places", "count", "code", "most"),
    [
        (range(0, 6040, 9), 6040, 2, 424),  # few: gaps of 8
        (sorted(set(range(6040)) - set(range(4, 6040, 9))), 6040, 64 + 2, 424),  # nearly all
        (np.flatnonzero(np.random.default_rng(0).random(6040) < 0.5), 6040, 128, 756),
        (range(6040), 6040, None, 0),
    ],
)
def test_a_subset_takes_the_form_that_suits_it(
    places: object, count: int, code: int | None, most: int
) -> None:
    data = encode_subset(np.array(places, dtype=np.uint64), count)
    assert len(data) <= most
    assert (data[0] if data else None) == code


def test_classes_of_dense_keys_cost_little_more_than_which_class_each_is_in() -> None:
    classes = np.random.default_rng(0).choice(3, 6040, p=[0.5, 0.3, 0.2])
    groups, row = [], 0
    for number in range(3):
        keys = np.flatnonzero(classes == number) + 1
        groups.append(Group(row, 1, keys.tolist()))
        row += len(keys)
    bits = 6040 * sum(-p * np.log2(p) for p in (0.5, 0.3, 0.2))
    assert vocabulary_bytes([FieldKeys(row, tuple(groups))]) < bits / 8 * 1.03 + 40


@pytest.mark.parametrize(
    ("text", "form", "key"),
    [
        ("0", 1, 0),
        ("-7", 1, -7),
        ("2138", 1, 2138),
        ("02138", 6, 2138),
        ("00", 3, 0),
        ("-0", 0, "-0"),
        ("-07", 0, "-07"),
        ("+7", 0, "+7"),
        ("", 0, ""),
        (" 7", 0, " 7"),
        ("7\n", 0, "7\n"),
        ("٣", 0, "٣"),  # a digit, but not of ASCII
        (str(LARGEST), 1, LARGEST),
        (str(LARGEST + 1), 0, str(LARGEST + 1)),
        (str(SMALLEST), 1, SMALLEST),
        (str(SMALLEST - 1), 0, str(SMALLEST - 1)),
        ("0" * 18, 19, 0),
        ("0" * 19, 0, "0" * 19),
    ],
)
def test_the_text_of_a_key_decides_its_form(text: str, form: int, key: int | str) -> None:
    assert form_of(text) == (form, key)
    assert text_of(form, key) == text


digits = st.integers(0, 10**6).map(str)
keys = st.one_of(
    digits,
    st.integers(-(2**63), 2**63 - 1).map(str),
    st.tuples(st.integers(0, 10**8), st.integers(2, 12)).map(lambda k: str(k[0]).zfill(k[1])),
    st.text(max_size=12).filter(lambda t: not any(0xD800 <= ord(c) < 0xE000 for c in t)),
)


def fields_of(columns: list[list[str]]) -> list[FieldKeys]:
    """Groups by form, rows counted up; every second field's unknown row comes first."""
    fields, row = [], 0
    for place, texts in enumerate(columns):
        unknown = row
        row += place % 2
        groups = []
        for form in sorted({form_of(text)[0] for text in texts}):
            listed = sorted(form_of(text)[1] for text in set(texts) if form_of(text)[0] == form)  # type: ignore[type-var]
            for keys in (listed[::3], listed[1::3] + listed[2::3]):  # two classes
                if keys:
                    groups.append(Group(row, form, sorted(keys)))  # type: ignore[type-var]
                    row += len(keys)
        fields.append(FieldKeys(unknown, tuple(groups)))
    return fields


@settings(max_examples=150, deadline=None)
@given(st.lists(st.lists(keys, max_size=40), max_size=4))
def test_any_mix_of_keys_is_read_back_and_found(columns: list[list[str]]) -> None:
    fields = fields_of(columns)
    data = encode(fields)
    assert vocabulary_bytes(fields) == len(data)
    again = decode(data)
    assert again == fields
    lookup = RowLookup(again)
    rows = set()
    for field, texts in enumerate(columns):
        for text in set(texts):
            row = lookup.row(field, text)
            assert row not in rows
            rows.add(row)
            assert (row, text) in set(lookup.items(field))
        assert lookup.row(field, None) == fields[field].unknown_row
        absent = "absent" + "".join(texts)
        assert lookup.row(field, absent) == fields[field].unknown_row


def plain(data: bytes) -> bytes:
    """The file as it would be if deflating it did not pay."""
    packed = data[next(i for i in range(4, len(data)) if data[i] < 128) + 1 :]  # behind the size
    return data if data.startswith(b"ODV2") else b"ODV2" + zlib.decompress(packed, -15)


SAMPLE = plain(
    encode(
        fields_of([[str(i * i) for i in range(30)], ["02138", "02139", "V1A", "Vé"], [], ["-5", "9" * 18]])
    )
)


def test_a_file_cut_anywhere_is_refused_by_name() -> None:
    decode(SAMPLE)
    for length in range(len(SAMPLE)):
        with pytest.raises(UserError, match=r"some/vocabulary\.bin: .*export it again"):
            decode(SAMPLE[:length], "some/vocabulary.bin")
    with pytest.raises(UserError, match="1 bytes follow the last field"):
        decode(SAMPLE + b"\0")


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, len(SAMPLE) - 1), st.integers(1, 255))
def test_a_changed_byte_is_refused_or_read_as_another_vocabulary(place: int, change: int) -> None:
    data = bytearray(SAMPLE)
    data[place] ^= change
    try:
        fields = decode(bytes(data), num_rows=200)
    except UserError:
        return
    # what is accepted obeys every rule of the format
    assert encode(fields)
    for field in fields:
        assert field.unknown_row <= 200
        assert all(group.base_row + len(group.keys) <= 200 for group in field.groups)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60))
def test_random_bytes_never_do_more_than_be_refused(noise: bytes) -> None:
    with pytest.raises(UserError):
        decode(b"ODV2\x05" + noise)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"ODV1\x00", "begins with neither ODV2 nor ODVD"),
        (b"ODV2\x01\x00\x01\x00\x01\x15\x00\x00\x00", "no form 21 of keys"),
        (b"ODV2\x01\x00\x01\x00\x01\x02\x00\x00\x00", "no form 2 of keys"),
        (b"ODV2\x01\x00\x01\x00\x00\x01\x00\x00\x00", "a group of 0 keys"),
        # behind the head of a group of one or two keys: the first key, the span, a subset
        (b"ODV2\x01\x00\x01\x00\x01\x01\x00\x01\x81", "no form 129 of a subset"),
        (b"ODV2\x01\x00\x01\x00\x01\x01\x00\x00\x00", "1 bytes follow the last field"),
        (b"ODV2\x01\x00\x01\x00\x02\x01\x00\x00", "2 of 1 keys"),
        (b"ODV2\x01\x00\x01\x00\x02\x01\x00\x02\x80\x80", "1 of 3 keys, not 2"),
        (b"ODV2\x01\x00\x01\x00\x02\x01\x00\x02\x80\x88", "2 of 3 keys, not 2"),
        (b"ODV2\x01\x00\x01\x00\x02\x01\x00\x02\x00\x01\x70", "a place of 4 among 3"),
        (b"ODV2\x01\x00\x01\x00\x02\x01\x00\x02\x00\x01\x01", "bits follow"),
        (b"ODV2\x01\x00\x01\x00\x09\x01\x00\x09\x00\x01\x00", "9 keys in 1 bytes"),
        (b"ODV2\x01\x00\x01\x00\x02\x01\x00\x09\x40\x00", "8 keys in 0 bytes"),
        (b"ODV2\x01\x00\x01\x00\x80\x80\x80\x80\x10\x01", "4294967296 keys, where 16777216 are possible"),
        (b"ODV2\x01\x00\x01\x00\x01\x01\x00\x05\x80\x20", "do not begin at the first or end at the last"),
        (b"ODV2\x01\x00\x01\x00\x02\x00\x00\x00\x01\x01ba", "texts out of order"),
        (b"ODV2\x01\x00\x01\x00\x02\x00\x00\x02\x01\x01ba", "shares 2 bytes with one of 1"),
        (b"ODV2\x01\x00\x01\x00\x01\x00\x00\x01\xff", "not UTF-8"),
        (b"ODV2\x01\x00\x01\x00\x01\x03\x80\x02\x00", "a key outside 0 to 99"),
        (b"ODV2\x01\x00\x01\x00\x01\x01\x00\xff\xff\xff\xff\xff\xff\xff\xff\x7f", "a key outside"),
        (b"ODV2\x01" + b"\xff" * 10 + b"\x01", "beyond 64 bits"),
    ],
)
def test_what_is_wrong_is_said(data: bytes, message: str) -> None:
    with pytest.raises(UserError, match=message):
        decode(data)


TEXTS = [FieldKeys(300, (Group(0, 0, sorted(f"{a}|Drama|{b}" for a in "abcdefgh" for b in range(30))),))]


def test_texts_are_deflated_where_that_is_smaller() -> None:
    data = encode(TEXTS)
    assert data.startswith(b"ODVD")
    assert decode(data, num_rows=300) == TEXTS
    assert decode(plain(data), num_rows=300) == TEXTS
    assert len(data) < len(plain(data)) / 2
    assert encode([FieldKeys(9, (Group(0, 1, [1, 2, 3]),))]).startswith(b"ODV2")


@settings(max_examples=200, deadline=None)
@given(st.integers(4, len(encode(TEXTS)) - 1), st.integers(1, 255))
def test_a_changed_byte_of_a_deflated_file_is_refused_or_obeys_the_format(place: int, change: int) -> None:
    data = bytearray(encode(TEXTS))
    data[place] ^= change
    with contextlib.suppress(UserError):
        assert all(len(f.groups[0].keys) <= 300 for f in decode(bytes(data), num_rows=300) if f.groups)


def test_a_deflated_file_is_unpacked_whole_or_not_at_all() -> None:
    packed = zlib.compressobj(9, zlib.DEFLATED, -15)
    rest = packed.compress(bytes(1000)) + packed.flush()
    for data, message in (
        (b"ODVD\xff\xff\xff\xff\x7f" + rest, "says that it unpacks to 34359738367 bytes"),
        (b"ODVD\x05" + rest, "does not unpack to 5 bytes"),
        (b"ODVD\xe9\x07" + rest, "does not unpack to 1001 bytes"),
        (b"ODVD\xe8\x07" + rest + b"x", "does not unpack to 1000 bytes"),
        (b"ODVD\xe8\x07" + rest[:-1], "does not unpack to 1000 bytes"),
        (b"ODVD\x05" + b"\xff" * 9, "cannot be unpacked"),
        (b"ODVD", "ends 1 bytes early"),
    ):
        with pytest.raises(UserError, match=message):
            decode(data)


def test_rows_beyond_the_program_are_refused() -> None:
    data = encode([FieldKeys(3, (Group(0, 1, [1, 2, 3]),))])
    assert decode(data, num_rows=3)
    with pytest.raises(UserError, match="a group of 3 keys from row 0"):
        decode(encode([FieldKeys(0, (Group(0, 1, [1, 2, 3]),))]), num_rows=2)
    with pytest.raises(UserError, match="unknown row of field 0 is 3, but the program has 2 rows"):
        decode(data, num_rows=2)


def test_groups_that_overlap_do_not_multiply() -> None:
    fields = [FieldKeys(9, tuple(Group(0, 1, range(10 * g, 10 * g + 6)) for g in range(2)))]
    with pytest.raises(UserError, match="12 keys, where 10 are possible"):
        decode(encode(fields), num_rows=10)


def test_keys_out_of_order_are_a_bug_of_the_caller() -> None:
    for keys in ([2, 1], [1, 1], ["b", "a"], ["a", "a"], []):
        with pytest.raises(ValueError, match="key"):
            encode([FieldKeys(0, (Group(0, 1 if keys and isinstance(keys[0], int) else 0, keys),))])
    with pytest.raises(ValueError, match="repeat"):
        encode([FieldKeys(0, (Group(0, 1, [1, 2]), Group(2, 1, [2])))])


def test_an_integer_key_takes_less_than_four_bytes() -> None:
    random = np.random.default_rng(0)
    sparse = np.unique(random.integers(0, 10**6, 20_000))
    assert vocabulary_bytes([FieldKeys(0, (Group(0, 1, sparse),))]) / len(sparse) < 1.2
    isbns = np.unique(random.integers(0, 10**10, 20_000))
    assert vocabulary_bytes([FieldKeys(0, (Group(0, 1, isbns),))]) / len(isbns) < 4
