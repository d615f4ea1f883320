"""vocabulary.bin: from a field's value, as canonical text, to the program's row.

Version 1, little endian, varint = unsigned LEB128::

    "ODV1"
    varint num_fields
    per field, in schema order:
      varint unknown_row       row of a value that is not in the vocabulary
      varint num_groups
      per group:
        varint base_row        its keys own rows base_row, base_row + 1, ... in the order stored
        varint num_keys        at least 1
        u8 form                0: strings; 1 + w: integers as decimal text of width w, 0 = no padding; 255: hashed,
                               and nothing follows: any text owns row base_row + FNV-1a(text) mod num_keys
        integers: varint zigzag(first key); u8 k; varint payload_bytes; Rice codes of (delta - 1) between
                  ascending keys, most significant bit first: v >> k one-bits, a zero-bit, k low bits
        strings:  ascending by UTF-8 bytes; varint bytes shared with the key before, varint further bytes, those

Where that takes fewer bytes, the file is "ODVD", varint size, and the raw deflate (RFC 1951) of those ``size`` bytes
that follow "ODV1": texts then need a quarter.

A key's canonical text decides its form: a plain integer that fits 64 bits, else 2 to 18 digits (a zip code with
a leading zero), else a string.
"""

from __future__ import annotations

import re
import zlib
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ondevice.data.key_hash import key_hash
from ondevice.errors import UserError

MAGIC, DEFLATED = b"ODV1", b"ODVD"
MAX_INFLATED = 256 << 20  # bytes; a file that says more is not unpacked
STRINGS = 0
INTEGERS = 1  # plus the width
MAX_WIDTH = 18
HASHED = 255
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


@dataclass(frozen=True)
class Group:
    """Keys of one form, ascending, that own consecutive rows from ``base_row``; of a hashed field, hash values."""

    base_row: int
    form: int
    keys: Sequence[int] | Sequence[str] | np.ndarray


@dataclass(frozen=True)
class FieldKeys:
    """The keys of one field.

    Args:
        unknown_row: row of a value that is in no group.
        groups: runs of keys with consecutive rows.
    """

    unknown_row: int
    groups: tuple[Group, ...]


def encode(fields: Sequence[FieldKeys]) -> bytes:
    """The file's bytes.

    Raises: ValueError: when a group is empty or its keys do not ascend.
    """
    out = bytearray(_varint(len(fields)))
    for field in fields:
        out += _varint(field.unknown_row) + _varint(len(field.groups))
        for group in field.groups:
            out += encode_group(group)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    deflated = DEFLATED + _varint(len(out)) + packer.compress(bytes(out)) + packer.flush()
    return min(MAGIC + bytes(out), deflated, key=len)


def _inflated(data: bytes, name: str) -> bytes:
    """The content of a deflated file, as if it had not been."""
    reader = _Reader(data, name)
    reader.take(len(DEFLATED))
    size = reader.varint("size of the content")
    if size > MAX_INFLATED:
        raise reader.wrong(f"says that it unpacks to {size} bytes")
    unpacker = zlib.decompressobj(-15)
    try:
        content = unpacker.decompress(data[reader.at :], size + 1)
    except zlib.error as error:
        raise reader.wrong(f"cannot be unpacked ({error})") from None
    if len(content) != size or not unpacker.eof or unpacker.unused_data:
        raise reader.wrong(f"does not unpack to {size} bytes")
    return MAGIC + content


def encode_group(group: Group) -> bytes:
    """The bytes of one group."""
    if len(group.keys) == 0:
        raise ValueError("a group needs at least one key")
    head = _varint(group.base_row) + _varint(len(group.keys)) + bytes([group.form])
    if group.form == HASHED:
        return head
    if group.form == STRINGS:
        return head + _encode_strings([str(key) for key in group.keys])
    return head + _encode_integers(np.asarray(group.keys, dtype=np.int64))


def vocabulary_bytes(fields: Sequence[FieldKeys]) -> int:
    """Bytes that `encode` would write."""
    return len(encode(fields))


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _encode_integers(keys: np.ndarray) -> bytes:
    if np.any(keys[1:] <= keys[:-1]):
        raise ValueError("integer keys must ascend without repeats")
    first = int(keys[0])
    # uint64 arithmetic: two int64 may lie further apart than int64 holds
    gaps = keys[1:].astype(np.uint64) - keys[:-1].astype(np.uint64) - np.uint64(1)
    k = _rice_parameter(gaps)
    payload = _rice_encode(gaps, k)
    zigzag = first * 2 if first >= 0 else -first * 2 - 1
    return _varint(zigzag) + bytes([k]) + _varint(len(payload)) + payload


