"""Program rows: training ids renumbered so that a row's size follows from its number."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ondevice.bundle.fingerprints import Fingerprints, text_hashes
from ondevice.bundle.vocabulary_file import (
    FINGERPRINTED,
    HASHED,
    FieldKeys,
    Group,
    form_of,
    vocabulary_bytes,
)
from ondevice.forms.base import Form, RowLayout


@dataclass(frozen=True)
class RowOrder:
    """Rows ordered by (size class falling, first-order kept first, field, unknown first, key).

    A row whose embedding and first-order weight are both pruned is not stored: its id reads its field's unknown
    row, or ``num_rows``, the row of zeros, when that one is pruned as well.

    Args:
        field_offsets: first training id of each field, and the total.
        ids: training id of each program row.
        row_of: program row of each training id.
        classes: size class of each program row, falling; 0 for rows that keep no embedding.
        has_first_order: whether each program row keeps its first-order weight.
        keys: canonical text of the key of each training id, or None for unknown ids.
        modulus: for each field the number of rows that its keys share by their hash, 0 where none do; None for
            no such field. Their rows follow one another, in the order of hash values.
        fingerprints: of the fields whose keys are stored so; their rows are in the order of places.

    Shape: field_offsets (F + 1,) and modulus (F,), ids, classes and has_first_order (num_rows,), row_of (N,).
    """

    field_offsets: np.ndarray
    ids: np.ndarray
    row_of: np.ndarray
    classes: np.ndarray
    has_first_order: np.ndarray
    keys: Sequence[str | None]
    modulus: np.ndarray | None = None
    fingerprints: Mapping[int, Fingerprints] = field(default_factory=dict)

    @property
    def num_rows(self) -> int:
        return len(self.ids)

    @property
    def num_fields(self) -> int:
        return len(self.field_offsets) - 1

    @property
    def first_order_rows(self) -> int:
        """Rows the first-order table must have."""
        kept = np.flatnonzero(self.has_first_order)
        return int(kept[-1]) + 1 if len(kept) else 0

    @property
    def field_of_ids(self) -> np.ndarray:
        """The field of each training id, (N,) int64."""
        return np.repeat(np.arange(self.num_fields), np.diff(self.field_offsets))

    def is_hashed(self, field: int) -> bool:
        """Whether a field's keys share rows by their hash."""
        return self.modulus is not None and bool(self.modulus[field])

    def names_keys(self, field: int) -> bool:
        """Whether a vocabulary of this order says which keys a field has."""
        return not self.is_hashed(field) and field not in self.fingerprints

    @cached_property
    def unknown_rows(self) -> np.ndarray:
        """Row of each field's unknown values."""
        result: np.ndarray = self.row_of[self.field_offsets[:-1]]
        return result

    def rows(self, ids: Tensor | np.ndarray) -> Tensor:
        """Program rows (int64) of training ids of any shape."""
        return torch.from_numpy(self.row_of)[torch.as_tensor(np.asarray(ids), dtype=torch.int64)]

    def read_ids(self, ids: Tensor) -> Tensor:
        """Training ids of any shape, those without a row that are taken for a stored key replaced by it.

        That happens with `fingerprints` alone.
        """
        if not self.fingerprints:
            return ids
        row = torch.from_numpy(self.row_of)[ids]
        stored = torch.from_numpy(np.append(self.ids, -1))[row.clamp(max=self.num_rows)]
        is_unknown = torch.isin(stored, torch.from_numpy(self.field_offsets[:-1])) | (stored < 0)
        return torch.where(is_unknown, ids, stored)

    @cached_property
    def field_keys(self) -> list[FieldKeys]:
        """The content of vocabulary.bin."""
        return [self.keys_of(field) for field in range(self.num_fields)]

    def keys_of(self, field: int) -> FieldKeys:
        """What vocabulary.bin says of a field."""
        unknown, runs = int(self.unknown_rows[field]), self.runs(field)
        if self.is_hashed(field):
            return FieldKeys(unknown, tuple(Group(int(run[0]), HASHED, range(len(run))) for run in runs))
        prints = self.fingerprints.get(field)
        if prints is None:
            return FieldKeys(unknown, tuple(group for run in runs for group in self._listed(run)))
        places = [prints.places(text_hashes(self.texts(self.ids[run]))).tolist() for run in runs]
        groups = [Group(int(run[0]), FINGERPRINTED, each) for run, each in zip(runs, places, strict=True)]
        return FieldKeys(unknown, tuple(groups), prints)

    def _listed(self, rows: np.ndarray) -> list[Group]:
        """Keys that ascend from row to row, in groups of one form."""
        groups: list[Group] = []
        run: list[int | str] = []
        for row, text in zip(rows.tolist(), self.texts(self.ids[rows]), strict=True):
            form, key = form_of(text)
            if not run or form != groups[-1].form or not key > run[-1]:  # type: ignore[operator]  # one form, so one type
                run = []
                groups.append(Group(row, form, run))  # type: ignore[arg-type]
            run.append(key)
        return groups

    def texts(self, ids: np.ndarray) -> list[str]:
        """Canonical texts of the keys of training ids, none of them an unknown one's."""
        return [str(self.keys[i]) for i in ids]

    def runs(self, field: int) -> list[np.ndarray]:
        """The rows of a field's keys, those of one size class that follow one another in each array.

        Of a hashed field they all follow one another.
        """
        begin, end = self.field_offsets[field : field + 2]
        rows = np.flatnonzero((self.ids > begin) & (self.ids < end))  # the first id is the unknown one
        if self.is_hashed(field) and len(rows):
            assert rows[-1] - rows[0] == len(rows) - 1, "the rows of a hashed field do not follow one another"
            return [rows]
        cuts = (np.diff(rows) > 1) | (np.diff(self.classes[rows]) != 0) | np.diff(self.has_first_order[rows])
        return np.split(rows, np.flatnonzero(cuts) + 1) if len(rows) else []


