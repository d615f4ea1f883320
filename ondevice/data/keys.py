"""The number or text that a raw value stands for."""

from __future__ import annotations

import math
import numbers
import re
from typing import Any

SMALLEST, LARGEST = -(2**63), 2**63 - 1
INTEGER = re.compile(r"\s*([+-]?[0-9]+)(?:\.0*)?\s*")


def number_of(raw: Any) -> float | None:
    """A finite number from a raw value, or None."""
    if isinstance(raw, (str, numbers.Real)):
        if isinstance(raw, str) and "_" in raw:  # float() takes 1_000 for 1000
            return None
        try:
            number = float(raw)
        except (ValueError, OverflowError):
            return None
        return number if math.isfinite(number) else None
    return None


def integer_key(raw: Any) -> int | None:
    """The whole number that a raw value is, or None."""
    if isinstance(raw, numbers.Integral):
        value = int(raw)
    elif isinstance(raw, str):
        match = INTEGER.fullmatch(raw)
        if match is None:
            return None
        value = int(match[1])
    elif isinstance(raw, numbers.Real) and math.isfinite(raw) and float(raw).is_integer():
        value = int(float(raw))
    else:
        return None
    return value if SMALLEST <= value <= LARGEST else None


def string_key(raw: Any) -> str | None:
    """The text that a raw value is, or None: whole numbers have one spelling."""
    if isinstance(raw, str):
        return str(raw) or None
    if isinstance(raw, numbers.Real) and not isinstance(raw, numbers.Integral):
        if not math.isfinite(raw):
            return None
        return str(int(float(raw))) if float(raw).is_integer() else repr(float(raw))
    return str(raw)
