"""vocabulary.bin: from a field's value, as canonical text, to the program's row.

Version 2, little endian, varint = unsigned LEB128::

    "ODV2"
    varint num_fields
    per field, in schema order:
      varint unknown_row       row of a value that is not in the vocabulary
      varint num_groups
      per group:
        varint base_row        its keys own rows base_row, base_row + 1, ... in ascending order
        varint num_keys        at least 1
        u8 form                0: strings; 1 + w: integers as decimal text of width w, 0 = no padding; 254: of any
                               text, found by `fingerprints`, in all groups of a field or in none; 255: hashed, any
                               text owns row base_row + FNV-1a(text) mod num_keys
      per form but 255, in the order in which they first occur; n: keys of all groups of it:
        all keys, ascending, or for form 254 their `fingerprints`, in the order of places:
          integers: varint zigzag(first key); varint span (last key - first key); `subset` of n of span + 1
          strings:  by UTF-8 bytes: n varints, bytes shared with the key before; n varints, further bytes; those
        per group of it but the last: `subset`, its keys among those that are in no group before

Size classes share one list of keys, which for dense ones is nearly free, and a class is a bit or two a key.

Where that takes fewer bytes, the file is "ODVD", varint size, and the raw deflate (RFC 1951) of those ``size`` bytes
that follow "ODV2": texts then need a quarter.

A key's canonical text decides its form: a plain integer that fits 64 bits, else 2 to 18 digits (a zip code with
a leading zero), else a string.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ondevice.bundle import fingerprints
from ondevice.bundle.fingerprints import Fingerprints
from ondevice.bundle.subset import Reader, encode_subset, varint

MAGIC, DEFLATED = b"ODV2", b"ODVD"
MAX_INFLATED = 256 << 20  # bytes; a file that says more is not unpacked
MAX_KEYS = 1 << 24  # of a file, where a reader does not know the program's rows: dense keys take no bytes
STRINGS = 0
INTEGERS = 1  # plus the width
MAX_WIDTH = 18
FINGERPRINTED, HASHED = 254, 255
# Two values at each end of 64 bits stay free, so that a reader in any language can step past a key.
SMALLEST, LARGEST = -(2**63) + 2, 2**63 - 3

_PLAIN = re.compile(r"0|-?[1-9][0-9]{0,18}")
_DIGITS = re.compile(r"[0-9]{2,18}")


def form_of(text: str) -> tuple[int, int | str]:
    """Form of a key's canonical text, and the key as that form stores it."""
    if _PLAIN.fullmatch(text) and SMALLEST <= int(text) <= LARGEST:
        return INTEGERS, int(text)
    if _DIGITS.fullmatch(text):
        return INTEGERS + len(text), int(text)
    return STRINGS, text


def text_of(form: int, key: int | str) -> str:
    """Canonical text of a stored key."""
    return key if isinstance(key, str) else str(key).zfill(form - INTEGERS)


class Group(NamedTuple):
    """Keys of one form, ascending, that own consecutive rows from ``base_row``.

    Of a fingerprinted field places in place of keys, of a hashed one hash values.
    """

    base_row: int
    form: int
    keys: Sequence[int] | Sequence[str] | np.ndarray


@dataclass(frozen=True)
class FieldKeys:
    """The keys of one field.

    Args:
        unknown_row: row of a value that is in no group.
        groups: runs of keys with consecutive rows.
        fingerprints: what gives a key's place, where groups hold places.
    """

    unknown_row: int
    groups: tuple[Group, ...]
    fingerprints: Fingerprints | None = None


def encode(fields: Sequence[FieldKeys]) -> bytes:
    """The file's bytes.

    Raises: ValueError: when a group is empty or its keys do not ascend, or two groups of a field share a key.
    """
    out = bytearray(varint(len(fields)))
    for field in fields:
        out += varint(field.unknown_row) + varint(len(field.groups))
        for group in field.groups:
            if len(group.keys) == 0:
                raise ValueError("a group needs at least one key")
            out += varint(group.base_row) + varint(len(group.keys)) + bytes([group.form])
        for form, groups in _by_form(field.groups).items():
            if form == FINGERPRINTED:
                assert field.fingerprints is not None
                out += field.fingerprints.encode()
            if form != HASHED:
                out += _encode_keys(groups)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    deflated = DEFLATED + varint(len(out)) + packer.compress(bytes(out)) + packer.flush()
    return min(MAGIC + bytes(out), deflated, key=len)


