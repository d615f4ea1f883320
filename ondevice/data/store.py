"""Encoded data sets on disk: prepared once, mapped into memory, prepared again when an input changes.

A store is a folder of the cache named by its fingerprint: per split ``ids`` (n, S) int32 and ``labels`` (n,)
uint8 as .npy, the vocabulary, the schema, the counts, the catalog, and store.json with every file's size.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ondevice.data import splits
from ondevice.data.catalog import read_catalog, save_catalog
from ondevice.data.dataset import Dataset, EncodedSplit
from ondevice.data.schema import Schema
from ondevice.data.sequences import Sequences
from ondevice.data.sources import cache_directory, sha256_of
from ondevice.data.vocabulary import Vocabulary
from ondevice.files import atomic_directory, atomic_json

FORMAT_VERSION = 1
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


def _mapped(path: Path) -> np.ndarray:
    array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    return array
