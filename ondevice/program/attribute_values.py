"""What the values of attributes add to an item's vector in a program of the next item, for items that come later."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from ondevice.bundle.item_rows import item_begin
from ondevice.models.item_attributes import ItemAttributes, attribute_fields
from ondevice.program.next_item import PackedNextItem
from ondevice.run.directory import Run
from ondevice.run.next_item import item_info, without_attributes


def attribute_values(run: Run, packed: PackedNextItem) -> tuple[list[dict[str, Any]], np.ndarray] | None:
    """The known values of all attributes of a model's items, and the vector of each.

    They are fitted to what the program stores of its items (`ItemAttributes.fit`), whatever the training had of them:
    fitted ones rank new items better than trained ones, which share what they say with the items' rows.

    Args:
        run: of the model.
        packed: the model, rounded as its program is.

    Returns: each field with its ``keys``, and (V, D + 1), the bias last; None where items have no attributes.

    Raises: UserError: when the data are neither where they were nor kept in the run.
    """
    if not attribute_fields(run.schema):
        return None
    dataset, vectors = run.dataset(rows=False), torch.from_numpy(stored_vectors(packed))
    attributes = ItemAttributes.of(dataset, vectors.shape[1] - 1)
    if attributes is None:
        return None
    items = torch.from_numpy(packed.order.ids) - item_begin(without_attributes(dataset))
    attributes.fit(items, vectors, item_info(dataset).counts[items])
    return attributes.described, attributes.weight[1:].detach().numpy()


def stored_vectors(packed: PackedNextItem) -> np.ndarray:
    """Each item's vector as its program stores it, with the bias at its end, (I, D + 1)."""
    with torch.no_grad():
        vectors = packed.item_vectors()[:-1]
    result: np.ndarray = F.pad(vectors, (0, packed.table.dim + 1 - vectors.shape[1])).numpy()
    return result