def _rice_parameter(gaps: np.ndarray) -> int:
    """The parameter with the fewest bits."""
    if len(gaps) == 0:
        return 0
    middle = max(float(gaps.astype(np.float64).mean()), 1.0)
    near = int(np.log2(middle))
    candidates = range(max(0, near - 3), min(63, near + 3) + 1)
    return min(candidates, key=lambda k: _rice_bits(gaps, k))


def _rice_bits(gaps: np.ndarray, k: int) -> int:
    return int((gaps >> np.uint64(k)).sum(dtype=np.uint64)) + len(gaps) * (k + 1)


def _rice_encode(gaps: np.ndarray, k: int) -> bytes:
    quotients = (gaps >> np.uint64(k)).astype(np.int64)
    ends = np.cumsum(quotients + k + 1)
    bits = np.zeros(int(ends[-1]) if len(ends) else 0, dtype=np.uint8)
    starts = ends - quotients - k - 1
    # ones from each start up to its zero-bit: +1 at the start, -1 at the zero-bit, summed
    steps = np.zeros(len(bits) + 1, dtype=np.int64)
    np.add.at(steps, starts, 1)
    np.add.at(steps, starts + quotients, -1)
    bits[:] = np.cumsum(steps)[:-1]
    for j in range(k):
        bits[ends - 1 - j] = (gaps >> np.uint64(j)) & np.uint64(1)
    return np.packbits(bits).tobytes()


def _encode_strings(keys: list[str]) -> bytes:
    out = bytearray()
    before = b""
    for place, key in enumerate(keys):
        data = key.encode()
        if place and data <= before:
            raise ValueError("string keys must ascend by their UTF-8 bytes without repeats")
        shared = 0
        limit = min(len(before), len(data))
        while shared < limit and before[shared] == data[shared]:
            shared += 1
        out += _varint(shared) + _varint(len(data) - shared) + data[shared:]
        before = data
    return bytes(out)


class _Reader:
    """Bounds-checked reading; what is wrong becomes one sentence with the file's name."""

    def __init__(self, data: bytes, name: str) -> None:
        self.data, self.name, self.at = data, name, 0

    def wrong(self, what: str) -> UserError:
        return UserError(f"{self.name}: {what} (byte {self.at}); the file is damaged, export it again")

    def take(self, count: int) -> bytes:
        if count > len(self.data) - self.at:
            raise self.wrong(f"ends {count - len(self.data) + self.at} bytes early")
        self.at += count
        return self.data[self.at - count : self.at]

    def varint(self, what: str) -> int:
        value = shift = 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                if value >= 2**64:
                    raise self.wrong(f"the {what} is beyond 64 bits")
                return value
            if shift > 63:
                raise self.wrong(f"the {what} is beyond 64 bits")

    def row(self, what: str, num_rows: int | None) -> int:
        value = self.varint(what)
        if num_rows is not None and value > num_rows:
            raise self.wrong(f"the {what} is {value}, but the program has {num_rows} rows")
        return value


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
    reader = _Reader(data, name)
    if reader.take(min(4, len(data))) != MAGIC:
        raise reader.wrong(f"begins with neither {MAGIC.decode()} nor {DEFLATED.decode()}")
    num_fields = reader.varint("number of fields")
    if num_fields * 2 > len(data):
        raise reader.wrong(f"{num_fields} fields in {len(data)} bytes")
    fields = []
    for f in range(num_fields):
        unknown_row = reader.row(f"unknown row of field {f}", num_rows)
        num_groups = reader.varint(f"number of groups of field {f}")
        if num_groups * 3 > len(data):
            raise reader.wrong(f"{num_groups} groups in {len(data)} bytes")
        groups = tuple(_decode_group(reader, num_rows) for _ in range(num_groups))
        fields.append(FieldKeys(unknown_row, groups))
    if reader.at != len(data):
        raise reader.wrong(f"{len(data) - reader.at} bytes follow the last field")
    return fields


