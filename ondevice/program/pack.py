"""Exportable modules with the values of a recommender's tables and nothing else.

Modules here read program rows (`rows.RowOrder`), not training ids.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ondevice.bundle.rows import RowOrder, order_rows
from ondevice.data.slots import Slots
from ondevice.errors import UserError, nearest
from ondevice.forms.base import LAYOUTS, Form
from ondevice.forms.packed import FirstOrderTable, PackedTable
from ondevice.forms.pooling import Pooling
from ondevice.models import BaseModel
from ondevice.models.places import Places
from ondevice.models.sequences import SequenceModel
from ondevice.recommender import Recommender

# A second delegate, and what passes between the two, in a program of three methods (measured).
SPLIT_BYTES = 1500


class Packed(nn.Module):
    """A model that reads program rows, as it is quantized and lowered."""

    model: BaseModel | SequenceModel

    def tables(self) -> list[PackedTable]:
        """The embedding table, and the first-order one where there is one."""
        raise NotImplementedError(f"{type(self).__name__} does not list its tables")

    def fold_first_order_scale(self) -> None:
        """Move the scale of integer first-order weights to where it costs nothing, if there is such a place."""


class PackedRecommender(Packed):
    """A recommender that reads program rows, and holds the kept values alone.

    Shape: rows (B, S) int64, a column for each slot -> logits (B,).
    """

    absent: Tensor
    model: BaseModel
    first_weight: Tensor
    bias: Tensor
    projection: Tensor | None

    def __init__(
        self,
        table: PackedTable,
        first_order: FirstOrderTable | None,
        model: BaseModel,
        bias: Tensor,
        order: RowOrder,
        layout: str,
        projection: Tensor | None = None,
        slots: Slots | None = None,
    ) -> None:
        super().__init__()
        self.table = table
        self.slots = Slots.single(model.num_fields) if slots is None else slots
        self.pooling = None
        self.places: Places | None = None
        if slots is not None and not slots.is_plain:
            unknown = torch.from_numpy(order.unknown_rows[slots.owners])
            if model.reads_histories and slots.has_history:
                self.places = Places(slots, unknown, table.takes_any_columns)
            else:
                self.pooling = Pooling(slots)
                self.register_buffer("absent", self.pooling.absent(unknown))
        self.first_order = first_order
        self.model = model
        self.layout = layout
        self.register_buffer("bias", bias.detach().clone().reshape(1))
        # Sum, scale and bias of the first-order part are one product with these equal weights.
        self.register_buffer("first_weight", torch.ones(1, model.num_fields))
        flat = None if projection is None else projection[:, : table.dim].reshape(1, -1)
        self.register_buffer("projection", flat)
        self.order = order

    def tables(self) -> list[PackedTable]:
        """The embedding table, and the first-order one where there is one."""
        return [self.table] if self.first_order is None else [self.table, self.first_order]

    def fold_first_order_scale(self) -> None:
        """Let the weights that sum the fields take over the scale of integer first-order weights."""
        if self.first_order is not None and self.first_order.scale is not None:
            self.first_weight = torch.full_like(self.first_weight, float(self.first_order.scale))
            self.first_order.scale = None

    def forward(self, rows: Tensor) -> Tensor:
        if self.places is not None:
            logits: Tensor = self.model(*self.places(self.table, rows))
            return logits + self.bias
        embeddings, matrix = self.table(rows), None
        if self.pooling is not None:
            matrix = self.pooling.matrix(rows, self.absent)
            embeddings = self.pooling(embeddings, matrix)
        return self.logits_of(embeddings, lambda: self._first_order_of(rows, matrix))

    def _first_order_of(self, rows: Tensor, matrix: Tensor | None) -> Tensor:
        first_order: Tensor = self.first_order(rows)  # type: ignore[misc]
        if self.pooling is not None:
            first_order = self.pooling(first_order.unsqueeze(2), matrix).squeeze(2)
        return first_order

    def logits_of(self, embeddings: Tensor, first_order: Callable[[], Tensor]) -> Tensor:
        """Logits (B,) from embeddings (B, F, D); first-order weights (B, F) are asked for where they are stored."""
        logits: Tensor = self.model(embeddings)
        if self.projection is not None:
            return logits + F.linear(embeddings.flatten(1), self.projection, self.bias).squeeze(-1)
        if self.first_order is None:
            return logits + self.bias
        return logits + F.linear(first_order(), self.first_weight, self.bias).squeeze(-1)


def pack(
    recommender: Recommender,
    layout: str = "staircase",
    keys: Sequence[str | None] | None = None,
    fingerprint_bits: int | None = None,
    named: Collection[int] = (),
) -> PackedRecommender:
    """The packed recommender, equal to the eager one on the same rows.

    Args:
        recommender: a trained model in evaluation mode.
        layout: ``staircase`` for prefix sizes, ``csr`` for positions (sizes are positions, too).
        keys: canonical text of each training id's key (None for unknown ids), for the order of rows.
        fingerprint_bits: as in `order_rows`.
        named: as in `order_rows`.

    Raises: UserError: when nothing is kept, or the layout cannot hold the form.
    """
    if layout not in LAYOUTS:
        raise UserError(f"unknown layout '{layout}' {nearest(layout, LAYOUTS)}")
    forms = recommender.forms()
    if sum(form.num_kept() for form in forms) == 0:
        raise UserError("packing stored nothing: neither an embedding value nor a first-order weight is kept")
    info, embedding = recommender.info, recommender.tables()[0]
    shares = forms[0].layout(info)  # who reads whose row stays as it is, whatever holds the values
    forms[0] = forms[0].laid_out(layout)
    numbered = dataclasses.replace(shares, classes=forms[0].layout(info).classes)
    model = compacted_model(recommender.model, forms[0], info.field_offsets, info.slots.sources)
    order = order_rows(info.field_offsets, forms, keys, numbered, fingerprint_bits, named)
    rows = torch.from_numpy(order.ids)
    packed = forms[0].pack(embedding, rows)
    first_order = None
    if len(forms) > 1 and order.first_order_rows:
        weights = recommender.tables()[1].table().cpu()[rows, 0]
        first_order = FirstOrderTable(weights[: order.first_order_rows])
    bias = recommender.bias.detach().cpu()
    projection = None if recommender.projection is None else recommender.projection.detach().cpu()
    return PackedRecommender(packed, first_order, model, bias, order, layout, projection, info.slots).eval()


def compacted_model(
    model: BaseModel, form: Form, field_offsets: Tensor, sources: Sequence[int] | None = None
) -> BaseModel:
    """The model in evaluation form, batch norm folded, without input columns that only meet zeros.

    The columns are dropped where that saves bytes: picking the others costs an index of 8 bytes per column, and
    cuts the delegate in two.

    Args:
        model: the trained one.
        form: of its embeddings.
        field_offsets: first id of each field, and the total.
        sources: the field whose rows each field reads; None: each its own.
    """
    width = model.embedding_dim
    kept = form.mask()[:, :width]
    bounds = field_offsets.tolist()
    dims = []
    for begin, end in pairwise(bounds):
        used = kept[begin:end].any(0).nonzero()
        dims.append(int(used[-1]) + 1 if used.numel() else 0)
    if sources is not None:
        dims = [dims[source] for source in sources]
    full = model.compacted([width] * model.num_fields)
    narrow = model.compacted(dims)
    saved = _parameter_bytes(full) - _parameter_bytes(narrow)
    return narrow if saved > 8 * sum(dims) + SPLIT_BYTES else full


def _parameter_bytes(model: BaseModel) -> int:
    """Bytes at 8 bits a weight."""
    return sum(p.numel() for p in model.parameters())
