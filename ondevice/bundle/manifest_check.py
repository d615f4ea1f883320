"""Whether a manifest's entries are what readers of a bundle rely on; the reader on the phone checks the same."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ondevice.bundle.json_object import JsonObject, is_count
from ondevice.data.gaps import NUM_BUCKETS
from ondevice.data.schema import Schema

MAXIMUMS = {"forward": "max_batch", "rank": "max_items", "recommend": "k"}
MAX_ORIGIN = 2.0**63
EXCLUDED = "exclude_ids"
"""A further input of ``recommend``: rows of items that are left out."""
ITEMS, ITEM_VECTORS = "items", "item_vectors"
"""A method that takes nothing, and what it returns: the last input of the others of such a program."""

_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def check_entries(
    manifest: dict[str, Any],
    path: Path,
    schema_of: Callable[[dict[str, Any]], dict[str, Any]],
    files: tuple[str, ...],
) -> None:
    """Check types, ranges and names of all entries.

    Args:
        manifest: the parsed file.
        path: the file, for messages.
        schema_of: fills in what the manifest's schema leaves out.
        files: the manifest's own name, that of the program, of the vocabulary and of the catalog.

    Raises: UserError: naming the entry that is wrong.
    """
    top = JsonObject(manifest, path)
    for name in ("sha256", "name", "model", "method", "layout"):
        top.text(name)
    num_rows = top.count("num_rows")
    schema = _check_schema(top, schema_of)
    top.child("sizes").count("first_order_rows")
    methods = top.child("methods").children()
    if not any(name in methods for name in MAXIMUMS):
        top.wrong("methods", f"an object with one of {', '.join(MAXIMUMS)}")
    for name, method in methods.items():
        _check_method(method, name, schema, ITEMS in methods)
    top.texts("ops")
    top.texts("backends")
    versions = top.child("versions")
    for name in versions.values:
        versions.text(name)
    if "metrics" in top:
        metrics = top.child("metrics")
        for name in metrics.values:
            metrics.number(name)
    named = _check_files(top, files)
    names = schema.names
    if "catalog" in top:
        catalog = top.child("catalog")
        catalog.count("num_items")
        if catalog.text("key_field") != manifest["schema"].get("item_key"):
            catalog.wrong("key_field", "the schema's item_key")
    elif files[3] in named or "recommend" in methods:
        top.wrong("catalog", "there where the bundle lists items")
    if "labels" in top:
        for name, labels in top.child("labels").children().items():
            if name not in names:
                top.wrong("labels", f"an object of fields, where '{name}' is none")
            for key in labels.values:
                labels.text(key)
    if "golden_tolerance" in top and not top.number("golden_tolerance") >= 0:
        top.wrong("golden_tolerance", "a number of 0 or more")
    _check_golden(top, schema.slots.total, num_rows, schema.num_gaps)


def _check_schema(top: JsonObject, schema_of: Callable[[dict[str, Any]], dict[str, Any]]) -> Schema:
    described = top.child("schema")
    described.text("name")
    if "item_key" in described:
        described.text("item_key")
    label = described.child("label")
    for name in ("column", "sampling", "context_key"):
        if name in label:
            label.text(name)
    for entry in described.objects("fields"):
        if "origin" in entry and abs(entry.number("origin")) > MAX_ORIGIN:
            entry.wrong("origin", "a number that 64 bits hold")
    schema = Schema.from_dict(schema_of(dict(described.values)), f"{top.file}: schema")
    for place, field in enumerate(schema.fields):
        if field.origin is None:
            described.wrong(f"fields[{place}].origin", "a number")
        if field.kind == "number" and field.boundaries is None:
            described.wrong(f"fields[{place}].boundaries", "a list of numbers")
    return schema


def _check_method(method: JsonObject, name: str, schema: Schema, makes_vectors: bool) -> None:
    inputs, outputs = method.objects("inputs"), method.objects("outputs")
    for tensor in (*inputs, *outputs):
        tensor.text("name")
        tensor.text("dtype")
        for size in tensor.items("shape"):
            if not isinstance(size, str) and not is_count(size):
                tensor.wrong("shape", "a list of sizes and names")
    if name == ITEMS and (inputs or [tensor.text("name") for tensor in outputs] != [ITEM_VECTORS]):
        method.wrong("outputs", f"{ITEM_VECTORS} alone, of no input")
    if name not in MAXIMUMS:
        return
    method.count(MAXIMUMS[name], least=1)
    num_context, num_items = len(schema.context_columns) + schema.num_gaps, len(schema.item_columns)
    widths = {
        "forward": [num_context + num_items],
        "rank": [num_context, num_items],
        "recommend": [num_context],
    }[name]
    if inputs and inputs[-1].text("name") == ITEM_VECTORS:
        inputs = inputs[:-1]  # what `items` returns
        if not makes_vectors:
            method.wrong("inputs", f"those of a program whose method {ITEMS} makes {ITEM_VECTORS}")
    for tensor in inputs:
        if tensor.text("dtype") != "int64" or len(tensor.items("shape")) != 2:
            tensor.wrong("shape", "that of a matrix of int64")
    if name == "recommend" and len(inputs) == 2 and inputs[1].text("name") == EXCLUDED:
        method.count("max_excluded", least=1)
        inputs = inputs[:1]  # how many are left out is the caller's affair
    if [tensor.items("shape")[1] for tensor in inputs] != widths:
        method.wrong("inputs", f"matrices of the schema's fields, {widths} wide")
    kinds = ["float32", "int64"] if name == "recommend" else ["float32"]
    if [tensor.text("dtype") for tensor in outputs] != kinds:
        method.wrong("outputs", f"tensors of {' and '.join(kinds)}")


def _check_files(top: JsonObject, files: tuple[str, ...]) -> set[str]:
    itself, program, vocabulary, _ = files
    entries = top.child("files").children()
    for name, entry in entries.items():
        if not _FILE_NAME.fullmatch(name) or name == itself:
            top.wrong("files", f"an object of file names, where '{name}' is outside the bundle")
        entry.count("bytes")
        if not _SHA256.fullmatch(entry.text("sha256")):
            entry.wrong("sha256", "64 hexadecimal digits")
    for name in (program, vocabulary):
        if name not in entries:
            top.wrong("files", f"an object with {name}")
    return set(entries)


def _check_golden(top: JsonObject, num_slots: int, num_rows: int, num_gaps: int) -> None:
    cases = top.objects("golden")
    if len(cases) < 2:
        top.wrong("golden", "two cases or more")
    for case in cases:
        case.child("raw")
        case.number("score")
        ids = case.counts("ids")
        if len(ids) != num_slots or any(row > num_rows for row in ids):
            case.wrong("ids", f"{num_slots} rows of 0 to {num_rows}")
        if num_gaps:
            case.number("now")
            if not all(time is None or isinstance(time, (int, float)) for time in case.items("times")):
                case.wrong("times", "a list of numbers and nulls")
            gaps = case.counts("gaps")
            if len(gaps) != num_gaps or any(gap >= NUM_BUCKETS for gap in gaps):
                case.wrong("gaps", f"{num_gaps} buckets below {NUM_BUCKETS}")
        if "best" in case:
            best = case.child("best")
            scores = best.items("scores")
            if len(scores) != len(best.items("items")) or not all(
                isinstance(each, (int, float)) for each in scores
            ):
                best.wrong("scores", "a list of numbers, one for each of its items")
