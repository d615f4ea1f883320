"""Encoded data sets on disk: prepared once, mapped into memory, prepared again when an input changes.

A store is a folder of the cache named by its fingerprint: per split ``ids`` (n, S) int32 and ``labels`` (n,)
uint8 as .npy, the vocabulary, the schema, the counts, the catalog, and store.json with every file's size.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ondevice.data import splits
from ondevice.data.catalog import all_items, read_catalog, save_catalog, write_catalog
from ondevice.data.dataset import Dataset, EncodedSplit
from ondevice.data.interactions import Column, Interactions, keyed, keyed_column
from ondevice.data.negatives import Pairs, sample_negatives, without_missing
from ondevice.data.report import describe_fields, num_cut, say_report, tell_repeated
from ondevice.data.schema import Field, Schema
from ondevice.data.sequences import (
    Histories,
    Sequences,
    Timeline,
    check_histories,
    division_of,
    write_sequences,
)
from ondevice.data.slots import count_unknown
from ondevice.data.sources import cache_directory, say, sha256_of
from ondevice.data.vocabulary import Vocabulary, learnt
from ondevice.errors import DataError, UserError
from ondevice.files import atomic_directory, atomic_json

FORMAT_VERSION = 1
BLOCK_ROWS = 1 << 18
DIGESTS = 100_000  # digests of files that are remembered
EXCERPT_ROWS = 2  # of each split: what a bundle shows of real rows
RECORD = "store.json"


def file_digests(paths: Sequence[Path]) -> list[str]:
    """SHA-256 of each file's content, as inputs of a fingerprint: the same wherever and whenever it was written.

    What was computed is remembered in the cache by path, size and time of change.
    """
    memory = cache_directory() / "digests.json"
    try:
        known: dict[str, list[Any]] = json.loads(memory.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        known = {}
    digests, new = [], False
    for path in paths:
        stat, name = path.stat(), str(path.resolve())
        entry = known.get(name, [])
        if entry[:2] != [stat.st_size, stat.st_mtime_ns]:
            entry = known[name] = [stat.st_size, stat.st_mtime_ns, sha256_of(path)]
            new = True
        digests.append(str(entry[2]))
    if new:
        with contextlib.suppress(OSError):  # it only saves time
            atomic_json(memory, dict(list(known.items())[-DIGESTS:]))
    return digests


def prepare(
    schema: Schema,
    read: Callable[[], Interactions],
    *,
    inputs: Sequence[Any],
    split: str,
    seed: int,
    fractions: tuple[float, float, float],
    max_rows: int | None,
    group: Sequence[str] = (),
    user: str | None = None,
) -> Dataset:
    """The data set of these inputs and options: opened from the cache, or read, encoded and stored there.

    Args:
        schema: fields and label rule.
        read: reads the source; called only when there is no whole store.
        inputs: JSON-able values that change when the source changes.
        split: see `splits.split_rows`.
        seed: of the split, the subsample and sampled negatives.
        fractions: of train, valid and test.
        max_rows: rows to keep at most.
        group: fields of whose equal values a random split keeps the rows together.
        user: the field, or the ``user_key``, whose rows ``leave_last_out`` divides and histories are made of.

    Raises: UserError: when the source cannot be read or the cache cannot be written.
    """
    options = {"split": split, "seed": seed, "fractions": fractions, "max_rows": max_rows}
    if schema.histories or split == "leave_last_out":
        options["equal_times"] = "in the order of the rows"  # as papers of the next item have it
    identity = {
        "format_version": FORMAT_VERSION,
        "schema": schema.to_dict(),
        "options": options,
        "inputs": inputs,
    }
    fingerprint = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    folder = cache_directory() / "stores" / f"{schema.name}-{fingerprint[:16]}"
    ready = open_store(folder, fingerprint)
    if ready is not None:
        return ready
    say(f"{schema.name}: preparing the data (once; kept in {folder})")
    interactions = read()
    if len(interactions) == 0:
        raise DataError(f"data set '{schema.name}': the label rule keeps no row")
    kept = splits.sample_rows(len(interactions), max_rows, seed)
    if kept is not None:
        interactions = dataclasses.replace(interactions.take(kept), items=all_items(schema, interactions))
    if schema.label.positive_only:
        interactions = without_missing(schema, interactions)
    check_histories(schema, user, bool(interactions.order))

    def codes(name: str) -> np.ndarray:
        return keyed(schema, interactions, name)

    rows = splits.split_rows(
        len(interactions),
        split,
        seed,
        fractions,
        interactions.order[:1] if schema.histories else interactions.order,
        groups=[codes(name) for name in group],
        users=codes(user) if user is not None and split == "leave_last_out" else None,
        division=interactions.division,
    )
    if split == "random" and not group:
        tell_repeated(schema, interactions, rows, user)
    try:
        with atomic_directory(folder) as building:
            _write(building, schema, interactions, rows, seed, user, fingerprint)
    except OSError as error:
        # Another process may have put its own store there in the meantime: then that one is as good.
        if open_store(folder, fingerprint) is None:
            way_out = "free some room, or set ONDEVICE_CACHE to a folder that can be written"
            raise UserError(f"cannot write {folder}: {error}; {way_out}") from error
    prepared = open_store(folder, fingerprint)
    assert prepared is not None
    return prepared


def write_excerpt(dataset: Dataset, folder: Path) -> None:
    """Write a store that holds all but the rows, of which it has the first of each split.

    `open_store` opens it; the vocabulary is left to whoever writes it elsewhere.
    """
    with atomic_directory(folder) as building:
        for name in splits.SPLITS:
            split = dataset.split(name)
            np.save(building / f"{name}.ids.npy", np.array(split.ids[:EXCERPT_ROWS]), allow_pickle=False)
            np.save(
                building / f"{name}.labels.npy", np.array(split.labels[:EXCERPT_ROWS]), allow_pickle=False
            )
        np.save(building / "counts.npy", dataset.counts, allow_pickle=False)
        atomic_json(building / "schema.json", dataset.schema.to_dict())
        if dataset.catalog is not None:
            save_catalog(building, dataset.catalog)
        record = {
            "fingerprint": dataset.fingerprint,
            "skipped_rows": dataset.skipped_rows,
            "excerpt": True,
            "files": {path.name: path.stat().st_size for path in sorted(building.iterdir())},
        }
        atomic_json(building / RECORD, record)


def open_store(folder: Path, fingerprint: str, vocabulary: Path | None = None) -> Dataset | None:
    """The data set in a store; None when the folder is absent, of other inputs, cut short or damaged.

    Args:
        folder: of the store.
        fingerprint: that it must have.
        vocabulary: where the vocabulary is; None: in the folder.
    """
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        if record["fingerprint"] != fingerprint:
            return None
        if any((folder / name).stat().st_size != size for name, size in record["files"].items()):
            return None
        parts = {name: _open_split(folder, name) for name in splits.SPLITS}
        with contextlib.suppress(OSError):
            os.utime(folder)  # `cache` removes what nothing has opened for long
        return Dataset(
            schema=Schema.from_dict(json.loads((folder / "schema.json").read_text(encoding="utf-8"))),
            vocabulary=Vocabulary.load(folder / "vocabulary.npz" if vocabulary is None else vocabulary),
            counts=np.load(folder / "counts.npy", allow_pickle=False),
            fingerprint=fingerprint,
            catalog=read_catalog(folder),
            sequences=Sequences.open(folder),
            skipped_rows=record["skipped_rows"],
            excerpt=record.get("excerpt", False),
            **parts,
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _open_split(folder: Path, name: str) -> EncodedSplit:
    weights = folder / f"{name}.weights.npy"
    return EncodedSplit(
        _mapped(folder / f"{name}.ids.npy"),
        _mapped(folder / f"{name}.labels.npy"),
        _mapped(weights) if weights.exists() else None,
    )


def _write(
    folder: Path,
    schema: Schema,
    interactions: Interactions,
    rows: dict[str, np.ndarray],
    seed: int,
    user: str | None,
    fingerprint: str,
) -> None:
    fields, tables, vocabulary, missing = _fit(schema, interactions, rows["train"])
    schema = dataclasses.replace(schema, fields=fields)
    if schema.label.positive_only:
        pairs = sample_negatives(schema, interactions, rows, seed)
    else:
        weights = interactions.weights
        pairs = {
            name: Pairs(
                chosen, chosen, interactions.labels[chosen], None if weights is None else weights[chosen]
            )
            for name, chosen in rows.items()
        }
    counts = np.zeros(vocabulary.num_embeddings, dtype=np.int64)
    histories = _write_sequences(folder, schema, interactions, rows, vocabulary, tables, user)
    for name, chosen in pairs.items():
        counted = counts if name == "train" else None
        _write_split(folder, name, schema, interactions, chosen, tables, histories, counted)
    ids = _mapped(folder / "train.ids.npy")
    count_unknown(schema.slots, vocabulary.field_offsets, ids, counts)
    np.save(folder / "counts.npy", counts, allow_pickle=False)
    vocabulary.save(folder / "vocabulary.npz")
    atomic_json(folder / "schema.json", schema.to_dict())
    write_catalog(folder, schema, interactions, vocabulary)
    num_rows = {name: len(chosen.labels) for name, chosen in pairs.items()}
    for f, history in histories.items():
        missing[f] = history.num_empty(pairs["train"].context_rows)
    cut = [
        histories[f].num_cut if field.is_history else num_cut(field, interactions.columns[field.name])
        for f, field in enumerate(schema.fields)
    ]
    described = describe_fields(
        schema, vocabulary.field_offsets, counts, missing, cut, max(1, num_rows["train"])
    )
    say_report(schema.name, num_rows, described)
    record = {
        "fingerprint": fingerprint,
        "rows": num_rows,
        "fields": described,
        "skipped_rows": interactions.skipped,
        "files": {path.name: path.stat().st_size for path in sorted(folder.iterdir())},
    }
    atomic_json(folder / RECORD, record)


def _fit(
    schema: Schema, interactions: Interactions, train: np.ndarray
) -> tuple[tuple[Field, ...], list[np.ndarray], Vocabulary, list[int]]:
    """Fields with their origins, the id of each distinct raw value, the vocabulary, and rows without a value."""
    fields: list[Field] = []
    counts: list[dict[Any, int]] = []
    missing: list[int] = []
    for field in schema.fields:
        nothing: dict[Any, int] = {}
        if field.is_history:
            fields, counts, missing = [*fields, field], [*counts, nothing], [*missing, 0]
            continue
        column = interactions.columns[field.name]
        occurrences = np.bincount(column.codes[train], minlength=len(column.values))
        present = np.flatnonzero(occurrences)
        values = [column.values[code] for code in present.tolist()]
        field = learnt(field, values, occurrences[present])
        field_counts, without = key_counts(field, values, occurrences[present].tolist())
        if not any(key is not None and count >= field.min_count for key, count in field_counts.items()):
            raise DataError(_nothing_known(schema, field, column, present.tolist()))
        fields.append(field)
        counts.append(field_counts)
        missing.append(without)
    vocabulary = Vocabulary.from_counts(fields, counts)
    columns = [() if field.is_history else interactions.columns[field.name].values for field in fields]
    tables = [vocabulary.encode_values(f, values).astype(np.int32) for f, values in enumerate(columns)]
    return tuple(fields), tables, vocabulary, missing


def key_counts(field: Field, raws: Sequence[Any], occurrences: Sequence[int]) -> tuple[dict[Any, int], int]:
    """How many rows have each key, and how many have none."""
    counts: dict[Any, int] = {}
    missing = 0
    bags = map(field.kept, raws) if field.slots > 1 else ((key,) for key in field.keys(raws))
    for keys, rows in zip(bags, occurrences, strict=True):
        for key in keys:
            counts[key] = counts.get(key, 0) + rows
        missing += rows if not keys or keys == (None,) else 0
    return counts, missing


def _nothing_known(schema: Schema, field: Field, column: Column, present: list[int]) -> str:
    where = f"data set '{schema.name}', field '{field.name}' (column '{field.source_column}')"
    example = next(
        (column.values[code] for code in present if column.values[code] not in (None, "", ())), None
    )
    if example is None:
        return f"{where}: every training value is missing; remove the field"
    if not field.bag(example) if field.slots > 1 else field.key(example) is None:
        return f"{where}: no training value is a number, for example {example!r}; write kind: string"
    return f"{where}: no training value occurs {field.min_count} times; lower min_count or remove the field"


def _write_sequences(
    folder: Path,
    schema: Schema,
    interactions: Interactions,
    rows: dict[str, np.ndarray],
    vocabulary: Vocabulary,
    tables: list[np.ndarray],
    user: str | None,
) -> dict[int, Histories]:
    """Write the users' rows as sequences, and give what each history holds, by the place of its field."""
    if not schema.histories:
        return {}
    assert user is not None  # `check_histories`
    column = keyed_column(schema, interactions, user)
    is_known = np.array([key is not None for key in column.values], dtype=bool)
    timeline = Timeline(np.where(is_known[column.codes], column.codes, -1), interactions.order[:1])
    source = schema.names.index(str(schema.histories[0].of))
    items = tables[source][:, 0][interactions.columns[schema.names[source]].codes]
    texts = any(isinstance(key, str) for key in column.values)
    absent = "" if texts else 0
    keys = np.array([absent if key is None else key for key in column.values])
    division, unknown = division_of(rows, len(items)), int(vocabulary.field_offsets[source])
    return write_sequences(folder, schema, timeline, items, interactions.labels, division, unknown, keys)


