"""Times in a table's cells: numbers, dates as ISO 8601 writes them, or any format that strptime knows."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from ondevice.data.field import number_of

# Python 3.10's fromisoformat takes fractions of three or six digits only, and no "UTC".
_ISO = re.compile(
    r"(\d{4})-(\d\d?)-(\d\d?)(?:[T ]+(\d\d?):(\d\d)(?::(\d\d)(?:[.,](\d+))?)?)?\s*(Z|UTC|GMT|[+-]\d\d(?::?\d\d)?)?"
)
_UNITS = ((1e11, "seconds"), (1e14, "milliseconds"), (1e17, "microseconds"), (np.inf, "nanoseconds"))
FIRST_MOMENT = 1e8  # smaller numbers count something else than seconds since 1970


def time_parser(form: str | None) -> Callable[[Any], float]:
    """What turns a cell into seconds: by a format of strptime, or `parse_time`. It raises ValueError."""
    if form is None:
        return parse_time

    def parse(raw: Any) -> float:
        try:
            return _seconds(datetime.datetime.strptime(str(raw).strip(), form))
        except ValueError:
            raise ValueError(f"time {raw!r} is not of the form {form!r} (split.time_format)") from None

    return parse


def parse_time(raw: Any) -> float:
    """Seconds from a date, or any number as it stands. Raises ValueError for anything else."""
    number = number_of(raw)
    if number is not None:
        return number
    if isinstance(raw, datetime.datetime):
        return _seconds(raw)
    if isinstance(raw, datetime.date):
        return _seconds(datetime.datetime(raw.year, raw.month, raw.day))
    match = _ISO.fullmatch(raw.strip()) if isinstance(raw, str) else None
    if match is not None:
        year, month, day, hour, minute, second, fraction, zone = match.groups()
        try:
            days = [int(part or 0) for part in (year, month, day, hour, minute, second)]
            moment = datetime.datetime(*days).replace(tzinfo=datetime.timezone(_offset(zone)))  # type: ignore[arg-type]
        except ValueError:
            pass
        else:
            return moment.timestamp() + (float(f"0.{fraction}") if fraction else 0.0)
    raise ValueError(
        f"time {raw!r} is neither a number nor an ISO 8601 date; for another form, write split: "
        '{time_format: "%d.%m.%Y %H:%M"}'
    )


def _seconds(moment: datetime.datetime) -> float:
    return (moment if moment.tzinfo else moment.replace(tzinfo=datetime.timezone.utc)).timestamp()


def _offset(zone: str | None) -> datetime.timedelta:
    if zone is None or zone[0] not in "+-":
        return datetime.timedelta()
    digits = zone[1:].replace(":", "").ljust(4, "0")
    offset = datetime.timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
    return -offset if zone[0] == "-" else offset


def seconds(times: np.ndarray) -> np.ndarray:
    """Times as `parse_time` gives them in seconds: what looks like a smaller unit is divided.

    Shape: (n,) float64 -> (n,) float64.
    """
    if not len(times) or float(times.max()) < FIRST_MOMENT:
        return times
    thousands = next(n for n, (bound, _) in enumerate(_UNITS) if float(times.max()) < bound)
    return times / 1000.0**thousands


def doubts(column: str, smallest: float, largest: float) -> str | None:
    """What is odd about a column of times, if anything.

    Args:
        column: its name.
        smallest: of its values.
        largest: of its values.
    """
    if smallest == largest:
        return f"time '{column}' has one value only, so rows keep the order of the file"
    if smallest < FIRST_MOMENT:
        return None
    units = [next(name for bound, name in _UNITS if value < bound) for value in (smallest, largest)]
    if units[0] != units[1]:
        return f"time '{column}' looks like {units[0]} in some rows and like {units[1]} in others"
    return None
