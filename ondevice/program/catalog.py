"""The items of a data set that kept a row, as a program and a bundle list them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ondevice.data import Dataset
from ondevice.errors import UserError
from ondevice.program.rows import RowOrder


@dataclass(frozen=True)
class CatalogItems:
    """The items that kept a row, in the order of those rows.

    Args:
        rows: program rows (I, Fi) of the item fields.
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
    place_of = {int(i): place for place, i in enumerate(catalog.ids[:, schema.item_fields.index(key_field)])}
    begin, end = order.field_offsets[key_field], order.field_offsets[key_field + 1]
    own = order.ids[
        (order.ids > begin) & (order.ids < end)
    ]  # in program order; the first id is the unknown one
    rows = np.empty((len(own), len(schema.item_fields)), dtype=np.int64)
    described = []
    for at, training_id in enumerate(own):
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
