"""Named one-dimensional arrays in one file, any stretch of which can be read alone; whole or absent."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ondevice.files import atomic_file


def write_arrays(path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray], **meta: Any) -> None:
    """Write arrays and JSON-able values, atomically: a line of JSON that says where each array is, then they."""
    places, offset = {}, 0
    for name, array in arrays.items():
        places[name] = [array.dtype.str, len(array), offset]
        offset += array.nbytes
    with atomic_file(path) as out:
        out.write(json.dumps({**meta, "arrays": places}).encode() + b"\n")
        for array in arrays.values():
            out.write(np.ascontiguousarray(array).data)


class ArrayFile:
    """What `write_arrays` wrote; ``meta`` holds its other values."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        with open(self.path, "rb") as file:
            head = file.readline()
        self.meta: dict[str, Any] = json.loads(head)
        self._places: dict[str, tuple[str, int, int]] = self.meta.pop("arrays")
        self._start = len(head)

    def __contains__(self, name: str) -> bool:
        return name in self._places

    def length(self, name: str) -> int:
        """Number of values of an array."""
        return self._places[name][1]

    def read(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """The values from ``start`` to ``stop`` of an array."""
        dtype, length, offset = self._places[name]
        stop = length if stop is None else stop
        place = self._start + offset + start * np.dtype(dtype).itemsize
        return np.fromfile(self.path, dtype=dtype, count=stop - start, offset=place)


def key_arrays(name: str, keys: np.ndarray | Sequence[str]) -> dict[str, np.ndarray]:
    """Keys as arrays to write: int64, or UTF-8 bytes and where each text ends."""
    if isinstance(keys, np.ndarray):
        return {name: keys.astype(np.int64)}
    encoded = [key.encode() for key in keys]
    return {
        f"{name}.bytes": np.frombuffer(b"".join(encoded), dtype=np.uint8),
        f"{name}.ends": np.cumsum([len(text) for text in encoded], dtype=np.int64),
    }


def read_keys(file: ArrayFile, name: str, start: int, stop: int) -> Any:
    """Keys ``start`` to ``stop`` as an Arrow array: int64 or large_string."""
    import pyarrow as pa

    if name in file:
        return pa.array(file.read(name, start, stop))
    ends = file.read(f"{name}.ends", max(0, start - 1), stop)
    offsets = ends if start else np.concatenate([[0], ends]).astype(np.int64)
    text = (
        file.read(f"{name}.bytes", int(offsets[0]), int(offsets[-1]))
        if stop > start
        else np.empty(0, np.uint8)
    )
    return pa.Array.from_buffers(
        pa.large_string(),
        stop - start,
        [None, pa.py_buffer(offsets - (offsets[0] if len(offsets) else 0)), pa.py_buffer(text)],
    )
