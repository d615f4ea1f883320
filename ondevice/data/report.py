"""What a preparation tells about the data, so that a dead field or a hashed identifier is seen before training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ondevice.data.schema import Schema
from ondevice.data.sources import say
from ondevice.data.splits import SPLITS, same_in_all

MANY_VALUES = 0.5  # distinct values a training row at which a field looks like a number of the row itself


def describe_fields(
    schema: Schema,
    field_offsets: np.ndarray,
    counts: np.ndarray,
    missing: Sequence[int],
    cut: Sequence[int],
    num_rows: int,
) -> list[dict[str, Any]]:
    """For each field how many values are known, and shares of training rows.

    Args:
        schema: names the fields.
        field_offsets: first id of each field, and the total.
        counts: (N,) training rows of each id.
        missing: training rows of each field without a value.
        cut: rows of each field with more values than it has slots.
        num_rows: training rows.

    Returns: name, values, and the shares missing, unknown (present, but rarer than ``min_count``) and largest (of
        the most frequent known value); where a field has several slots, ``cut`` too.
    """
    fields = []
    for f, field in enumerate(schema.fields):
        source = schema.slots.sources[f]
        occurrences = counts[field_offsets[source] : field_offsets[source + 1]]
        unknown = int(occurrences[0]) - (missing[f] if field.missing is None else 0)
        largest = int(occurrences[1:].max()) if len(occurrences) > 1 else 0
        if field.is_history:  # a row has many of its values, and unknown ones are left out
            unknown = largest = 0
        else:  # where a history is empty, the unknown id of its source is read
            unknown -= sum(missing[h] for h, each in enumerate(schema.fields) if each.of == field.name)
        parts = {"missing": missing[f], "unknown": unknown, "largest": largest}
        shares = {name: part / num_rows for name, part in parts.items()}
        left_out = {"cut": cut[f]} if field.pools else {}
        fields.append({"field": field.name, "values": len(occurrences) - 1, **shares, **left_out})
    return fields


def say_report(name: str, rows: dict[str, int], fields: Sequence[dict[str, Any]]) -> None:
    """Print the rows of each split and `describe_fields`."""
    say(f"{name}: rows " + ", ".join(f"{split} {rows[split]:,}" for split in SPLITS))
    width = max(len("field"), *(len(each["field"]) for each in fields))
    say(f"  {'field':{width}}      values  missing  unknown  largest")
    for each in fields:
        note = ""
        if each["values"] <= 1 and not each["missing"]:
            note = "  one value only: it tells no rows apart"
        elif each["values"] > MANY_VALUES * rows["train"] > 100:
            note = "  nearly every row has a value of its own: a number of the row, or a hash?"
        elif each.get("cut"):
            note = f"  {each['cut']:,} rows have more values than slots: the others are left out"
        shares = "  ".join(f"{each[share]:7.1%}" for share in ("missing", "unknown", "largest"))
        say(f"  {each['field']:{width}}  {each['values']:>10,}  {shares}{note}")


def tell_repeated(
    schema: Schema, codes: Callable[[str], np.ndarray], rows: dict[str, np.ndarray], user: str | None
) -> None:
    """Say how many test rows repeat a training row: under a random split they are known beforehand.

    Args:
        schema: names the item, and all fields.
        codes: gives, by the name of a field, a number (n,) of each row's key, 0 where it has none.
        rows: of each split.
        user: the field that names the user, if one does.
    """
    if schema.item_key is None:
        return
    pair = [name for name in (user, schema.item_key) if name is not None]
    named = len(pair) == 2
    names = pair if named else [f.name for f in schema.fields if f.transform is None and f.names_values]
    combined = same_in_all([codes(name) for name in names])
    repeated = int(np.isin(combined[rows["test"]], combined[rows["train"]]).sum())
    if repeated:
        what = " and ".join(names) if named else "all fields"
        say(
            f"{schema.name}: {repeated} of {len(rows['test'])} test rows repeat a training row ({what}); to keep "
            f"such rows together write split: {{group: [{', '.join(names)}]}}, or split by time"
        )
