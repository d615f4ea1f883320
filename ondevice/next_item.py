"""What comes next: the items of a history through a sequence model to a score of every item."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ondevice.forms.base import CompactTable, Form
from ondevice.forms.table import EmbeddingTable, TableInfo
from ondevice.models.item_attributes import ItemAttributes
from ondevice.models.sequences import SEQUENCE_MODELS, SequenceModel
from ondevice.models.sequences.places import gaps_of, items_of
from ondevice.recommender import TableModel


class NextItemRecommender(TableModel):
    """A table of items, read for the history and for the items that are ranked, and a sequence model.

    score(i) = ⟨u, e_i⟩ + w_i with u = model(e of the history); the weights w are a table of dimension 1. Where items
    have attributes, e_i and w_i are an item's rows and those of its attributes, until `baked` makes one row of them. A
    compact model may have no weights w: what the last layer of its sequence model adds to every u is a bias, too.

    Args:
        embedding: the table of D-dimensional embeddings of one field, whose id 0 is the unknown item.
        first_order: the table of the items' biases w; None for no biases.
        model: of the history.
        attributes: of the items; None for none.

    ``kept`` says which items' own rows count, (1 + I,); None: all do.

    Shape: histories (B, L) int64 of items with the buckets of their gaps (`ondevice.models.sequences.places`), absent
        places 0, before all others -> scores (B, I) of the items 1 … I after the newest place.
    """

    def __init__(
        self,
        embedding: EmbeddingTable,
        first_order: EmbeddingTable | None,
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
        self.register_buffer("ids", torch.arange(embedding.num_embeddings)[None], persistent=False)

    items: Tensor
    ids: Tensor

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
        if self.first_order is None:
            return torch.zeros(items.shape, device=items.device)
        biases: Tensor = self.first_order(items)[..., 0]
        if self.kept is not None:
            biases = biases * self.kept[items]
        if self.attributes is not None:
            biases = biases + self.attributes(items)[..., -1]
        return biases

    def item_vectors(self) -> tuple[Tensor, Tensor]:
        """Embeddings (I, D) and biases (I,) of all known items."""
        return self.rows()[1:], self.biases(self.items.unsqueeze(0))[0]

    def rows(self) -> Tensor:
        """Embeddings (1 + I, D) of all ids, the unknown one first."""
        return self.embed(self.ids)[0]

    def user_vectors(self, histories: Tensor) -> Tensor:
        """The user's vectors (B, L, D) after each place."""
        embeddings = self.embed(items_of(histories))
        result: Tensor = self.model(embeddings, self.present(histories), gaps_of(histories))
        return result

    def newest(self, histories: Tensor) -> Tensor:
        """The user's vectors (B, D) after the newest place."""
        embeddings = self.embed(items_of(histories))
        return self.model.newest(embeddings, self.present(histories), gaps_of(histories))

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


def rebuild(
    info: TableInfo,
    forms: Sequence[Form],
    *,
    model: str,
    model_options: dict[str, Any],
    initial: NextItemRecommender | None = None,
    init_std: float | None = None,
) -> NextItemRecommender:
    """A compact recommender: tables under ``forms``, the sequence model as narrow as they are.

    Args:
        info: of the items.
        forms: of the embeddings, then of the biases where there are any.
        model: name of the sequence model, with its options.
        initial: of the same sequence model, whose weights it begins with, the leading ones where it is narrower; None
            to draw new ones.
        init_std: as in `EmbeddingTable`.
    """
    given: list[EmbeddingTable | None] = [*initial.tables()] if initial is not None else []
    given += [None] * (len(forms) - len(given))
    tables: list[CompactTable] = []
    for form, table in zip(forms, given, strict=False):
        values = None if table is None else table.weight.detach()
        tables.append(form.table(info, initial=values, init_std=init_std))
    made = NextItemRecommender(
        tables[0],
        tables[1] if len(tables) > 1 else None,
        SEQUENCE_MODELS[model](tables[0].embedding_dim, **model_options),
    )
    if made.first_order is not None and given[1] is None:
        nn.init.zeros_(made.first_order.weight)
    if initial is not None:
        weights = initial.model.state_dict()
        with torch.no_grad():
            for name, value in made.model.state_dict().items():
                given_one = weights.get(name)
                if given_one is not None and all(
                    few <= many for few, many in zip(value.shape, given_one.shape, strict=True)
                ):
                    value.copy_(given_one[tuple(slice(size) for size in value.shape)])
            if made.first_order is None and initial.first_order is not None:
                fold_biases(made, initial.biases(initial.items[None])[0])
    return made


@torch.no_grad()
def fold_biases(recommender: NextItemRecommender, biases: Tensor) -> None:
    """Give a recommender without biases of items what its sequence model can say of given ones.

    v is added to every user's vector, which Σ_i c_i·(⟨v, e_i⟩ − w_i)² is least for, c_i how often item i occurs.

    Shape: biases w (I,).
    """
    wanted, items = biases.cpu(), recommender.rows()[1:].cpu()  # the solver is a CPU's
    weight = recommender.info.counts[1:].to(wanted).sqrt()[:, None]
    shift = torch.linalg.lstsq(items * weight, wanted[:, None] * weight, driver="gelsd").solution[:, 0]
    for added in (recommender.model.last_bias(), recommender.model.nobody):
        added.add_(shift.to(added.device))
