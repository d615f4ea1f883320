"""A recommender of the next item as a program: items' vectors once, the user's once a call, seen items left out inside.

What is stored of the items (codes, cells, integers) becomes vectors in a method of its own, ``items``, which a reader
calls once and whose output it hands to the others. A call then costs the history's network and one product.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import Dim

from ondevice.bundle.item_rows import item_begin, item_order
from ondevice.bundle.manifest_check import EXCLUDED, ITEM_VECTORS, ITEMS
from ondevice.bundle.rows import RowOrder
from ondevice.data.dataset import Dataset
from ondevice.errors import UserError
from ondevice.forms.packed import FirstOrderTable, PackedTable
from ondevice.models.sequences import SequenceModel
from ondevice.next_item import NextItemRecommender
from ondevice.program.endpoints import MAX_BATCH, TOP_K, Endpoint, tensor_entry
from ondevice.program.pack import Packed


class PackedNextItem(Packed):
    """A recommender of the next item that reads program rows, and holds the kept values alone.

    Rows from ``num_rows`` on hold nothing: they are absent places of a history.

    Args:
        table: embeddings of the items.
        first_order: their biases; None for none.
        model: of the history.
        order: the program rows, of all fields of the schema.

    Shape: context (1, L) int64, rows of a history, or (1, 2·L) with the buckets of their gaps after them where the
        model reads those; item rows (N, 1) int64 -> scores (N,).
    """

    model: SequenceModel

    def __init__(
        self, table: PackedTable, first_order: FirstOrderTable | None, model: SequenceModel, order: RowOrder
    ) -> None:
        super().__init__()
        self.table, self.first_order, self.model, self.order = table, first_order, model, order
        self.num_rows = order.num_rows
        self.layout = "staircase"

    def tables(self) -> list[PackedTable]:
        biases = [] if self.first_order is None else [self.first_order]
        return [self.table, *biases, *self.model.packed_tables()]

    def item_vectors(self) -> Tensor:
        """The embedding of each item and, where there are any, its bias (I + 1, W); the last row holds nothing."""
        rows = torch.arange(self.num_rows + 1).unsqueeze(1)
        vectors = self.table(rows).reshape(-1, self.table.dim)
        if self.first_order is None:
            return vectors
        bias = self.first_order(rows)
        return torch.cat(
            [vectors, bias if self.first_order.scale is None else bias * self.first_order.scale], 1
        )

    def history(self, context: Tensor) -> Tensor:
        """The history's rows (1, L) of a context."""
        return context[:, : self.model.last] if self.model.reads_gaps else context

    def nobody(self) -> Tensor:
        """The context of an empty history."""
        absent = torch.full((1, self.model.last), self.num_rows)
        return F.pad(absent, (0, self.model.last)) if self.model.reads_gaps else absent

    def user(self, context: Tensor, vectors: Tensor) -> Tensor:
        """The user's vector (1, W) in a context, by vectors of items: a bias counts once."""
        history = self.history(context)
        gaps = context[:, self.model.last :] if self.model.reads_gaps else None
        read = F.embedding(history.clamp(max=self.num_rows), vectors)
        present = history < self.num_rows
        if self.first_order is None:
            return self.model.newest(read, present, gaps)
        user = self.model.newest(read[..., : self.table.dim], present, gaps)
        return torch.cat([user, torch.ones(1, 1)], 1)

    def forward(self, context: Tensor, items: Tensor, vectors: Tensor | None = None) -> Tensor:
        vectors = self.item_vectors() if vectors is None else vectors
        read = F.embedding(items.reshape(-1).clamp(max=self.num_rows), vectors)
        return products(read, self.user(context, vectors))


def products(vectors: Tensor, user: Tensor) -> Tensor:
    """Scores (N,) of items (N, W) for a user (1, W)."""
    # XNNPACK takes no float64: what comes before is a delegate of its own, which both methods share
    return torch.mm(vectors, user.double().float().reshape(-1, 1)).reshape(-1)


class Items(nn.Module):
    """The items' vectors, which `RankNext` and `RecommendNext` read.

    Shape: -> item_vectors (I + 1, W) float32.
    """

    def __init__(self, packed: PackedNextItem) -> None:
        super().__init__()
        self.packed = packed

    def forward(self) -> Tensor:
        return self.packed.item_vectors()


class RankNext(nn.Module):
    """Scores of some items after a history.

    Shape: context_ids (1, L) int64, item_ids (N, 1) int64, item_vectors (I + 1, W) float32 -> scores (N,) float32.
    """

    def __init__(self, packed: PackedNextItem) -> None:
        super().__init__()
        self.packed = packed

    def forward(self, context_ids: Tensor, item_ids: Tensor, item_vectors: Tensor) -> Tensor:
        return self.packed(context_ids, item_ids, item_vectors)  # type: ignore[no-any-return]


