"""A data set as a model sees it that knows only some of its ids."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from ondevice.data.dataset import Dataset
from ondevice.data.splits import SPLITS
from ondevice.data.vocabulary import Vocabulary


class MappedIds:
    """Ids (n, S) of a split, each replaced by what a map has for it when it is read.

    Args:
        ids: (n, S) integers, mapped from disk for instance.
        id_map: (N,) int32.
    """

    def __init__(self, ids: np.ndarray, id_map: np.ndarray) -> None:
        self._ids, self._map = ids, id_map
        self.shape, self.dtype = ids.shape, id_map.dtype
        self.ndim, self.nbytes = ids.ndim, int(np.prod(ids.shape)) * id_map.dtype.itemsize

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, index: Any) -> Any:
        return self._map[self._ids[index]]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype=dtype)


def with_unknown(field_offsets: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """``ids`` and the unknown id of every field, ascending."""
    return np.union1d(np.asarray(field_offsets[:-1], dtype=np.int64), ids)


def kept_id_map(field_offsets: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """For each id its place among ``ids``, or that of its field's unknown id, (N,) int32.

    Args:
        field_offsets: first id of each field, and the total.
        ids: those kept, ascending, the unknown ones among them.
    """
    id_map = np.full(int(field_offsets[-1]), -1, dtype=np.int32)
    id_map[ids] = np.arange(len(ids), dtype=np.int32)
    for begin, end in pairwise(field_offsets):
        part = id_map[begin:end]
        part[part < 0] = part[0]
    return id_map


def keep_keys(vocabulary: Vocabulary, ids: np.ndarray) -> Vocabulary:
    """The vocabulary of some ids alone.

    Args:
        vocabulary: the whole one.
        ids: those kept, ascending, the unknown ones among them.
    """
    offsets = vocabulary.field_offsets
    places = np.searchsorted(ids, offsets)
    keys: list[np.ndarray | list[str]] = []
    for field, field_keys in enumerate(vocabulary.keys):
        kept = ids[places[field] + 1 : places[field + 1]] - offsets[field] - 1
        keys.append(
            field_keys[kept] if isinstance(field_keys, np.ndarray) else [field_keys[place] for place in kept]
        )
    return Vocabulary(vocabulary.fields, keys)


def keep_ids(dataset: Dataset, ids: np.ndarray) -> Dataset:
    """The data set with a vocabulary of ``ids`` alone: every other value is unknown.

    Args:
        dataset: the whole one; its splits are read through a map, and not copied.
        ids: those kept, ascending, the unknown ones among them.
    """
    id_map = kept_id_map(dataset.vocabulary.field_offsets, ids)
    catalog = dataset.catalog
    if catalog is not None:
        catalog = dataclasses.replace(catalog, ids=id_map[catalog.ids])
    vocabulary = keep_keys(dataset.vocabulary, ids)
    return _mapped(dataset, id_map, ids, slice(None), vocabulary=vocabulary, catalog=catalog)


def keep_fields(dataset: Dataset, fields: Sequence[int]) -> Dataset:
    """The data set of some of its fields alone.

    Args:
        dataset: the whole one.
        fields: positions, ascending; of a history the field that it is of as well.
    """
    schema, vocabulary = dataset.schema, dataset.vocabulary
    offsets, columns = vocabulary.field_offsets, list(schema.slots.of(fields))
    ids = np.concatenate([np.arange(offsets[f], offsets[f + 1]) for f in fields])
    id_map = np.full(vocabulary.num_embeddings, -1, dtype=np.int32)
    id_map[ids] = np.arange(len(ids), dtype=np.int32)
    catalog = dataset.catalog
    if catalog is not None:
        kept = [at for at, column in enumerate(schema.item_columns) if column in columns]
        names = [schema.names[f] for f in fields if schema.fields[f].side == "item"]
        raw = [{name: row[name] for name in names} for row in catalog.raw]
        catalog = dataclasses.replace(catalog, ids=id_map[catalog.ids[:, kept]], raw=raw)
    is_slice = columns == list(range(columns[0], columns[0] + len(columns)))
    return _mapped(
        *(dataset, id_map, ids, slice(columns[0], columns[-1] + 1) if is_slice else columns),
        schema=dataclasses.replace(schema, fields=tuple(schema.fields[f] for f in fields)),
        vocabulary=Vocabulary([vocabulary.fields[f] for f in fields], [vocabulary.keys[f] for f in fields]),
        catalog=catalog,
    )


def _mapped(dataset: Dataset, id_map: np.ndarray, ids: np.ndarray, columns: Any, **parts: Any) -> Dataset:
    """The data set with ``parts`` in place of its own, and some columns of its rows, read through a map."""
    for name in SPLITS:
        split = dataset.split(name)
        ids_of_split: Any = MappedIds(split.ids[:, columns], id_map)
        parts[name] = dataclasses.replace(split, ids=ids_of_split)
    if dataset.sequences is not None:
        items = id_map[np.asarray(dataset.sequences.items)]
        parts["sequences"] = dataclasses.replace(dataset.sequences, items=items)
    return dataclasses.replace(dataset, counts=dataset.counts[ids], **parts)
