"""Values of Arrow arrays as Python has them, and the canonical keys of whole columns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ondevice.data.field import Field
from ondevice.errors import DataError


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

    Returns: an Arrow array: int64 or string keys; raw values where the field has a transform; null where a value
        is missing. And the trouble of each row whose value is neither missing nor what the field needs.
    """
    import pyarrow as pa
    from pyarrow import compute as pc

    check_flat(column, where)
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
    if field.transform is None:
        keys = [
            None if value is None or place in reasons else field.key(value)
            for place, value in enumerate(values)
        ]
        taken = pa.array(keys, pa.int64() if field.kind == "integer" else pa.string())
    elif missing:
        taken = pc.if_else(pa.array([value is None for value in values]), pa.scalar(None, raws.type), raws)
    else:
        taken = raws
    indices = encoded.indices
    wrong: dict[int, str] = {}
    if reasons:
        places = indices.fill_null(len(values)).to_numpy(zero_copy_only=False)
        for row in np.flatnonzero(np.isin(places, list(reasons))).tolist():
            wrong[row] = reasons[int(places[row])]
    return taken.take(indices), wrong


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
    return raws.cast(pa.int64()) if field.transform in (None, "log_integer") else raws


def parsed(
    column: Any, parse: Callable[[Any], float | None], missing: frozenset[str], where: str
) -> tuple[np.ndarray, dict[int, str]]:
    """What ``parse`` makes of each value (float64, NaN for None), and why some rows have none."""
    check_flat(column, where)
    encoded = column if hasattr(column, "dictionary") else column.dictionary_encode()
    values, reasons = [], {}
    for place, raw in enumerate([*plain_values(encoded.dictionary, where), None]):
        try:
            value = parse(None if raw in missing else raw)
        except ValueError as error:
            value, reasons[place] = None, str(error)
        values.append(np.nan if value is None else float(value))
    places = encoded.indices.fill_null(len(values) - 1).to_numpy(zero_copy_only=False)
    wrong: dict[int, str] = {}
    for place, reason in reasons.items():
        wrong.update(dict.fromkeys(np.flatnonzero(places == place).tolist(), reason))
    return np.array(values, dtype=np.float64)[places], wrong