def _write_split(
    folder: Path,
    name: str,
    schema: Schema,
    interactions: Interactions,
    pairs: Pairs,
    tables: list[np.ndarray],
    histories: dict[int, Histories],
    counts: np.ndarray | None,
) -> None:
    """Encode block by block; ``counts`` gains the occurrences of each id, without those in histories."""
    num_rows, slots = len(pairs.labels), schema.slots
    ids = np.lib.format.open_memmap(
        folder / f"{name}.ids.npy", mode="w+", dtype=np.int32, shape=(num_rows, slots.total)
    )
    columns = {
        f: interactions.columns[field.name].codes
        for f, field in enumerate(schema.fields)
        if not field.is_history
    }
    counted = np.array(slots.of(columns))
    for start in range(0, num_rows, BLOCK_ROWS):
        block = slice(start, start + BLOCK_ROWS)
        for f, field in enumerate(schema.fields):
            rows = pairs.context_rows[block] if field.side == "context" else pairs.item_rows[block]
            slot_ids = histories[f].ids(rows) if f in histories else tables[f][columns[f][rows]]
            ids[block, slots.starts[f] : slots.starts[f + 1]] = slot_ids
        if counts is not None:
            counts += np.bincount(ids[block][:, counted].ravel(), minlength=len(counts))
    ids.flush()
    np.save(folder / f"{name}.labels.npy", pairs.labels.astype(np.uint8), allow_pickle=False)
    if pairs.weights is not None:
        np.save(folder / f"{name}.weights.npy", pairs.weights.astype(np.float32), allow_pickle=False)


def _mapped(path: Path) -> np.ndarray:
    array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    return array