def order_rows(
    field_offsets: Sequence[int] | np.ndarray | Tensor,
    forms: Sequence[Form],
    keys: Sequence[str | None] | None = None,
    layout: RowLayout | None = None,
    fingerprint_bits: int | None = None,
    named: Collection[int] = (),
) -> RowOrder:
    """Number the rows that keep anything.

    Args:
        field_offsets: first training id of each field, and the total.
        forms: form of the embedding table, then of the first-order one if there is one.
        keys: canonical text of each training id's key, None for unknown ids; by default the place in its field.
        layout: of the embedding table's form; by default its sizes are the size classes.
        fingerprint_bits: of fingerprints in place of keys, in the fields where they take fewer bytes; None for none.
        named: fields whose keys are stored as they are.
    """
    offsets = np.asarray(field_offsets, dtype=np.int64)
    num_ids = int(offsets[-1])
    sizes = forms[0].row_sizes().cpu().numpy()
    first_order = forms[1].row_sizes().cpu().numpy() > 0 if len(forms) > 1 else np.zeros(num_ids, dtype=bool)
    if layout is None:
        layout = RowLayout(sizes)
    classes, modulus = layout.classes, layout.modulus
    assert np.array_equal(classes > 0, sizes > 0), "class 0 is for rows that keep no embedding"
    field_of = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    unknown = np.zeros(num_ids, dtype=bool)
    unknown[offsets[:-1]] = True
    if keys is None:
        local = np.arange(num_ids) - offsets[field_of]
        keys = [None if u else str(i) for u, i in zip(unknown, local, strict=True)]
    by_id = frozenset(layout.by_id)
    kept = np.flatnonzero((sizes > 0) | first_order)

    def place(training_id: int) -> tuple[object, ...]:
        text = keys[training_id]
        head = (-int(classes[training_id]), not first_order[training_id], int(field_of[training_id]))
        if text is None:
            return (*head, -1, 0)
        if int(field_of[training_id]) in by_id:
            return (*head, 0, training_id)
        form, key = form_of(text)
        return (*head, form, key) if form else (*head, 256, key)  # integers first, then texts

    ids = np.array(sorted(kept.tolist(), key=place), dtype=np.int64)
    row_of = np.full(num_ids, -1, dtype=np.int64)
    row_of[ids] = np.arange(len(ids))
    unknown_rows = row_of[offsets[:-1]]
    unknown_rows = np.where(unknown_rows < 0, len(ids), unknown_rows)
    row_of = np.where(row_of < 0, unknown_rows[field_of], row_of)
    if layout.read is not None:
        row_of = row_of[layout.read]
    order = RowOrder(offsets, ids, row_of, classes[ids], first_order[ids], keys, modulus)
    if fingerprint_bits is not None:
        for number in sorted(set(range(order.num_fields)).difference(named)):
            order = _fingerprinted(order, number, fingerprint_bits)
    return order


def _fingerprinted(order: RowOrder, field: int, bits: int) -> RowOrder:
    """The order with a field's keys as fingerprints, where that takes fewer bytes."""
    runs = order.runs(field)
    if order.is_hashed(field) or not runs:
        return order
    stored = np.concatenate(runs)
    prints = Fingerprints.of(text_hashes(order.texts(order.ids[stored])), bits)
    if prints is None:  # two keys have one hash
        return order
    ids, row_of = order.ids.copy(), order.row_of.copy()
    row_at = np.empty(len(stored), dtype=np.int64)
    for rows in runs:
        places = prints.places(text_hashes(order.texts(order.ids[rows])))
        ids[rows] = order.ids[rows[np.argsort(places)]]
        row_at[np.sort(places)] = rows
    row_of[ids[stored]] = stored
    begin, end = order.field_offsets[field : field + 2]
    others = np.setdiff1d(np.arange(begin + 1, end), ids[stored])
    taken_for = prints.places(text_hashes(order.texts(others)))
    row_of[others[taken_for >= 0]] = row_at[taken_for[taken_for >= 0]]
    made = replace(order, ids=ids, row_of=row_of, fingerprints={**order.fingerprints, field: prints})
    before, after = (vocabulary_bytes([each.keys_of(field)]) for each in (order, made))
    return made if after < before else order
