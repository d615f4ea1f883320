"""The program rows of a model of the next item, and how many bytes its bundle will take."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from ondevice.bundle.estimate import linears_bytes
from ondevice.bundle.manifest import compact_schema, dump
from ondevice.bundle.rows import RowOrder, order_rows
from ondevice.bundle.vocabulary_file import vocabulary_bytes
from ondevice.data import Dataset
from ondevice.errors import UserError
from ondevice.forms.base import Form, RowLayout
from ondevice.forms.sizes import Sizes
from ondevice.forms.table import TableInfo
from ondevice.models.sequences import SequenceModel

# Bytes of a program's graphs, those of items, rank and recommend together, measured on finished ones: what all have,
# a linear layer, biases of items; and of the manifest beside its schema and golden cases.
GRAPH_BYTES, LINEAR_BYTES, BIAS_BYTES = 11_700, 370, 1_080
MANIFEST_BYTES = 2_900


def item_begin(dataset: Dataset) -> int:
    """The first id of the item field among those of all fields."""
    schema = dataset.schema
    assert schema.item_key is not None, "a data set with sequences names its items"
    return int(dataset.vocabulary.field_offsets[schema.names.index(schema.item_key)])


def item_order(forms: Sequence[Form], info: TableInfo, dataset: Dataset) -> RowOrder:
    """The rows of the items that keep anything, among the ids of all fields of the schema.

    Args:
        forms: of the embeddings and, where there are any, of the biases; the unknown item keeps nothing.
        info: of the items.
        dataset: whose vocabulary the program has.

    Raises: UserError: when items share rows.
    """
    offsets, begin = dataset.vocabulary.field_offsets, item_begin(dataset)
    end, field = begin + info.num_embeddings, dataset.schema.names.index(str(dataset.schema.item_key))
    whole, classes = [], np.zeros(int(offsets[-1]), dtype=np.int64)
    for form in forms:  # ids of other fields store nothing
        sizes = torch.zeros(int(offsets[-1]), dtype=torch.int64)
        sizes[begin:end] = form.row_sizes()
        whole.append(Sizes(sizes, max(1, int(sizes.max()))))
    layout = forms[0].layout(info)
    if layout.read is not None or layout.modulus is not None:
        raise UserError("items that share rows have no program yet: each needs a row of its own")
    classes[begin:end] = layout.classes
    texts = dataset.vocabulary.key_texts()
    return order_rows(offsets, whole, texts, RowLayout(classes), named=[field])


def next_item_bytes(forms: Sequence[Form], info: TableInfo, model: SequenceModel, dataset: Dataset) -> int:
    """Estimated bytes of the bundle of a model under these forms, but for the titles of its items.

    Args:
        forms: as of `item_order`.
        info: of the items.
        model: at the width of the forms.
        dataset: whose vocabulary is shipped.
    """
    order = item_order(forms, info, dataset)
    stored = forms[0].estimate(1, ("forward",))  # `items` alone reads what is stored
    biases = order.first_order_rows + 1 + BIAS_BYTES if order.first_order_rows else 0
    return stored + biases + vocabulary_bytes(order.field_keys) + fixed_bytes(model, dataset)


def fixed_bytes(model: SequenceModel, dataset: Dataset) -> int:
    """Bytes of a bundle beside its tables and vocabulary: graphs, the sequence model and the manifest."""
    shipped = model.compacted()
    linears = [module for module in shipped.modules() if isinstance(module, nn.Linear)]
    weights = linears_bytes(linears, model.linear_bits)
    of_linears = {id(value) for each in linears for value in each.parameters()}
    others = {id(value): value for value in (*shipped.parameters(), *shipped.buffers())}
    weights += sum(value.nbytes for key, value in others.items() if key not in of_linears)
    for table in shipped.packed_tables():  # a byte a value and a scale a dimension in place of float32
        weights += 4 * table.dim - 3 * table.num_values()
    graphs = GRAPH_BYTES + LINEAR_BYTES * len(linears)
    graphs += sum(getattr(module, "graph_bytes", 0) for module in shipped.modules())
    golden = dataset.raw_rows("test", [0, 1])
    described = len(dump(compact_schema(dataset.schema)).encode()) + len(dump(golden).encode())
    if dataset.schema.num_gaps:  # golden cases have times and buckets, most of which are 0
        described += 2 * (2 * dataset.schema.num_gaps + 60)
    described += 2 * (1 + len(str(dataset.vocabulary.num_embeddings))) * dataset.schema.slots.total
    return weights + graphs + described + MANIFEST_BYTES
