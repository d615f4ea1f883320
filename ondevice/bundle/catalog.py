"""The items of a data set that kept a row, as a program and a bundle list them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ondevice.bundle.rows import RowOrder
from ondevice.data import Dataset
from ondevice.errors import UserError


@dataclass(frozen=True)
class CatalogItems:
    """The items that kept a row, in the order of those rows.

    Args:
        rows: program rows (I, Si) of the slots of the item fields.
        described: title and raw values of each.
    """

    rows: np.ndarray
    described: list[dict[str, Any]]


def catalog_items(dataset: Dataset, order: RowOrder) -> CatalogItems:
    """The catalog of a program: item i is the i-th known key of the item's field in the order of rows."""
    schema, catalog = dataset.schema, dataset.catalog
    assert catalog is not None
    assert schema.item_key is not None
    key_field = schema.names.index(schema.item_key)
    (key_column,) = schema.slots.of([key_field])
    key_ids = catalog.ids[:, schema.item_columns.index(key_column)]
    place_of = {int(i): place for place, i in enumerate(key_ids)}
    begin, end = order.field_offsets[key_field], order.field_offsets[key_field + 1]
    item_ids = order.ids[
        (order.ids > begin) & (order.ids < end)
    ]  # in program order; the first id is the unknown one
    rows = np.empty((len(item_ids), len(schema.item_columns)), dtype=np.int64)
    described = []
    for at, training_id in enumerate(item_ids):
        place = place_of.get(int(training_id))
        if place is None:
            raise UserError(
                f"the catalog lacks the item {order.keys[training_id]} that the vocabulary knows; "
                "prepare the data again"
            )
        rows[at] = order.row_of[catalog.ids[place]]
        entry = {"title": catalog.titles[place]} if catalog.titles[place] else {}
        described.append({**entry, **catalog.raw[place]})
    return CatalogItems(rows, described)


class CatalogRows(nn.Module):
    """Program rows of every item's fields, in few bytes.

    A column that rises by one is kept as its runs. Another is one byte per item into a small table of rows where
    at most 256 rows occur, else the rows themselves in as few bytes as they need. The columns of a field of several
    slots are one or two bytes per item into a table of the combinations that occur.

    Args:
        rows: program rows of the item fields.
        widths: slots of each of these fields; None for one each.

    Shape: () -> (I, Si) int64.
    """

    def __init__(self, rows: np.ndarray, widths: Sequence[int] | None = None) -> None:
        super().__init__()
        self.runs: dict[int, list[tuple[int, int]]] = {}
        widths = (1,) * rows.shape[1] if widths is None else widths
        self.num_fields = len(widths)
        for field, (begin, end) in enumerate(pairwise(np.cumsum([0, *widths]).tolist())):
            if end - begin > 1:
                combined, places = np.unique(rows[:, begin:end], axis=0, return_inverse=True)
                self.register_buffer(f"code_{field}", _narrow(places.reshape(-1, 1)))
                self.register_buffer(f"rows_{field}", _narrow(combined))
                continue
            column = rows[:, begin]
            runs = _runs(column)
            if len(runs) * 100 < len(column) or len(runs) == 1:
                self.runs[field] = runs
                continue
            distinct, places = np.unique(column, return_inverse=True)
            if len(distinct) <= 256:
                self.register_buffer(f"code_{field}", torch.from_numpy(places.astype(np.uint8))[:, None])
                self.register_buffer(f"rows_{field}", _narrow(distinct)[:, None])
            else:
                self.register_buffer(f"rows_{field}", _narrow(column)[:, None])

    def forward(self) -> Tensor:
        columns: list[Tensor] = []
        for field in range(self.num_fields):
            if field in self.runs:
                parts = [torch.arange(begin, end) for begin, end in self.runs[field]]
                whole = parts[0] if len(parts) == 1 else torch.cat(parts)
                columns.append(whole.unsqueeze(1))
                continue
            rows: Tensor = getattr(self, f"rows_{field}")
            code = getattr(self, f"code_{field}", None)
            columns.append((rows if code is None else F.embedding(code.int(), rows).flatten(1)).long())
        return torch.cat(columns, 1)

    def stored_bytes(self) -> int:
        """Bytes of codes and rows."""
        return sum(buffer.nbytes for buffer in self.buffers())


def _runs(column: np.ndarray) -> list[tuple[int, int]]:
    """The column as ranges [begin, end) that rise by one."""
    cuts = np.flatnonzero(np.diff(column) != 1) + 1
    bounds = [0, *cuts.tolist(), len(column)]
    return [(int(column[a]), int(column[b - 1]) + 1) for a, b in pairwise(bounds)]


def _narrow(values: np.ndarray) -> Tensor:
    """Whole numbers in the fewest bytes that PyTorch and the runtime share."""
    largest = int(values.max(initial=0))
    dtype = next(t for t in (np.uint8, np.int16, np.int32) if largest <= np.iinfo(t).max)
    return torch.from_numpy(values.astype(dtype))
