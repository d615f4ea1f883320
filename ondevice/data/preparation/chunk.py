"""Parsed rows of one stretch of a file: what `text` and `tables` write and every later step reads."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ondevice.data.preparation.arrays import ArrayFile, key_arrays, read_keys, write_arrays
from ondevice.data.preparation.columns import encode_column, num_cut
from ondevice.data.schema import Schema


@dataclass(frozen=True)
class ChunkId:
    """Which stretch of which file: files by their place in the plan, stretches in the file's order."""

    file: int
    number: int

    def path(self, folder: Path) -> Path:
        """Where it is kept below a folder."""
        return folder / f"{self.file:05d}" / f"{self.number:08d}"


def write_chunk(
    path: Path,
    schema: Schema,
    columns: dict[str, Any],
    labels: np.ndarray,
    lines: np.ndarray,
    order: Sequence[np.ndarray] = (),
    weights: np.ndarray | None = None,
    titles: Sequence[str | None] | None = None,
    **meta: Any,
) -> dict[str, Any]:
    """Write rows and return the chunk's ``meta``.

    Args:
        path: the file.
        schema: what it stores names the columns.
        columns: Arrow array of raw values by field.
        labels: (n,) 0 or 1.
        lines: (n,) line (or row) of the source file of each row, from 0.
        order: arrays (n,) that sort the rows in time, the most significant first.
        weights: (n,) what each row counts, where the table says it.
        titles: (n,) of each row's item, of which that of its first row is kept.
        meta: what else is to be remembered.
    """
    arrays: dict[str, np.ndarray] = {"labels": labels.astype(np.uint8)}
    whole = len(lines) and lines[-1] - lines[0] == len(lines) - 1
    if not whole:
        arrays["lines"] = lines.astype(np.int64)
    for place, times in enumerate(order):
        arrays[f"order{place}"] = times.astype(np.float64)
    if weights is not None:
        arrays["weights"] = weights.astype(np.float32)
    num_keys = []
    keys: np.ndarray | list[str]
    for f, field in enumerate(schema.stored):
        if field.is_history:  # `write_splits` fills its slots
            codes, keys = np.zeros(len(labels), dtype=np.uint8), np.empty(0, dtype=np.int64)
        else:
            codes, keys = encode_column(field, columns[field.name])
        arrays[f"codes{f}"] = codes.ravel()
        arrays.update(key_arrays(f"keys{f}", keys))
        num_keys.append(len(keys))
        if titles is not None and field.name == schema.item_key:
            first = dict(zip(reversed(codes.tolist()), reversed(titles), strict=True))
            arrays.update(key_arrays("titles", [str(first[code + 1] or "") for code in range(len(keys))]))
    cut = [0 if field.is_history else num_cut(field, columns[field.name]) for field in schema.fields]
    first_line = int(lines[0]) if whole else 0
    meta = {"rows": len(labels), "first_line": first_line, "num_keys": num_keys, "cut": cut, **meta}
    write_arrays(path, arrays, **meta)
    return meta


class Chunk:
    """The rows of a chunk file."""

    def __init__(self, path: Path) -> None:
        self._file = ArrayFile(path)
        self.meta = self._file.meta
        self.num_rows: int = self.meta["rows"]
        self.num_keys: list[int] = self.meta["num_keys"]

    def labels(self) -> np.ndarray:
        """(n,) uint8."""
        return self._file.read("labels")

    def lines(self) -> np.ndarray:
        """(n,) int64: each row's line in its file, from 0."""
        if "lines" in self._file:
            return self._file.read("lines")
        first = self.meta["first_line"]
        return np.arange(first, first + self.num_rows, dtype=np.int64)

    def order(self) -> list[np.ndarray]:
        """Arrays (n,) float64 that sort the rows in time, the most significant first."""
        names = itertools.takewhile(self._file.__contains__, (f"order{place}" for place in itertools.count()))
        return [self._file.read(name) for name in names]

    def titles(self) -> list[str] | None:
        """The title of each key of the item, where the table has them."""
        if "titles.ends" not in self._file:
            return None
        titles: list[str] = read_keys(self._file, "titles", 0, self._file.length("titles.ends")).to_pylist()
        return titles

    def weights(self) -> np.ndarray | None:
        """(n,) float32, where the table has them."""
        return self._file.read("weights") if "weights" in self._file else None

    def codes(self, field: int) -> np.ndarray:
        """(n,), or (n, K) of K slots: 0 for an unknown value, i for the i-th key."""
        codes = self._file.read(f"codes{field}")
        return codes if len(codes) == self.num_rows else codes.reshape(self.num_rows, -1)

    def keys(self, field: int, start: int = 0, stop: int | None = None) -> Any:
        """Keys of a field, ascending, as an Arrow array."""
        return read_keys(self._file, f"keys{field}", start, self.num_keys[field] if stop is None else stop)
