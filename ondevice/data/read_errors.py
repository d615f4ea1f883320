"""What the engine says of a file that it cannot read, in a line."""

from __future__ import annotations

import re

from ondevice.data.parts import Part
from ondevice.errors import UserError

DAMAGED = "the packed data end in the middle or are damaged; get the file again"


def trouble_of(kind: str, message: str) -> str:
    """What is wrong with a line that DuckDB rejected, by the kind and the message of the reject."""
    if kind in ("MISSING COLUMNS", "TOO MANY COLUMNS"):
        expected, got = (int(word) for word in message.split() if word.isdecimal())
        return f"{got} columns where {expected} are expected"
    if kind == "INVALID ENCODING":
        return "bytes that cannot be decoded; if many lines are so, name the right encoding (format.encoding)"
    return " ".join(message.split())


def readable_error(part: Part, error: Exception) -> UserError:
    """An error of DuckDB that names the file, the line where it is known, and the way out."""
    text = str(error)
    if "GZIP" in text or "ZSTD" in text.upper():
        return UserError(f"{part.path}: {DAMAGED}")
    if "nvalid unicode" in text:
        line = re.search(r"on Line: (\d+)", text)
        return UserError(
            f"{part.path}:{line[1] if line else 1}: bytes that are not utf-8; name the right encoding "
            "(format.encoding)"
        )
    if part.kind == "parquet":
        return UserError(f"{part.path}: not a whole Parquet file ({text.splitlines()[0]})")
    return UserError(f"{part.path}: {text.splitlines()[0]}")
