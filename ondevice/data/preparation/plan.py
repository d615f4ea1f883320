"""What a preparation is about, as every worker reads it, and where its intermediate files are."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ondevice.data.parts import WAY_OUT
from ondevice.data.preparation.arrays import ArrayFile
from ondevice.data.preparation.chunk import Chunk, ChunkId
from ondevice.data.schema import Schema
from ondevice.data.spec import TableSpec
from ondevice.files import atomic_json

STORE = "store"
_SAVED = ("source", "split", "seed", "fractions", "max_rows", "bad_rows", "way_out", "streamed")


@dataclass(frozen=True)
class Plan:
    """A preparation in a folder of intermediate files, which are kept until the store is whole.

    Args:
        folder: holds ``plan.json``, ``chunks/``, ``counts/``, ``fields/`` and the growing ``store/``.
        schema: fields and label rule.
        source: how the files are written: `TextFormat.to_dict`, or what `tables` needs of a table.
        files: paths.
        split: one of `splits.KINDS`, or `splits.GIVEN`.
        seed: of the random split, the subsample and sampled negatives.
        fractions: of train, valid and test.
        max_rows: lines or rows to read at most; of a table that is not streamed, rows to draw.
        bad_rows: ``error`` or ``skip``.
        way_out: ends the message about a line that cannot be used.
        streamed: whether rows keep the order of the files, each drawn into its split alone.
        table: what the columns of a table mean, where it is not in ``source``.
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
    way_out: str = WAY_OUT
    streamed: bool = True
    table: TableSpec | None = None

    def save(self) -> None:
        """Write ``plan.json``."""
        values = {
            **{key: value for key, value in vars(self).items() if key in _SAVED},
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
    def is_table(self) -> bool:
        """Whether people brought it, with a schema of their own."""
        return bool(self.source["kind"] == "table")

    @property
    def is_ordered(self) -> bool:
        """Whether a step must see all rows at once: to order them, or to draw negatives."""
        whole = (
            self.split == "leave_last_out" or self.schema.label.positive_only or bool(self.schema.histories)
        )
        return self.is_table and (whole or not self.streamed)

    @cached_property
    def spec(self) -> TableSpec:
        """What the table's columns mean, and where further tables are."""
        if self.table is not None:
            return self.table
        values = self.source["spec"]
        tables = {
            name: {**side, "path": self.source["places"][name]} for name, side in values["tables"].items()
        }
        return TableSpec.from_dict({**values, "tables": tables})

    @property
    def weighted(self) -> bool:
        """Whether the table says what each row counts."""
        return self.is_table and self.spec.weight is not None

    @property
    def group(self) -> Sequence[str]:
        """Fields of whose equal values a random split keeps the rows together."""
        return self.spec.split.group if self.is_table else ()

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