def _decode_group(reader: _Reader, num_rows: int | None) -> Group:
    base_row = reader.row("first row of a group", num_rows)
    num_keys = reader.varint("number of keys")
    if num_keys < 1 or (num_rows is not None and base_row + num_keys > num_rows):
        raise reader.wrong(f"a group of {num_keys} keys from row {base_row}")
    form = reader.take(1)[0]
    if form == STRINGS:
        return Group(base_row, form, _decode_strings(reader, num_keys))
    if form == HASHED:
        return Group(base_row, form, range(num_keys))
    if form > INTEGERS + MAX_WIDTH or form == INTEGERS + 1:
        raise reader.wrong(f"no form {form} of keys")
    keys = _decode_integers(reader, num_keys)
    width = form - INTEGERS
    low, high = (0, 10**width - 1) if width else (SMALLEST, LARGEST)
    if keys[0] < low or keys[-1] > high:
        raise reader.wrong(f"a key outside {low} to {high}")
    return Group(base_row, form, keys)


def _decode_integers(reader: _Reader, num_keys: int) -> list[int]:
    zigzag = reader.varint("first key")
    keys = [zigzag >> 1 if zigzag % 2 == 0 else -(zigzag >> 1) - 1]
    k = reader.take(1)[0]
    if k > 63:
        raise reader.wrong(f"a Rice parameter of {k}")
    payload = reader.take(reader.varint("size of a group's keys"))
    if num_keys - 1 > 8 * len(payload):
        raise reader.wrong(f"{num_keys} keys in {len(payload)} bytes")
    bits = np.unpackbits(np.frombuffer(payload, dtype=np.uint8))
    zeros = iter(np.flatnonzero(bits == 0).tolist())
    padded = payload + bytes(9)
    at, key = 0, keys[0]
    mask = (1 << k) - 1
    for _ in range(num_keys - 1):
        zero = next((z for z in zeros if z >= at), None)
        if zero is None or zero + 1 + k > len(bits):
            raise reader.wrong("a group's keys end early")
        low_at = zero + 1
        window = int.from_bytes(padded[low_at >> 3 : (low_at >> 3) + 9], "big")
        key += ((zero - at) << k | (window >> (72 - (low_at & 7) - k)) & mask) + 1
        keys.append(key)
        at = low_at + k
    if (at + 7) // 8 != len(payload) or bits[at:].any():
        raise reader.wrong("bits follow a group's last key")
    return keys


def _decode_strings(reader: _Reader, num_keys: int) -> list[str]:
    if num_keys * 2 > len(reader.data) - reader.at:
        raise reader.wrong(f"{num_keys} texts in {len(reader.data) - reader.at} bytes")
    keys: list[str] = []
    before = b""
    for place in range(num_keys):
        shared = reader.varint("shared bytes of a text")
        if shared > len(before):
            raise reader.wrong(f"a text shares {shared} bytes with one of {len(before)}")
        data = before[:shared] + reader.take(reader.varint("bytes of a text"))
        if place and data <= before:
            raise reader.wrong("texts out of order")
        try:
            keys.append(data.decode())
        except UnicodeDecodeError:
            raise reader.wrong("a text that is not UTF-8") from None
        before = data
    return keys


class RowLookup:
    """Rows of canonical texts, and texts of rows.

    Args:
        fields: the keys of each field.
    """

    def __init__(self, fields: Sequence[FieldKeys]) -> None:
        self.fields = list(fields)
        self._groups = [
            [(g, [int(k) for k in g.keys] if g.form else list(g.keys)) for g in f.groups if g.form != HASHED]
            for f in fields
        ]
        self._hashed = [next((g for g in f.groups if g.form == HASHED), None) for f in fields]

    def row(self, field: int, text: str | None) -> int:
        """Row of a canonical text; the field's unknown row for None and, unless it is hashed, for what is not there."""
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
        """Row and canonical text of every stored key of a field, by ascending row."""
        for group, keys in sorted(self._groups[field], key=lambda g: g[0].base_row):
            for place, key in enumerate(keys):
                yield group.base_row + place, text_of(group.form, key)

    def num_keys(self, fields: Iterable[int] | None = None) -> int:
        """Number of stored keys of some fields, by default of all."""
        chosen = range(len(self.fields)) if fields is None else fields
        return sum(len(keys) for f in chosen for _, keys in self._groups[f])
