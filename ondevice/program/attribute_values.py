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
from ondevice.run.next_item import DENSE, item_info, without_attributes
from ondevice.training.checkpoint import load_attributes


def attribute_values(
    run: Run, label: str | None, packed: PackedNextItem
) -> tuple[list[dict[str, Any]], np.ndarray] | None:
    """The known values of all attributes of a model's items, and the vector of each.

    Those of the dense model were trained with it. Compact models have items' rows alone: there they are fitted to what
    the program stores of its items (`ItemAttributes.fit`).

    Args:
        run: of the model.
        label: of a compact model; None for the dense one.
        packed: the model, rounded as its program is.

    Returns: each field with its ``keys``, and (V, D + 1), the bias last; None where items have no attributes.

    Raises: UserError: when the data of a compact model are neither where they were nor kept in the run.
    """
    if label is None:
        trained = load_attributes(run.path / DENSE)
        return None if trained is None else (trained[0], trained[1].numpy())
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
