"""Program rows: training ids renumbered so that a row's size follows from its number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ondevice.embeddings.forms import Form, SharedMap
from ondevice.program.vocabulary_file import HASHED, FieldKeys, Group, form_of


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

    Shape: field_offsets (F + 1,) and modulus (F,), ids, classes and has_first_order (num_rows,), row_of (N,).
    """

    field_offsets: np.ndarray
    ids: np.ndarray
    row_of: np.ndarray
    classes: np.ndarray
    has_first_order: np.ndarray
    keys: Sequence[str | None]
    modulus: np.ndarray | None = None

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

    def is_hashed(self, field: int) -> bool:
        """Whether a field's keys share rows by their hash."""
        return self.modulus is not None and bool(self.modulus[field])

    @cached_property
    def unknown_rows(self) -> np.ndarray:
        """Row of each field's unknown values."""
        result: np.ndarray = self.row_of[self.field_offsets[:-1]]
        return result

    def rows(self, ids: Tensor | np.ndarray) -> Tensor:
        """Program rows (int64) of training ids of any shape."""
        return torch.from_numpy(self.row_of)[torch.as_tensor(np.asarray(ids), dtype=torch.int64)]

    @cached_property
    def field_keys(self) -> list[FieldKeys]:
        """The content of vocabulary.bin."""
        groups: list[list[Group]] = [[] for _ in range(self.num_fields)]
        field_of = np.searchsorted(self.field_offsets, self.ids, side="right") - 1
        run: list[int | str] = []
        previous: tuple[int, int, bool, int] | None = None
        begin = 0

        def close() -> None:
            if previous is not None and run:
                groups[previous[0]].append(Group(begin, previous[3], list(run)))  # type: ignore[arg-type]

        for row, training_id in enumerate(self.ids):
            text = self.keys[training_id]
            if text is None or self.is_hashed(int(field_of[row])):
                continue
            form, key = form_of(text)
            here = (int(field_of[row]), int(self.classes[row]), bool(self.has_first_order[row]), form)
            if here != previous or not key > run[-1]:  # type: ignore[operator]  # one form, so one type
                close()
                previous, run, begin = here, [], row
            run.append(key)
        close()
        for field in filter(self.is_hashed, range(self.num_fields)):
            rows = np.flatnonzero((field_of == field) & (self.ids != self.field_offsets[field]))
            if len(rows):
                assert rows[-1] - rows[0] == len(rows) - 1, (
                    "the rows of a hashed field do not follow one another"
                )
                groups[field].append(Group(int(rows[0]), HASHED, range(len(rows))))
        return [FieldKeys(int(u), tuple(g)) for u, g in zip(self.unknown_rows, groups, strict=True)]


def order_rows(
    field_offsets: Sequence[int] | np.ndarray | Tensor,
    forms: Sequence[Form],
    keys: Sequence[str | None] | None = None,
    classes: np.ndarray | None = None,
) -> RowOrder:
    """Number the rows that keep anything.

    Args:
        field_offsets: first training id of each field, and the total.
        forms: form of the embedding table, then of the first-order one if there is one.
        keys: canonical text of each training id's key, None for unknown ids; by default the place in its field.
        classes: size class of each training id (rows of one class stay together); by default the sizes.
    """
    offsets = np.asarray(field_offsets, dtype=np.int64)
    num_ids = int(offsets[-1])
    sizes = forms[0].row_sizes().cpu().numpy()
    first_order = forms[1].row_sizes().cpu().numpy() > 0 if len(forms) > 1 else np.zeros(num_ids, dtype=bool)
    if classes is None:
        classes = sizes
    assert np.array_equal(classes > 0, sizes > 0), "class 0 is for rows that keep no embedding"
    field_of = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    unknown = np.zeros(num_ids, dtype=bool)
    unknown[offsets[:-1]] = True
    if keys is None:
        local = np.arange(num_ids) - offsets[field_of]
        keys = [None if u else str(i) for u, i in zip(unknown, local, strict=True)]
    shared = forms[0] if isinstance(forms[0], SharedMap) else None
    modulus = None if shared is None else shared.modulus.cpu().numpy()
    kept = np.flatnonzero((sizes > 0) | first_order)

    def place(training_id: int) -> tuple[object, ...]:
        text = keys[training_id]
        head = (-int(classes[training_id]), not first_order[training_id], int(field_of[training_id]))
        if text is None:
            return (*head, -1, 0)
        if modulus is not None and modulus[field_of[training_id]]:
            return (*head, 0, training_id)  # in the order of hash values
        form, key = form_of(text)
        return (*head, form, key) if form else (*head, 256, key)  # integers first, then texts

    ids = np.array(sorted(kept.tolist(), key=place), dtype=np.int64)
    row_of = np.full(num_ids, -1, dtype=np.int64)
    row_of[ids] = np.arange(len(ids))
    unknown_rows = row_of[offsets[:-1]]
    unknown_rows = np.where(unknown_rows < 0, len(ids), unknown_rows)
    row_of = np.where(row_of < 0, unknown_rows[field_of], row_of)
    if shared is not None:
        row_of = row_of[shared.shared.cpu().numpy()]
    return RowOrder(offsets, ids, row_of, classes[ids], first_order[ids], keys, modulus)
