"""Known values of every field and their embedding ids, fitted on the training split."""

from __future__ import annotations

import dataclasses
import io
import itertools
import json
import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ondevice.data.schema import Field, number_of
from ondevice.errors import DamagedFile, UserError, nearest
from ondevice.files import atomic_file

FORMAT_VERSION = 1


class Vocabulary:
    """A map from raw values to global embedding ids, one range of ids per field.

    Field f owns the ids ``field_offsets[f]`` to ``field_offsets[f + 1] - 1``: first its unknown id, then its
    known keys, ascending. A value that was not in the training split, was rarer than the field's
    ``min_count`` there, or is missing has the unknown id. A history has no keys, and the ids of the field that it
    is of; nothing reads its own unknown id.
    """

    def __init__(self, fields: Sequence[Field], keys: Sequence[np.ndarray | list[str]]) -> None:
        if len(fields) != len(keys):
            raise ValueError(f"{len(fields)} fields but {len(keys)} lists of keys")
        self.fields = tuple(fields)
        self.keys: list[np.ndarray | list[str]] = [
            np.asarray(k, dtype=np.int64) if field.has_integer_keys else list(k)
            for field, k in zip(fields, keys, strict=True)
        ]
        for field, field_keys in zip(self.fields, self.keys, strict=True):
            if isinstance(field_keys, np.ndarray):
                ascending = bool(np.all(field_keys[1:] > field_keys[:-1]))
            else:
                ascending = all(a < b for a, b in itertools.pairwise(field_keys))
            if not ascending:
                raise ValueError(f"field '{field.name}': keys must ascend without repeats")
        self.field_offsets = np.concatenate([[0], np.cumsum([1 + len(k) for k in self.keys])]).astype(
            np.int64
        )
        self._ids: list[dict[int | str, int] | None] = [None] * len(self.fields)
        self._positions = {field.name: i for i, field in enumerate(self.fields)}

    @property
    def num_embeddings(self) -> int:
        """Number of global ids, unknown ids included."""
        return int(self.field_offsets[-1])

    def encode_column(self, field_index: int, raws: Sequence[Any]) -> np.ndarray:
        """Global ids (int64) of a whole column of raw values."""
        memo = {value: self.fields[field_index].key(value) for value in set(raws)}
        return self.encode_keys(field_index, [memo[value] for value in raws])

    def encode_keys(self, field_index: int, keys: Sequence[int | str | None]) -> np.ndarray:
        """Global ids (int64) of canonical keys."""
        get = self._lookup(field_index).get
        local = np.fromiter((get(key, 0) for key in keys), dtype=np.int64, count=len(keys))  # type: ignore[arg-type]
        return local + self.field_offsets[field_index]

    def encode_values(self, field_index: int, raws: Sequence[Any]) -> np.ndarray:
        """Global ids (n, K) int64 of raw values of a field of K slots; those without a value have the unknown id.

        Of a history the last K known values are taken, which end in the last slot.
        """
        field = self.fields[field_index]
        if field.of is not None:
            source = self._positions[field.of]
            unknown = self.field_offsets[source]
            ids = np.full((len(raws), field.slots), unknown, dtype=np.int64)
            for row, raw in zip(ids, raws, strict=True):
                known = self.encode_keys(source, self.fields[source].sequence(raw))
                known = known[known != unknown][-field.slots :]
                row[field.slots - len(known) :] = known
            return ids
        if field.slots == 1:
            return self.encode_column(field_index, raws)[:, None]
        bags = [field.kept(raw) for raw in raws]
        ids = np.full((len(bags), field.slots), self.field_offsets[field_index], dtype=np.int64)
        for row, keys in zip(ids, bags, strict=True):
            row[: len(keys)] = self.encode_keys(field_index, keys)
        return ids

    def encode_row(self, row: Mapping[str, Any]) -> np.ndarray:
        """Global ids (S,) int64 of a row of raw values by field name; an absent field is unknown.

        Raises: UserError: when the row holds a name that is no field.
        """
        for name in row:
            if name not in self._positions:
                raise UserError(f"'{name}' is not a field {nearest(name, self._positions)}")
        return np.concatenate(
            [self.encode_values(i, [row.get(f.name)])[0] for i, f in enumerate(self.fields)], dtype=np.int64
        )

    def field_of(self, global_id: int) -> int:
        """Position of the field that owns an id."""
        if not 0 <= global_id < self.num_embeddings:
            raise ValueError(f"id {global_id} is outside 0 to {self.num_embeddings - 1}")
        return int(np.searchsorted(self.field_offsets, global_id, side="right")) - 1

    def key_of(self, global_id: int) -> int | str | None:
        """The key that owns an id; None for an unknown id."""
        field_index = self.field_of(global_id)
        local = int(global_id) - int(self.field_offsets[field_index])
        if local == 0:
            return None
        key = self.keys[field_index][local - 1]
        return key if isinstance(key, str) else int(key)

    def key_texts(self) -> list[str | None]:
        """Canonical text of the key of every id; None for unknown ids."""
        texts: list[str | None] = []
        for field_index in range(len(self.fields)):
            texts += [None, *map(str, self._listed(field_index))]
        return texts

    def raw_of(self, global_id: int) -> int | float | str | None:
        """A raw value that is encoded as this id; None for an unknown id."""
        return self.fields[self.field_of(global_id)].raw(self.key_of(global_id))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the vocabulary as .npz: int64 keys, or UTF-8 bytes with offsets, and the fields as JSON."""
        arrays: dict[str, np.ndarray] = {}
        for i, field_keys in enumerate(self.keys):
            if isinstance(field_keys, np.ndarray):
                arrays[f"integers_{i}"] = field_keys
            else:
                encoded = [key.encode() for key in field_keys]
                arrays[f"bytes_{i}"] = np.frombuffer(b"".join(encoded), dtype=np.uint8)
                arrays[f"ends_{i}"] = np.cumsum([len(e) for e in encoded], dtype=np.int64)
        write_vocabulary(path, self.fields, arrays)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Vocabulary:
        """The vocabulary that `save` wrote. Raises UserError when the file is absent or damaged."""
        try:
            with np.load(io.BytesIO(Path(path).read_bytes()), allow_pickle=False) as arrays:
                header = json.loads(arrays["header"].tobytes())
                if header["format_version"] != FORMAT_VERSION:
                    raise DamagedFile(
                        f"{path}: vocabulary format {header['format_version']}, not {FORMAT_VERSION}"
                    )
                fields = [Field(**values) for values in header["fields"]]
                keys: list[np.ndarray | list[str]] = []
                for i, field in enumerate(fields):
                    if field.has_integer_keys:
                        keys.append(arrays[f"integers_{i}"])
                        continue
                    text, ends = arrays[f"bytes_{i}"].tobytes(), arrays[f"ends_{i}"].tolist()
                    keys.append([text[a:b].decode() for a, b in zip([0, *ends], ends, strict=False)])
                return cls(fields, keys)
        except (OSError, KeyError, TypeError, zipfile.BadZipFile, ValueError) as error:
            if isinstance(error, UserError):
                raise
            raise DamagedFile(
                f"{path}: not a whole vocabulary file ({error}); prepare the data again"
            ) from error

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Vocabulary):
            return NotImplemented
        return self.fields == other.fields and all(
            list(a) == list(b) for a, b in zip(self.keys, other.keys, strict=True)
        )

    def __repr__(self) -> str:
        sizes = ", ".join(f"{f.name} {len(k)}" for f, k in zip(self.fields, self.keys, strict=True))
        return f"Vocabulary({self.num_embeddings} ids: {sizes})"

    def _lookup(self, field_index: int) -> dict[int | str, int]:
        ids = self._ids[field_index]
        if ids is None:
            ids = self._ids[field_index] = {
                key: i for i, key in enumerate(self._listed(field_index), start=1)
            }
        return ids

    def _listed(self, field_index: int) -> list[Any]:
        keys = self.keys[field_index]
        return keys.tolist() if isinstance(keys, np.ndarray) else keys


def write_vocabulary(
    path: str | os.PathLike[str], fields: Sequence[Field], arrays: Mapping[str, np.ndarray]
) -> None:
    """Write the arrays of a vocabulary, which may be mapped from disk, as `Vocabulary.save` does."""
    header = {"format_version": FORMAT_VERSION, "fields": [f.to_dict() for f in fields]}
    described = np.frombuffer(json.dumps(header).encode(), dtype=np.uint8)
    with atomic_file(path) as out:
        np.savez(out, **arrays, header=described)  # type: ignore[arg-type]  # numpy's stub takes no ** of arrays


def learnt(field: Field, raws: Sequence[Any], counts: np.ndarray) -> Field:
    """The field with what it leaves to the training values: an origin, the smallest number, or boundaries.

    Args:
        field: as the schema has it.
        raws: distinct raw values of the training rows.
        counts: training rows that have each.
    """
    if field.kind == "number" and field.boundaries is None:
        numbers = [number_of(raw) for raw in raws]
        known = np.array([number is not None for number in numbers], dtype=bool)
        values, places = np.unique([n for n in numbers if n is not None], return_inverse=True)
        rows = np.bincount(places, weights=counts[known], minlength=len(values)).astype(np.int64)
        return dataclasses.replace(field, boundaries=quantile_boundaries(values, rows, field.buckets))
    if field.transform is None or field.origin is not None:
        return field
    smallest = min((n for n in map(number_of, raws) if n is not None), default=0.0)
    return dataclasses.replace(field, origin=smallest)


def quantile_boundaries(values: np.ndarray, counts: np.ndarray, buckets: int) -> tuple[float, ...]:
    """The smallest number of every bucket but the first.

    With n training rows, boundary j is the number at place ⌊j·n / buckets⌋ of the sorted ones. Where there are no more
    distinct numbers than buckets, each has its own.

    Args:
        values: (V,) distinct numbers of the training rows, ascending.
        counts: (V,) rows that have each.
        buckets: how many are wanted; there are fewer where numbers repeat.
    """
    if len(values) <= buckets:
        return tuple(float(value) for value in values[1:])
    upto = np.cumsum(counts, dtype=np.int64)
    places = np.arange(1, buckets, dtype=np.int64) * int(upto[-1]) // buckets
    bounds = np.unique(np.searchsorted(upto, places, side="right"))
    return tuple(float(values[place]) for place in bounds if place > 0)
