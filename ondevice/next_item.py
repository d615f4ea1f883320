"""What comes next: the items of a history through a sequence model to a score of every item."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ondevice.forms.table import EmbeddingTable, TableInfo
from ondevice.models.item_attributes import ItemAttributes
from ondevice.models.sequences import SEQUENCE_MODELS, SequenceModel
from ondevice.recommender import TableModel


class NextItemRecommender(TableModel):
    """A table of items, read for the history and for the items that are ranked, and a sequence model.

    score(i) = ⟨u, e_i⟩ + w_i with u = model(e of the history); the weights w are a table of dimension 1. Where items
    have attributes, e_i and w_i are an item's rows and those of its attributes, until `baked` makes one row of them.

    Args:
        embedding: the table of D-dimensional embeddings of one field, whose id 0 is the unknown item.
        first_order: the table of the items' biases w.
        model: of the history.
        attributes: of the items; None for none.

    ``kept`` says which items' own rows count, (1 + I,); None: all do.

    Shape: histories (B, L) int64, absent places the unknown id, before all others -> scores (B, I) of the items
        1 … I after the newest place.
    """

    first_order: EmbeddingTable

    def __init__(
        self,
        embedding: EmbeddingTable,
        first_order: EmbeddingTable,
        model: SequenceModel,
        attributes: ItemAttributes | None = None,
    ) -> None:
        super().__init__()
        assert embedding.info.num_fields == 1, "a table of items alone"
        self.embedding = embedding
        self.first_order = first_order
        self.model = model
        self.attributes = attributes
        self.kept: Tensor | None = None
        self.register_buffer("items", torch.arange(1, embedding.num_embeddings), persistent=False)

    items: Tensor

    @property
    def num_items(self) -> int:
        """Number of known items I."""
        return len(self.items)

    def present(self, histories: Tensor) -> Tensor:
        """Which places of histories hold an item."""
        return histories != 0

    def embed(self, items: Tensor) -> Tensor:
        """Embeddings (B, L, D) of items (B, L), 0 for none."""
        embeddings: Tensor = self.embedding(items)
        if self.kept is not None:
            embeddings = embeddings * self.kept[items].unsqueeze(-1)
        if self.attributes is not None:
            embeddings = embeddings + self.attributes(items)[..., :-1]
        return embeddings

    def biases(self, items: Tensor) -> Tensor:
        """Biases (B, L) of items (B, L)."""
        biases: Tensor = self.first_order(items)[..., 0]
        if self.kept is not None:
            biases = biases * self.kept[items]
        if self.attributes is not None:
            biases = biases + self.attributes(items)[..., -1]
        return biases

    def item_vectors(self) -> tuple[Tensor, Tensor]:
        """Embeddings (I, D) and biases (I,) of all known items."""
        ids = self.items.unsqueeze(0)
        return self.embed(ids)[0], self.biases(ids)[0]

    def user_vectors(self, histories: Tensor) -> Tensor:
        """The user's vectors (B, L, D) after each place."""
        result: Tensor = self.model(self.embed(histories), self.present(histories))
        return result

    def newest(self, histories: Tensor) -> Tensor:
        """The user's vectors (B, D) after the newest place."""
        return self.model.newest(self.embed(histories), self.present(histories))

    @torch.no_grad()
    def baked(self) -> NextItemRecommender:
        """An equal recommender without attributes: what they add is in its items' rows."""
        if self.attributes is None:
            return self
        tables = []
        for table, values in zip(self.tables(), self.item_vectors(), strict=True):
            made = EmbeddingTable(self.info, table.embedding_dim)
            made.weight.copy_(table.weight.cpu())
            made.weight[1:] = values.cpu().view(-1, table.embedding_dim)
            tables.append(made.to(values.device))
        return NextItemRecommender(tables[0], tables[1], self.model)

    def forward(self, histories: Tensor) -> Tensor:
        vectors, bias = self.item_vectors()
        return torch.addmm(bias, self.newest(histories), vectors.T)


def build(
    info: TableInfo,
    *,
    model: str,
    model_options: dict[str, Any],
    dim: int,
    init_std: float | None = None,
    attributes: ItemAttributes | None = None,
) -> NextItemRecommender:
    """A recommender with fresh weights.

    Args:
        info: of the items: one field.
        model: name of the sequence model, with its options.
        dim: dimension of the embeddings.
        init_std: as in `EmbeddingTable`.
        attributes: of the items.
    """
    SEQUENCE_MODELS.check_options(model, model_options, "model")
    embedding, bias = EmbeddingTable(info, dim, init_std=init_std), EmbeddingTable(info, 1)
    nn.init.zeros_(bias.weight)
    return NextItemRecommender(embedding, bias, SEQUENCE_MODELS[model](dim, **model_options), attributes)
