"""Values of Arrow arrays as Python has them, and the canonical keys of whole columns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ondevice.data.field import Field, number_of
from ondevice.errors import DataError

UNIT = "\x1f"
"""Begins each value in the text that a list of values is while a table is read."""


def plain_values(array: Any, where: str) -> list[Any]:
    """Numbers, texts, dates and None from an Arrow array.

    Raises: UserError: for a list or a structure, and for bytes that are no text.
    """
    import pyarrow as pa

    kind = array.type
    check_flat(array, where)
    if pa.types.is_dictionary(kind):
        array, kind = array.dictionary_decode(), kind.value_type
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        try:
            array = array.cast(pa.large_string())
        except pa.ArrowInvalid:
            raise DataError(
                f"{where} holds bytes that are no text; write them as texts (hexadecimal ones, say), or as binary "
                "of a fixed size, which is read as hexadecimal"
            ) from None
    elif pa.types.is_timestamp(kind):
        array = array.cast(pa.timestamp("us", tz=kind.tz), safe=False)
    values: list[Any] = array.to_pylist()
    if pa.types.is_floating(array.type):
        values = [None if value != value else value for value in values]
    return values


def check_flat(array: Any, where: str) -> None:
    """Raise UserError for an array of lists or structures."""
    import pyarrow as pa

    if pa.types.is_nested(array.type):
        raise DataError(f"{where} is of type {array.type}; a field needs one number or text per row")


def canonical(field: Field, column: Any, missing: frozenset[str], where: str) -> tuple[Any, dict[int, str]]:
    """A column as its field reads it, and why some rows cannot be read.

    Args:
        field: says what the values are.
        column: Arrow array (n,) of raw values.
        missing: texts that stand for a missing value.
        where: the table and the column, for messages.

    Returns: an Arrow array: int64 or string keys; raw values where the field has a transform, float64 where it reads
        numbers, a text for `unpacked` of several values; null where a value is missing. And the trouble of each row
        whose value is neither missing nor what the field needs.
    """
    import pyarrow as pa
    from pyarrow import compute as pc

    if field.slots > 1:
        return _packed(field, column, missing, where)
    check_flat(column, where)
    if field.reads_numbers and (numbers := _finite(column)) is not None:
        return numbers, {}
    if pa.types.is_signed_integer(column.type) and field.kind == "integer":
        return column.cast(pa.int64()), {}
    if pa.types.is_string(column.type) and field.kind == "string" and not missing:
        return pc.if_else(pc.equal(column, ""), pa.scalar(None, column.type), column), {}
    encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    raws = encoded.dictionary
    fast = _all_good(field, raws, missing)
    if fast is not None:
        return fast.take(encoded.indices), {}
    values = [None if value in missing or value == "" else value for value in plain_values(raws, where)]
    reasons = {
        place: reason
        for place, value in enumerate(values)
        if value is not None and (reason := field.trouble(value)) is not None
    }
    if field.transform is None or field.reads_numbers:
        key = (lambda raw: number_of(field.scalar(raw))) if field.reads_numbers else field.key
        keys = [
            None if value is None or place in reasons else key(value) for place, value in enumerate(values)
        ]
        types = {"integer": pa.int64(), "string": pa.string()}
        taken = pa.array(keys, pa.float64() if field.reads_numbers else types[field.kind])
    elif missing:
        taken = pc.if_else(pa.array([value is None for value in values]), pa.scalar(None, raws.type), raws)
    else:
        taken = raws
    return taken.take(encoded.indices), _rows_of(encoded.indices, reasons, len(values))


def _rows_of(indices: Any, reasons: dict[int, str], num_values: int) -> dict[int, str]:
    """The reason of each row whose value has one."""
    if not reasons:
        return {}
    places = indices.fill_null(num_values).to_numpy(zero_copy_only=False)
    return {row: reasons[int(places[row])] for row in np.flatnonzero(np.isin(places, list(reasons))).tolist()}


def _finite(column: Any) -> Any:
    """A column of finite numbers as float64, NaN as null; None for another."""
    import pyarrow as pa
    from pyarrow import compute as pc

    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        return None
    numbers = column.cast(pa.float64(), safe=False)
    numbers = pc.if_else(pc.is_nan(numbers), pa.scalar(None, pa.float64()), numbers)
    return None if pc.any(pc.is_inf(numbers)).as_py() else numbers


def _packed(field: Field, column: Any, missing: frozenset[str], where: str) -> tuple[Any, dict[int, str]]:
    """`canonical` of a field of several values: lists, or texts with separators."""
    import pyarrow as pa

    kind = column.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        if pa.types.is_nested(kind.value_type):
            raise DataError(f"{where} is of type {kind}; a field of several values needs a flat list per row")
        places: dict[Any, int] = {}
        lists = [None if each is None else tuple(each) for each in column.to_pylist()]
        codes = [None if each is None else places.setdefault(each, len(places)) for each in lists]
        values, indices = list(places), pa.array(codes, pa.int64())
    else:
        check_flat(column, where)
        encoded = column if pa.types.is_dictionary(kind) else column.dictionary_encode()
        values, indices = plain_values(encoded.dictionary, where), encoded.indices
        values = [
            tuple(v[1:].split(UNIT)) if isinstance(v, str) and v.startswith(UNIT) else v for v in values
        ]
    texts: list[str | None] = []
    reasons = {}
    for place, value in enumerate(values):
        left = () if value is None else [each for each in field.elements(value) if each not in missing]
        reason = next(filter(None, (field.trouble([each]) for each in left)), None)
        if reason is not None:
            reasons[place] = reason
        keys = field.bag(left)
        texts.append(UNIT + UNIT.join(map(str, keys)) if keys else None)
    return pa.array(texts, pa.string()).take(indices), _rows_of(indices, reasons, len(values))


def unpacked(text: str | None) -> tuple[str, ...]:
    """The texts of the keys of a row with several values, as `canonical` gave them."""
    return () if text is None else tuple(text[1:].split(UNIT))


_GOOD = {
    None: "^-?[0-9]{1,18}$",
    "log_integer": "^-?[0-9]{1,18}$",
    "log_bucket": "^-?[0-9]{1,18}(\\.[0-9]{1,18})?$",
    "hex": "^[0-9a-fA-F]{1,15}$",
}
"""Texts that Arrow can check at once: what nearly all cells are. Others are looked at one by one."""


def _all_good(field: Field, raws: Any, missing: frozenset[str]) -> Any:
    """The distinct texts of a column of numbers, as integers where the field wants these; None where one is odd."""
    import pyarrow as pa
    from pyarrow import compute as pc

    if field.kind != "integer" or not pa.types.is_string(raws.type):
        return None
    absent = pc.is_in(raws, value_set=pa.array(["", *missing]))
    if not pc.all(pc.or_(absent, pc.match_substring_regex(raws, _GOOD[field.transform]))).as_py():
        return None
    raws = pc.if_else(absent, pa.scalar(None, pa.string()), raws)
    if field.reads_numbers:
        return raws.cast(pa.float64())
    return raws if field.transform == "hex" else raws.cast(pa.int64())


def changed(
    column: Any, change: Callable[[Any], Any], where: str, kind: Any = None
) -> tuple[Any, dict[int, str]]:
    """An Arrow array of what ``change`` makes of each value (None of a null), and why it refuses some rows."""
    import pyarrow as pa

    check_flat(column, where)
    encoded = column if hasattr(column, "dictionary") else column.dictionary_encode()
    values, reasons = [], {}
    for place, raw in enumerate([*plain_values(encoded.dictionary, where), None]):
        try:
            values.append(change(raw) if raw is not None or encoded.null_count else None)
        except ValueError as error:
            values.append(None)
            reasons[place] = str(error)
    indices = encoded.indices.fill_null(len(values) - 1)
    return pa.array(values, kind).take(indices), _rows_of(indices, reasons, len(values))


def parsed(
    column: Any, parse: Callable[[Any], float | None], missing: frozenset[str], where: str
) -> tuple[np.ndarray, dict[int, str]]:
    """What ``parse`` makes of each value (float64, NaN for None), and why some rows have none."""
    import pyarrow as pa

    numbers, wrong = changed(column, lambda raw: parse(None if raw in missing else raw), where, pa.float64())
    return numbers.to_numpy(zero_copy_only=False), wrong