def _by_form(groups: Sequence[Group]) -> dict[int, list[Group]]:
    by_form: dict[int, list[Group]] = {}
    for group in groups:
        by_form.setdefault(group.form, []).append(group)
    return by_form


def _encode_keys(groups: Sequence[Group]) -> bytes:
    """The keys of all groups of a form as one list, unless they are places, then which group each is in."""
    labels = np.repeat(np.arange(len(groups)), [len(group.keys) for group in groups])
    if groups[0].form == STRINGS:
        texts = [str(key) for group in groups for key in group.keys]
        order = np.array(sorted(range(len(texts)), key=texts.__getitem__))  # by code point, as by UTF-8 byte
        out = _encode_strings([texts[i] for i in order])
    else:
        keys = np.concatenate([np.asarray(group.keys, dtype=np.int64) for group in groups])
        order = np.argsort(keys, kind="stable")
        out = b"" if groups[0].form == FINGERPRINTED else _encode_integers(keys[order])
    for number in range(len(groups)):
        places = order[labels[order] == number]
        if np.any(places[1:] < places[:-1]):
            raise ValueError("a group's keys must ascend")
    labels = labels[order]
    for number in range(len(groups) - 1):
        out += encode_subset(np.flatnonzero(labels == number).astype(np.uint64), len(labels))
        labels = labels[labels != number]
    return out


def _inflated(data: bytes, name: str) -> bytes:
    """The content of a deflated file, as if it had not been."""
    reader = Reader(data, name)
    reader.take(len(DEFLATED))
    return MAGIC + reader.inflated(MAX_INFLATED)


def vocabulary_bytes(fields: Sequence[FieldKeys]) -> int:
    """Bytes that `encode` would write."""
    return len(encode(fields))


def _encode_integers(keys: np.ndarray) -> bytes:
    if np.any(keys[1:] <= keys[:-1]):
        raise ValueError("integer keys must not repeat")
    first = int(keys[0])
    zigzag = first * 2 if first >= 0 else -first * 2 - 1
    # uint64 arithmetic: two int64 may lie further apart than int64 holds
    places = keys.astype(np.uint64) - keys[:1].astype(np.uint64)
    span = int(places[-1])
    return varint(zigzag) + varint(span) + encode_subset(places, span + 1)


def _encode_strings(keys: list[str]) -> bytes:
    shared, further, texts = bytearray(), bytearray(), bytearray()
    before = b""
    for place, key in enumerate(keys):
        data = key.encode()
        if place and data <= before:
            raise ValueError("string keys must not repeat")
        same = 0
        limit = min(len(before), len(data))
        while same < limit and before[same] == data[same]:
            same += 1
        shared += varint(same)
        further += varint(len(data) - same)
        texts += data[same:]
        before = data
    return bytes(shared + further + texts)


def decode(data: bytes, name: str = "vocabulary.bin", num_rows: int | None = None) -> list[FieldKeys]:
    """Read what `encode` wrote.

    Args:
        data: the file's content.
        name: its name, for messages.
        num_rows: the program's number of rows, which no row may exceed; None to accept any.

    Raises: UserError: when the content is not a whole vocabulary.
    """
    if data.startswith(DEFLATED):
        data = _inflated(data, name)
    reader = Reader(data, name)
    if reader.take(min(4, len(data))) != MAGIC:
        raise reader.wrong(f"begins with neither {MAGIC.decode()} nor {DEFLATED.decode()}")
    num_fields = reader.varint("number of fields")
    if num_fields * 2 > len(data):
        raise reader.wrong(f"{num_fields} fields in {len(data)} bytes")
    fields = []
    num_keys, most = 0, MAX_KEYS if num_rows is None else num_rows
    for f in range(num_fields):
        unknown_row = _read_row(reader, f"unknown row of field {f}", num_rows)
        num_groups = reader.varint(f"number of groups of field {f}")
        if num_groups * 3 > len(data):
            raise reader.wrong(f"{num_groups} groups in {len(data)} bytes")
        heads = [_decode_head(reader, num_rows) for _ in range(num_groups)]
        num_keys += sum(len(head.keys) for head in heads)
        if num_keys > most:
            raise reader.wrong(f"{num_keys} keys, where {most} are possible")
        fields.append(_decode_field(reader, unknown_row, heads))
    if reader.at != len(data):
        raise reader.wrong(f"{len(data) - reader.at} bytes follow the last field")
    return fields


