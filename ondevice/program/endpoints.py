"""The endpoints of a program, which ExecuTorch calls methods: forward, rank and recommend over one recommender."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim

from ondevice.bundle.catalog import CatalogRows
from ondevice.config.sections import ENDPOINTS
from ondevice.errors import ConfigError, nearest
from ondevice.forms.pooling import Pooling
from ondevice.program.pack import PackedRecommender

MAX_BATCH = 1024
TOP_K = 100


class Forward(nn.Module):
    """Scores of whole rows.

    Shape: ids (B, S) int64 -> scores (B,) float32 in (0, 1).
    """

    def __init__(self, packed: PackedRecommender) -> None:
        super().__init__()
        self.packed = packed

    def forward(self, ids: Tensor) -> Tensor:
        return torch.sigmoid(self.packed(ids))


class Side(nn.Module):
    """What the fields of one side have, read from their slots alone.

    Args:
        packed: the recommender.
        columns: of these slots in a row.

    Shape: rows (B, S) int64 -> embeddings (B, F, D), first-order weights (B, F) or None.
    """

    absent: Tensor

    def __init__(self, packed: PackedRecommender, columns: Sequence[int]) -> None:
        super().__init__()
        slots = packed.slots.part(columns)
        self.fields = list(dict.fromkeys(packed.slots.fields[column] for column in columns))
        self.pooling = None
        if not slots.is_plain:
            self.pooling = Pooling(slots)
            self.register_buffer("absent", packed.absent[list(columns)])

    def forward(self, packed: PackedRecommender, rows: Tensor) -> tuple[Tensor, Tensor | None]:
        embeddings = packed.table(rows)
        weights = None if packed.first_order is None else packed.first_order(rows)
        if self.pooling is None:
            return embeddings, weights
        matrix = self.pooling.matrix(rows, self.absent)
        if weights is not None:
            weights = self.pooling(weights.unsqueeze(2), matrix).squeeze(2)
        return self.pooling(embeddings, matrix), weights


class Rank(nn.Module):
    """Scores of many items in one context.

    Ids are joined, not embeddings: one lookup for both sides is 2 kB of program less, and the scoring part is
    byte for byte that of `Forward`, so that it is stored once. A history's many slots are read once and not for each
    item: then each side has its lookup, and the fields of both are joined.

    Args:
        packed: the recommender.
        context_columns: places of the context's slots in a row.
        item_columns: places of the item's slots.

    Shape: context_ids (1, Sc) int64, item_ids (N, Si) int64 -> scores (N,) float32.
    """

    def __init__(
        self, packed: PackedRecommender, context_columns: Sequence[int], item_columns: Sequence[int]
    ) -> None:
        super().__init__()
        self.packed = packed
        joined = [*context_columns, *item_columns]
        assert sorted(joined) == list(range(len(joined))), "every field is on one side"
        # where each slot of a row is found among the joined columns
        self.order = [joined.index(f) for f in range(len(joined))]
        self.sides: nn.ModuleList | None = None
        order = self.order
        if packed.slots.has_history and packed.table.takes_any_columns and packed.places is None:
            sides = [Side(packed, context_columns), Side(packed, item_columns)]
            self.sides = nn.ModuleList(sides)
            fields = [field for side in sides for field in side.fields]
            order = [fields.index(f) for f in range(len(fields))]
        self.is_sorted = order == sorted(order)
        if not self.is_sorted:
            self.register_buffer("columns", torch.tensor(order, dtype=torch.int32))

    def rows(self, context_ids: Tensor, item_ids: Tensor) -> Tensor:
        """Whole rows (N, S) in the order of the slots."""
        joined = torch.cat([context_ids.expand(item_ids.shape[0], context_ids.shape[1]), item_ids], 1)
        return self._ordered(joined)

    def _ordered(self, joined: Tensor) -> Tensor:
        return joined if self.is_sorted else joined.index_select(1, self.columns)  # type: ignore[arg-type]

    def forward(self, context_ids: Tensor, item_ids: Tensor) -> Tensor:
        if self.sides is None:
            return torch.sigmoid(self.packed(self.rows(context_ids, item_ids)))
        return torch.sigmoid(self._logits_of_sides(context_ids, item_ids))

    def _logits_of_sides(self, context_ids: Tensor, item_ids: Tensor) -> Tensor:
        assert self.sides is not None
        (context, context_weights), (item, item_weights) = (
            side(self.packed, ids) for side, ids in zip(self.sides, (context_ids, item_ids), strict=True)
        )
        # What the context has is repeated by a product: XNNPACK takes that, and no expansion to any number.
        once = torch.ones_like(item_ids[:, :1], dtype=torch.float32)

        def joined(of_context: Tensor, of_items: Tensor) -> Tensor:
            repeated = of_context * (once.unsqueeze(2) if of_context.dim() == 3 else once)
            return self._ordered(torch.cat([repeated, of_items], 1))

        return self.packed.logits_of(joined(context, item), lambda: joined(context_weights, item_weights))


class Recommend(nn.Module):
    """The best items of the catalog in one context.

    Args:
        rank: scores items.
        catalog: program rows of the items.
        top_k: number of items returned.

    Shape: context_ids (1, Sc) int64 -> scores (K,) float32 falling, item_index (K,) int64.
    """

    def __init__(self, rank: Rank, catalog: CatalogRows, num_items: int, top_k: int) -> None:
        super().__init__()
        self.rank = rank
        self.catalog = catalog
        self.top_k = min(top_k, num_items)

    def forward(self, context_ids: Tensor) -> tuple[Tensor, Tensor]:
        scores, item_index = torch.topk(self.rank(context_ids, self.catalog()), self.top_k)
        return scores, item_index  # unpacked: the runtime returns no named tuples


@dataclass(frozen=True)
class Endpoint:
    """One endpoint, ready to be exported.

    Args:
        module: computes it.
        example: inputs to trace with.
        dynamic_shapes: for `torch.export.export`.
        batch: the most rows at once.
        signature: the manifest's entry.
    """

    module: nn.Module
    example: tuple[Tensor, ...]
    dynamic_shapes: tuple[dict[int, Any], ...]
    batch: int
    signature: dict[str, Any]


def make_endpoints(
    packed: PackedRecommender,
    names: Sequence[str],
    *,
    context_columns: Sequence[int],
    item_columns: Sequence[int],
    catalog: np.ndarray | None = None,
    catalog_widths: Sequence[int] | None = None,
    max_batch: int = MAX_BATCH,
    top_k: int = TOP_K,
) -> dict[str, Endpoint]:
    """The endpoints of these names.

    Args:
        packed: the recommender, quantized or not.
        names: some of `ENDPOINTS`.
        context_columns: places in a row of the slots known once per request.
        item_columns: places of the slots that differ per candidate.
        catalog: program rows (I, Si) of the items, for ``recommend``.
        catalog_widths: slots of each item field; None for one each.
        max_batch: the most rows of ``forward`` and items of ``rank`` at once.
        top_k: items that ``recommend`` returns.

    Raises: ConfigError: for an unknown name, or one that the data cannot serve.
    """
    num_context, num_items = len(context_columns), len(item_columns)
    result = {}
    for name in names:
        if name not in ENDPOINTS:
            raise ConfigError(f"unknown endpoint '{name}' {nearest(name, ENDPOINTS)}")
        if name != "forward" and not (num_context and num_items):
            raise ConfigError(
                f"endpoint '{name}' needs fields of both sides, but the schema has {num_context} of side context "
                f"and {num_items} of side item; export with --methods forward"
            )
    rank = Rank(packed, context_columns, item_columns) if num_context and num_items else None
    batch = Dim("batch", min=1, max=max_batch)
    row = torch.zeros(2, num_context + num_items, dtype=torch.int64)
    context, items = row[:1, :num_context].clone(), row[:, num_context:].clone()
    if "forward" in names:
        signature = {
            "inputs": [tensor_entry("ids", "int64", ["batch", num_context + num_items])],
            "outputs": [tensor_entry("scores", "float32", ["batch"])],
            "max_batch": max_batch,
        }
        result["forward"] = Endpoint(Forward(packed), (row,), ({0: batch},), max_batch, signature)
    if "rank" in names:
        assert rank is not None
        signature = {
            "inputs": [
                tensor_entry("context_ids", "int64", ["1", num_context]),
                tensor_entry("item_ids", "int64", ["items", num_items]),
            ],
            "outputs": [tensor_entry("scores", "float32", ["items"])],
            "max_items": max_batch,
        }
        result["rank"] = Endpoint(rank, (context, items), ({}, {0: batch}), max_batch, signature)
    if "recommend" in names:
        if catalog is None or len(catalog) == 0:
            raise ConfigError(
                "endpoint 'recommend' needs a catalog, but this data set names no item or none kept a row; "
                "export with --methods forward,rank"
            )
        assert rank is not None
        recommend = Recommend(rank, CatalogRows(catalog, catalog_widths), len(catalog), top_k)
        signature = {
            "inputs": [tensor_entry("context_ids", "int64", ["1", num_context])],
            "outputs": [
                tensor_entry("scores", "float32", [recommend.top_k]),
                tensor_entry("item_index", "int64", [recommend.top_k]),
            ],
            "k": recommend.top_k,
        }
        result["recommend"] = Endpoint(recommend, (context,), ({},), len(catalog), signature)
    return result


def tensor_entry(name: str, dtype: str, shape: list[Any]) -> dict[str, Any]:
    """A tensor as the manifest describes it."""
    return {"name": name, "dtype": dtype, "shape": shape}
