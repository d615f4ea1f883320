"""Columns of Arrow as plain values."""

from __future__ import annotations

import datetime
from typing import Any

from ondevice.data.schema import number_of
from ondevice.errors import DataError

PARQUET_SUFFIXES = (".parquet", ".pq")


def parse_time(raw: Any) -> float:
    """Seconds (or any number) from a number or an ISO 8601 date. Raises ValueError for anything else."""
    number = number_of(raw)
    if number is not None:
        return number
    if isinstance(raw, str):
        try:
            raw = datetime.datetime.fromisoformat(raw.strip().replace("Z", "+00:00"))
        except ValueError:
            raise ValueError(f"time {raw!r} is neither a number nor an ISO 8601 date") from None
    if isinstance(raw, datetime.date) and not isinstance(raw, datetime.datetime):
        raw = datetime.datetime(raw.year, raw.month, raw.day)
    if isinstance(raw, datetime.datetime):
        return (raw if raw.tzinfo else raw.replace(tzinfo=datetime.timezone.utc)).timestamp()
    raise ValueError(f"time {raw!r} is neither a number nor an ISO 8601 date")


def plain_values(pa: Any, array: Any, where: str) -> list[Any]:
    """Numbers, texts, dates and None from an Arrow array. Raises UserError for a nested type."""
    kind = array.type
    if pa.types.is_dictionary(kind):
        array, kind = array.dictionary_decode(), kind.value_type
    if pa.types.is_nested(kind):
        raise DataError(f"{where} is of type {kind}; a field needs one number or text per row")
    if pa.types.is_decimal(kind):
        array = array.cast(pa.float64())
    elif pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        array = array.cast(pa.large_string())
    elif pa.types.is_timestamp(kind):
        array = array.cast(pa.timestamp("us", tz=kind.tz), safe=False)
    values: list[Any] = array.to_pylist()
    if pa.types.is_floating(array.type):
        values = [None if value != value else value for value in values]
    return values
