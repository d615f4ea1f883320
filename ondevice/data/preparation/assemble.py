"""The parts of a store beside its rows: vocabulary, counts, schema, and the record that makes it whole."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np

from ondevice.data import splits
from ondevice.data.catalog import catalog_of, save_catalog
from ondevice.data.field import Field
from ondevice.data.negatives import Pairs
from ondevice.data.preparation.arrays import ArrayFile
from ondevice.data.preparation.chunk import Chunk
from ondevice.data.preparation.columns import numbers_of
from ondevice.data.preparation.plan import Plan, open_chunk, starts_of
from ondevice.data.report import describe_fields, say_report
from ondevice.data.schema import Schema
from ondevice.data.sequences import Histories
from ondevice.data.slots import BLOCK_ROWS, count_unknown
from ondevice.data.sources import say
from ondevice.data.store import RECORD
from ondevice.data.vocabulary import Vocabulary, write_vocabulary
from ondevice.errors import DataError
from ondevice.files import atomic_json

ITEM_BYTES = 1000  # of memory for an item of a catalog, in each chunk that has it


def assemble(
    plan: Plan,
    fingerprint: str,
    rows: np.ndarray,
    written: tuple[dict[str, Pairs], dict[int, Histories]] | None,
    memory: int | None,
) -> None:
    """Write them into ``plan.store``, which is whole afterwards.

    Args:
        plan: the preparation, all of whose steps are done.
        fingerprint: of the store.
        rows: by chunk and split (C, 3).
        written: what `Whole.write_splits` gave, where all rows were divided at once.
        memory: bytes that may be taken; None: as many as there are.

    Raises: UserError: when no field has a known value, or one of a table.
    """
    schema, folder = plan.schema, plan.store
    results = [json.loads(plan.field_path(f, "json").read_text()) for f in range(len(schema.fields))]
    fields = zip(schema.fields, results, strict=True)
    learnt = [dataclasses.replace(field, **result.get("learnt", {})) for field, result in fields]
    schema = dataclasses.replace(schema, fields=tuple(learnt))
    missing = np.zeros(len(schema.fields), dtype=np.int64)
    for which in plan.parsed.ids:
        missing += np.array(ArrayFile(plan.counts_path(which)).meta["missing"])
    _check_known(plan, results, missing, int(rows[:, 0].sum()))
    pairs, histories = written if written is not None else ({}, {})
    num_rows = [len(pair.labels) for pair in pairs.values()] or rows.sum(axis=0).tolist()
    offsets = starts_of(1 + np.array([result["known"] for result in results]))
    counts = np.lib.format.open_memmap(
        folder / "counts.npy", mode="w+", dtype=np.int64, shape=(int(offsets[-1]),)
    )
    arrays = {}
    for f, (field, result) in enumerate(zip(schema.fields, results, strict=True)):
        counts[offsets[f]] = 0 if field.is_history else num_rows[0] - result["occurrences"]
        counts[offsets[f] + 1 : offsets[f + 1]] = _mapped(plan, f, "counts", np.int64)
        if field.has_integer_keys:
            arrays[f"integers_{f}"] = _mapped(plan, f, "keys", np.int64)
        else:
            arrays[f"bytes_{f}"] = _mapped(plan, f, "keys", np.uint8)
            arrays[f"ends_{f}"] = _mapped(plan, f, "ends", np.int64)
    ids = np.load(folder / "train.ids.npy", mmap_mode="r", allow_pickle=False)
    if schema.label.positive_only:  # the rows of sampled negatives count as well
        counted = schema.slots.of([f for f, field in enumerate(schema.fields) if not field.is_history])
        counts[:] = 0
        for start in range(0, len(ids), BLOCK_ROWS):
            block = ids[start : start + BLOCK_ROWS, counted]
            counts += np.bincount(block.ravel(), minlength=len(counts))
    count_unknown(schema.slots, offsets, ids, counts)
    counts.flush()
    write_vocabulary(folder / "vocabulary.npz", schema.fields, arrays)
    atomic_json(folder / "schema.json", schema.to_dict())
    if schema.item_key is not None:
        _write_catalog(plan, schema, memory)
    cut = list(plan.parsed.cut)
    for f, history in histories.items():
        missing[f], cut[f] = history.num_empty(pairs["train"].context_rows), history.num_cut
    named = dict(zip(splits.SPLITS, num_rows, strict=True))
    described = describe_fields(schema, offsets, counts, missing.tolist(), cut, max(1, num_rows[0]))
    say_report(schema.name, named, described)
    files = {path.name: path.stat().st_size for path in sorted(folder.iterdir()) if path.name != RECORD}
    record = {
        "fingerprint": fingerprint,
        "rows": named,
        "fields": described,
        "skipped_rows": plan.parsed.skipped,
        "files": files,
    }
    atomic_json(folder / RECORD, record)


def _check_known(plan: Plan, results: list[dict[str, Any]], missing: np.ndarray, num_train: int) -> None:
    """Raise UserError where no value of a field is known: of any field of a table, of all of another data set."""
    schema = plan.schema
    empty = [f for f, result in enumerate(results) if not result["known"] and not schema.fields[f].is_history]
    if empty and plan.is_table:
        field = schema.fields[empty[0]]
        where = f"data set '{schema.name}', field '{field.name}' (column '{field.source_column}')"
        if missing[empty[0]] == num_train:
            raise DataError(f"{where}: every training value is missing; remove the field")
        raise DataError(
            f"{where}: no training value occurs {field.min_count} times; lower min_count or remove the field"
        )
    names = ", ".join(schema.fields[f].name for f in empty)
    if len(empty) == len(results):
        raise DataError(
            f"data set '{schema.name}': no value occurs often enough in the training rows; lower min_count"
        )
    if empty:
        say(f"{schema.name}: no value of {names} occurs often enough to be known; each is one unknown id")


def _write_catalog(plan: Plan, schema: Schema, memory: int | None) -> None:
    """Write the items of all chunks, and those that a table of items or the data set's own code adds."""
    at = [field.name for field in plan.schema.stored].index(str(schema.item_key))
    if memory is not None and plan.parsed.num_keys[:, at].sum() * ITEM_BYTES > memory:
        say(f"{schema.name}: too many items for a catalog within data.memory; the store has none")
        return
    fields = [(f, field) for f, field in enumerate(schema.fields) if field.side == "item"]
    items: dict[Any, dict[str, Any]] = {}
    titles: dict[Any, str] = {}
    for which in plan.parsed.ids:
        chunk = open_chunk(plan, which)
        codes, first = np.unique(chunk.codes(at), return_index=True)
        keys = [None, *chunk.keys(at).to_pylist()]
        new = {
            keys[code]: row
            for code, row in zip(codes, first, strict=True)
            if code and keys[code] not in items
        }
        rows = np.array(list(new.values()), dtype=np.int64)
        columns = [_values(field, chunk, f, rows) for f, field in fields]
        for item, *values in zip(new, *columns, strict=True):
            items[item] = {field.name: value for (_, field), value in zip(fields, values, strict=True)}
        for item, title in zip(keys[1:], chunk.titles() or (), strict=False):
            titles.setdefault(item, title)
    more, more_titles = json.loads((plan.folder / "items.json").read_text(encoding="utf-8"))
    nothing = {field.name: None for _, field in fields}
    for row in more:
        item = row[schema.item_key]
        items[item] = {**nothing, **items.get(item, {}), **row}
    vocabulary = Vocabulary.load(plan.store / "vocabulary.npz")
    save_catalog(plan.store, catalog_of(schema, items, {**titles, **dict(more_titles)}, vocabulary))


def _values(field: Field, chunk: Chunk, f: int, rows: np.ndarray) -> list[Any]:
    """The values of a field in some rows: keys, numbers where it reads these, lists of several."""
    keys = chunk.keys(f)
    if field.reads_numbers:
        numbers = numbers_of(keys.to_numpy()).tolist()
        listed = [None, *(None if number == -np.inf else number for number in numbers)]
    else:
        listed = [None, *(key if field.transform is None else field.raw(key) for key in keys.to_pylist())]
    codes = chunk.codes(f)[rows].tolist()
    if field.slots > 1:
        return [[listed[code] for code in row if code] for row in codes]
    return [listed[code] for code in codes]


def _mapped(plan: Plan, field: int, part: str, dtype: type) -> np.ndarray:
    path = plan.field_path(field, part)
    return np.memmap(path, dtype=dtype, mode="r") if path.stat().st_size else np.empty(0, dtype=dtype)