class RecommendNext(nn.Module):
    """The best items after a history, without those in it and those that the caller leaves out.

    Args:
        packed: the recommender.
        top_k: number of items returned.

    Shape: context_ids (1, L) int64, exclude_ids (1, E) int64, item_vectors (I + 1, W) float32 -> scores (K,) float32
        falling, item_index (K,) int64; what is left out has the score −∞. Rows from ``num_rows`` on leave out nothing.
    """

    def __init__(self, packed: PackedNextItem, top_k: int) -> None:
        super().__init__()
        self.packed = packed
        self.top_k = min(top_k, packed.num_rows)

    def forward(
        self, context_ids: Tensor, exclude_ids: Tensor, item_vectors: Tensor
    ) -> tuple[Tensor, Tensor]:
        num_rows = self.packed.num_rows
        # the last of these, of no item, takes what leaves out nothing
        scores = products(item_vectors, self.packed.user(context_ids, item_vectors))
        left_out = (
            torch.cat([self.packed.history(context_ids), exclude_ids], 1).reshape(-1).clamp(max=num_rows)
        )
        kept = scores.scatter(0, left_out, -torch.inf)[:num_rows]
        best, item_index = torch.topk(kept, self.top_k)
        return best, item_index  # unpacked: the runtime returns no named tuples


def pack(recommender: NextItemRecommender, dataset: Dataset) -> PackedNextItem:
    """The packed recommender, equal to the eager one.

    The unknown item is stored nowhere: no history holds it, and it is never ranked.

    Args:
        recommender: in evaluation mode.
        dataset: whose vocabulary and schema the program has.

    Raises: UserError: when no item keeps anything, or items share rows.
    """
    info = recommender.info
    unknown = torch.arange(info.num_embeddings) == 0
    forms = [form.without(unknown) for form in recommender.forms()]
    if not forms[0].num_kept():
        raise UserError("packing stored nothing: no item keeps a value")
    order = item_order(forms, info, dataset)
    rows = torch.from_numpy(order.ids) - item_begin(dataset)
    table, first_order = forms[0].pack(recommender.embedding, rows), None
    if recommender.first_order is not None:
        first_order = FirstOrderTable(recommender.first_order.table().cpu()[rows, 0])
    return PackedNextItem(table, first_order, recommender.model.compacted(), order).eval()


def make_endpoints(
    packed: PackedNextItem,
    *,
    top_k: int = TOP_K,
    max_batch: int = MAX_BATCH,
    names: Sequence[str] = ("rank", "recommend"),
) -> dict[str, Endpoint]:
    """``items``, and ``rank`` and ``recommend`` that read what it returns, of a packed recommender, quantized or not.

    Args:
        packed: the recommender.
        top_k: items that ``recommend`` returns.
        max_batch: the most items of ``rank`` at once.
        names: which of the two.
    """
    with torch.no_grad():
        example = packed.item_vectors()
    vectors, batch = tensor_entry(ITEM_VECTORS, "float32", list(example.shape)), len(example)
    history = packed.nobody()
    history[0, packed.model.last - 1] = 0
    context = tensor_entry("context_ids", "int64", ["1", history.shape[1]])
    result = {ITEMS: Endpoint(Items(packed), (), (), batch, {"inputs": [], "outputs": [vectors]})}
    if "rank" in names:
        signature = {
            "inputs": [context, tensor_entry("item_ids", "int64", ["items", 1]), vectors],
            "outputs": [tensor_entry("scores", "float32", ["items"])],
            "max_items": max_batch,
        }
        items = torch.zeros(2, 1, dtype=torch.int64)
        shapes: tuple[dict[int, object], ...] = ({}, {0: Dim("items", min=1, max=max_batch)}, {})
        result["rank"] = Endpoint(RankNext(packed), (history, items, example), shapes, max_batch, signature)
    if "recommend" in names:
        module = RecommendNext(packed, top_k)
        most = packed.num_rows + 1
        signature = {
            "inputs": [context, tensor_entry(EXCLUDED, "int64", ["1", "excluded"]), vectors],
            "outputs": [
                tensor_entry("scores", "float32", [module.top_k]),
                tensor_entry("item_index", "int64", [module.top_k]),
            ],
            "k": module.top_k,
            "max_excluded": most,
        }
        excluded = torch.full((1, 2), packed.num_rows)
        shapes = ({}, {1: Dim("excluded", min=1, max=most)}, {})
        result["recommend"] = Endpoint(module, (history, excluded, example), shapes, batch, signature)
    return result
