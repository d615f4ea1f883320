"""One field of one chunk: its distinct keys, ascending, and each row's place among them."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from ondevice.data.arrow import plain_values, unpacked
from ondevice.data.field import Field, log_integer
from ondevice.data.keys import LARGEST


def encode_column(field: Field, column: Any) -> tuple[np.ndarray, np.ndarray | list[str]]:
    """Codes (n,) of the fewest bytes and the keys they stand for: code 0 is unknown, code i is keys[i - 1].

    Of several slots K the codes are (n, K); of a number the key is what `number_keys` makes of it, of a missing one
    what it makes of minus infinity.

    Args:
        field: gives the canonical keys.
        column: Arrow array (n,) of raw values, null where they are missing; if it is dictionary-encoded
            already, no null is in the dictionary.
    """
    encoded = column if hasattr(column, "dictionary") else column.dictionary_encode()
    if field.slots > 1:
        return _encode_bags(field, encoded)
    raws = encoded.dictionary
    indices = encoded.indices
    if indices.null_count:
        indices = indices.fill_null(len(raws))
    keys, known = keys_of(field, raws)
    missing = field.missing
    distinct: np.ndarray | list[str]
    if isinstance(keys, np.ndarray):
        if encoded.null_count and missing is not None:
            missing_key = number_keys(np.array([-np.inf]))[0] if field.reads_numbers else missing
            keys, known = np.append(keys, missing_key), np.append(known, True)
        distinct, places = np.unique(keys[known], return_inverse=True)
    else:
        distinct = sorted({key for key in keys if key is not None})
        place_of = {key: place for place, key in enumerate(distinct)}
        places = np.array([place_of[key] for key in keys if key is not None], dtype=np.int64)
    smallest = np.min_scalar_type(len(distinct))
    code_of = np.zeros(len(raws) + 1, dtype=smallest)
    code_of[: len(known)][known] = places + 1
    return code_of[indices.to_numpy(zero_copy_only=False)], distinct


def _encode_bags(field: Field, encoded: Any) -> tuple[np.ndarray, np.ndarray | list[str]]:
    """`encode_column` of several values, which `canonical` has as one text."""
    bags = [field.kept(unpacked(text)) for text in encoded.dictionary.to_pylist()]
    distinct: Any = sorted({key for keys in bags for key in keys})
    place_of = {key: place for place, key in enumerate(distinct, start=1)}
    code_of = np.zeros((len(bags) + 1, field.slots), dtype=np.min_scalar_type(len(distinct)))
    for row, keys in zip(code_of, bags, strict=False):
        row[: len(keys)] = [place_of[key] for key in keys]
    indices = encoded.indices.fill_null(len(bags)).to_numpy(zero_copy_only=False)
    return code_of[indices], np.array(distinct, dtype=np.int64) if field.has_integer_keys else distinct


def num_cut(field: Field, column: Any) -> int:
    """Rows with more values than the field has slots."""
    if field.slots == 1:
        return 0
    encoded = column.dictionary_encode()
    is_cut = [len(unpacked(text)) > field.slots for text in encoded.dictionary.to_pylist()]
    return int(np.array([*is_cut, False])[encoded.indices.fill_null(len(is_cut)).to_numpy()].sum())


def number_keys(numbers: np.ndarray) -> np.ndarray:
    """int64 in the same order as finite float64 numbers, equal where they are."""
    bits = (numbers + 0.0).view(np.int64)  # -0.0 becomes 0.0
    return np.where(bits < 0, bits ^ np.int64(2**63 - 1), bits)


def numbers_of(keys: np.ndarray) -> np.ndarray:
    """The numbers that `number_keys` made keys of."""
    return np.where(keys < 0, keys ^ np.int64(2**63 - 1), keys).view(np.float64)


def number_to_keys(field: Field, numbers: np.ndarray) -> np.ndarray:
    """`Field.key` (int64) of numbers, and of minus infinity for missing ones; all that is learnt is known."""
    if field.kind == "number":
        return np.searchsorted(np.array(field.boundaries, dtype=np.float64), numbers, side="right")
    keys = [field.key(None if number == -np.inf else number) for number in numbers.tolist()]
    return np.array(keys, dtype=np.int64)


def keys_of(field: Field, raws: Any) -> tuple[np.ndarray | list[str | None], np.ndarray]:
    """`Field.key` of each value of an Arrow array without nulls, and where it is known.

    Integers and hexadecimal texts of eight digits are computed array by array, the rest value by value.
    """
    import pyarrow as pa

    kind = raws.type
    if field.reads_numbers:
        numbers = raws.to_numpy(zero_copy_only=False).astype(np.float64)
        return number_keys(numbers), np.ones(len(numbers), dtype=bool)
    if (
        pa.types.is_signed_integer(kind)
        and field.kind == "integer"
        and field.transform in (None, "log_integer")
    ):
        values = raws.to_numpy(zero_copy_only=False).astype(np.int64)
        keys = values if field.transform is None else log_integers(values)
        return keys, np.ones(len(keys), dtype=bool)
    if field.transform == "hex" and len(raws) and _holds_texts(kind):
        parsed = parse_hexadecimal(raws)
        if parsed is not None:
            return parsed
    listed = field.keys(plain_values(raws, f"field '{field.name}'"))
    known = np.array([key is not None for key in listed], dtype=bool)
    if field.kind == "string":
        return listed, known  # type: ignore[return-value]  # a field of strings has keys of strings
    return np.array([0 if key is None else key for key in listed], dtype=np.int64), known


def log_integers(values: np.ndarray) -> np.ndarray:
    """`log_integer` of int64 values, exactly."""
    bounds = _bucket_bounds()
    buckets = np.searchsorted(bounds, values, side="right")
    return np.where(values > 2, buckets, values)


@cache
def _bucket_bounds() -> np.ndarray:
    """The smallest integer above 2 of every bucket from 1: found by bisection, so that rounding is the same."""
    bounds, last = [3], log_integer(LARGEST)
    for bucket in range(2, last + 1):
        low, high = bounds[-1], LARGEST
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if log_integer(middle) >= bucket else (middle, high)
        bounds.append(high)
    return np.array(bounds, dtype=np.int64)


def parse_hexadecimal(texts: Any) -> tuple[np.ndarray, np.ndarray] | None:
    """Numbers that texts of eight hexadecimal digits write, and which are such; None where a length differs."""
    digits = _bytes_of_length(texts, 8)
    if digits is None:
        return None
    values = _DIGITS[digits]
    known = (values < 16).all(axis=1)
    keys = np.zeros(len(digits), dtype=np.int64)
    for place in range(8):
        keys = (keys << 4) | values[:, place]
    return np.where(known, keys, 0), known


_DIGITS = np.full(256, 16, dtype=np.uint8)
for _value, _digit in enumerate("0123456789abcdef"):
    _DIGITS[[ord(_digit), ord(_digit.upper())]] = _value


def _bytes_of_length(texts: Any, length: int) -> np.ndarray | None:
    """The bytes (n, length) of an Arrow array of texts that all have this length."""
    import pyarrow as pa

    kind = texts.type
    wide = pa.types.is_large_string(kind) or pa.types.is_large_binary(kind)
    offsets_dtype = np.int64 if wide else np.int32
    _, offsets_buffer, data = texts.buffers()
    offsets = np.frombuffer(offsets_buffer, dtype=offsets_dtype)[texts.offset : texts.offset + len(texts) + 1]
    if not (np.diff(offsets) == length).all():
        return None
    content = np.frombuffer(data, dtype=np.uint8)
    return content[int(offsets[0]) : int(offsets[-1])].reshape(-1, length)


def _holds_texts(kind: Any) -> bool:
    import pyarrow as pa

    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
    return any(test(kind) for test in tests)
