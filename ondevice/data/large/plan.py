"""What a preparation is about, as every worker reads it, and where its intermediate files are."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ondevice.data.large.arrays import ArrayFile
from ondevice.data.large.chunk import Chunk, ChunkId
from ondevice.data.schema import Schema
from ondevice.files import atomic_json

STORE = "store"


@dataclass(frozen=True)
class Plan:
    """A preparation in a folder of intermediate files, which are kept until the store is whole.

    Args:
        folder: holds ``plan.json``, ``chunks/``, ``counts/``, ``fields/`` and the growing ``store/``.
        schema: fields and label rule.
        source: how the files are written: `TextFormat.to_dict`, or what `tables` needs of a table.
        files: paths.
        split: ``random`` or ``temporal``.
        seed: of the random split.
        fractions: of train, valid and test.
        max_rows: lines or rows to read at most.
        bad_rows: ``error`` or ``skip``.
    """

    folder: Path
    schema: Schema
    source: dict[str, Any]
    files: list[Path]
    split: str
    seed: int
    fractions: tuple[float, float, float]
    max_rows: int | None
    bad_rows: str

    def save(self) -> None:
        """Write ``plan.json``."""
        values = {
            **{key: value for key, value in vars(self).items() if key not in ("folder", "schema", "files")},
            "schema": self.schema.to_dict(),
            "files": [str(file) for file in self.files],
        }
        atomic_json(self.folder / "plan.json", values)

    @classmethod
    def load(cls, folder: Path) -> Plan:
        """What `save` wrote."""
        values = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
        values["schema"] = Schema.from_dict(values["schema"])
        values["files"] = [Path(file) for file in values["files"]]
        return cls(folder=folder, **values)

    def chunk_path(self, which: ChunkId) -> Path:
        """The file of a chunk's rows."""
        return which.path(self.folder / "chunks")

    def counts_path(self, which: ChunkId) -> Path:
        """The file of a chunk's splits and training counts."""
        return which.path(self.folder / "counts")

    def field_path(self, field: int, part: str) -> Path:
        """A file of a field's vocabulary."""
        return self.folder / "fields" / f"{field:04d}.{part}"

    @property
    def times(self) -> bool:
        """Whether rows are split by the time that they hold."""
        return self.split == "temporal" and bool(self.source.get("timed"))

    @property
    def weighted(self) -> bool:
        """Whether the table says what each row counts."""
        return self.source["kind"] == "table" and self.source["spec"]["weight"] is not None

    @property
    def group(self) -> list[str]:
        """Fields of whose equal values a random split keeps the rows together."""
        return self.source["spec"]["split"]["group"] if self.source["kind"] == "table" else []

    @property
    def store(self) -> Path:
        """The folder that becomes the store."""
        return self.folder / STORE

    @cached_property
    def parsed(self) -> Parsed:
        """The chunks, once all are there."""
        return Parsed(self.folder / "parsed")


class Parsed:
    """All chunks in the order of the rows: ids, numbers of rows (C,) and of keys (C, F)."""

    def __init__(self, path: Path) -> None:
        file = ArrayFile(path)
        files, numbers = file.read("files").tolist(), file.read("numbers").tolist()
        self.ids = [ChunkId(f, n) for f, n in zip(files, numbers, strict=True)]
        self.rows = file.read("rows")
        self.num_keys = file.read("num_keys").reshape(len(self.ids), -1)
        self.skipped: int = file.meta["skipped"]
        self.cut: list[int] = file.meta["cut"]
        self.first_bad: str = file.meta["first_bad"]

    @property
    def num_rows(self) -> int:
        """Rows of all chunks."""
        return int(self.rows.sum())


def open_chunk(plan: Plan, which: ChunkId) -> Chunk:
    """A chunk of a plan."""
    return Chunk(plan.chunk_path(which))


def starts_of(lengths: np.ndarray) -> np.ndarray:
    """Where each of some stretches begins, and where the last ends, when they follow one another."""
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