def _read_row(reader: Reader, what: str, num_rows: int | None) -> int:
    row = reader.varint(what)
    if num_rows is not None and row > num_rows:
        raise reader.wrong(f"the {what} is {row}, but the program has {num_rows} rows")
    return row


def _decode_head(reader: Reader, num_rows: int | None) -> Group:
    """A group without its keys, which are only counted."""
    base_row = _read_row(reader, "first row of a group", num_rows)
    num_keys = reader.varint("number of keys")
    form = reader.byte()
    if num_keys < 1 or (num_rows is not None and base_row + num_keys > num_rows):
        raise reader.wrong(f"a group of {num_keys} keys from row {base_row}")
    if form < FINGERPRINTED and (form > INTEGERS + MAX_WIDTH or form == INTEGERS + 1):
        raise reader.wrong(f"no form {form} of keys")
    return Group(base_row, form, range(num_keys))


def _decode_field(reader: Reader, unknown_row: int, heads: Sequence[Group]) -> FieldKeys:
    """A field, its groups with their keys."""
    groups = list(heads)
    prints: Fingerprints | None = None
    forms = list(dict.fromkeys(head.form for head in heads))
    if FINGERPRINTED in forms and len(forms) > 1:
        raise reader.wrong("fingerprints beside other keys in a field")
    for form in forms:
        if form == HASHED:
            continue
        places = [place for place, head in enumerate(heads) if head.form == form]
        count = sum(len(heads[place].keys) for place in places)
        texts = _decode_strings(reader, count) if form == STRINGS else None
        if form == FINGERPRINTED:
            prints = fingerprints.decode(reader, count)
        is_listed = form not in (STRINGS, FINGERPRINTED)
        keys = _decode_integers(reader, count, form - INTEGERS) if is_listed else np.arange(count)
        for place in places:
            chosen = keys
            if place != places[-1]:
                members = reader.subset(len(heads[place].keys), len(keys)).view(np.int64)
                is_chosen = np.zeros(len(keys), dtype=bool)
                is_chosen[members] = True
                chosen, keys = keys.take(members), keys[~is_chosen]
            listed = chosen.tolist()
            groups[place] = Group(
                heads[place].base_row, form, listed if texts is None else [texts[i] for i in listed]
            )
    return FieldKeys(unknown_row, tuple(groups), prints)


def _decode_integers(reader: Reader, num_keys: int, width: int) -> np.ndarray:
    zigzag = reader.varint("first key")
    first = zigzag >> 1 if zigzag % 2 == 0 else -(zigzag >> 1) - 1
    last = first + reader.varint("span of keys")
    low, high = (0, 10**width - 1) if width else (SMALLEST, LARGEST)
    if first < low or last > high:
        raise reader.wrong(f"a key outside {low} to {high}")
    places = reader.subset(num_keys, last - first + 1)
    if places[0] != 0 or places[-1] != last - first:
        raise reader.wrong("keys that do not begin at the first or end at the last")
    return (places + np.uint64(first % 2**64)).view(np.int64)


def _decode_strings(reader: Reader, num_keys: int) -> list[str]:
    if num_keys * 2 > reader.left:
        raise reader.wrong(f"{num_keys} texts in {reader.left} bytes")
    shared = reader.varints(num_keys, "shared bytes of a text")
    further = reader.varints(num_keys, "bytes of a text")
    texts, at = reader.take(sum(further)), 0
    keys: list[str] = []
    before = b""
    for place, (same, rest) in enumerate(zip(shared, further, strict=True)):
        if same > len(before):
            raise reader.wrong(f"a text shares {same} bytes with one of {len(before)}")
        data = before[:same] + texts[at : at + rest]
        at += rest
        if place and data <= before:
            raise reader.wrong("texts out of order")
        try:
            keys.append(data.decode())
        except UnicodeDecodeError:
            raise reader.wrong("a text that is not UTF-8") from None
        before = data
    return keys
