"""The whole model: ids through tables of embeddings and a base model to logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ondevice.forms.base import CompactTable, Form
from ondevice.forms.pooling import Pooling
from ondevice.forms.sizes import full_sizes
from ondevice.forms.table import EmbeddingTable, TableInfo
from ondevice.models import BaseModel
from ondevice.models.base import History, InputLayer, make_model


class TableModel(nn.Module):
    """A model over a table of embeddings and, where it has one, a table of first-order weights."""

    embedding: EmbeddingTable
    first_order: EmbeddingTable | None

    @property
    def info(self) -> TableInfo:
        return self.embedding.info

    def tables(self) -> list[EmbeddingTable]:
        """The embedding table, and the first-order one where there is one."""
        return [self.embedding] if self.first_order is None else [self.embedding, self.first_order]

    def forms(self) -> list[Form]:
        """What each table keeps; everything where it was never under a form."""
        return [
            table.form if isinstance(table, CompactTable) else full_sizes(table) for table in self.tables()
        ]

    def rotate(self, rotation: Tensor) -> bool:
        """Read embeddings e·R as e was read; the table is the caller's to rotate. False where axes mean something."""
        return False

    def num_kept(self) -> int:
        """Number of embedding and first-order values in effect."""
        return sum(table.num_kept() for table in self.tables())

    def num_values(self) -> int:
        """Number of embedding and first-order values of the full tables."""
        return sum(table.weight.numel() for table in self.tables())


class Recommender(TableModel):
    """Embeddings, first-order weights and a base model.

    logit = bias + Σ_f w[id_f] + model(e[id_1], …, e[id_F]). A field of several ids has their embeddings pooled, and
    their weights (`Pooling`). A compact model may have no weights w, or have
    w[id_f] = ⟨e[id_f], p_f⟩ with a vector p_f per field, which costs no byte per id (the field-wise linear
    weights of FwFM, arXiv 1806.03514, section 3.3).

    Args:
        embedding: the table of D-dimensional embeddings.
        first_order: the table of first-order weights (dimension 1); None when the model uses none.
        model: the base model.
        id_map: id read in place of each id; None for the identity. Ids that keep nothing in either table
            read their field's unknown id, so that what is trained is what a vocabulary without them ships.
        projected: whether w is a projection of the embeddings; ``first_order`` must then be None.

    Shape: ids (B, S) int64, a column for each slot -> logits (B,).
    """

    id_map: Tensor
    unknown: Tensor

    def __init__(
        self,
        embedding: EmbeddingTable,
        first_order: EmbeddingTable | None,
        model: BaseModel,
        id_map: Tensor | None = None,
        projected: bool = False,
    ) -> None:
        super().__init__()
        assert not (projected and first_order is not None), "first-order weights twice"
        self.embedding = embedding
        self.first_order = first_order
        self.model = model
        self.bias = nn.Parameter(torch.zeros(1))
        self.projection: nn.Parameter | None = None
        if projected:
            self.projection = nn.Parameter(torch.zeros(model.num_fields, model.embedding_dim))
        self.is_mapped = id_map is not None
        identity = torch.arange(embedding.num_embeddings)
        self.register_buffer("id_map", identity if id_map is None else id_map)
        self.whole_map: Tensor | None = None
        slots, unknown = embedding.info.slots, embedding.info.field_offsets
        self.register_buffer("unknown", unknown[slots.owners], persistent=False)
        self.places: list[list[int]] = []  # columns of each history that the model reads by itself
        self.others: list[int] | None = None  # those of the other fields
        if model.reads_histories and slots.has_history:
            assert first_order is None, "a model of histories has no first-order weights"
            others, histories = slots.apart()
            self.others, self.places = list(others), [list(columns) for columns in histories]
            slots = slots.part(others)
        self.pooling = None if slots.is_plain else Pooling(slots)
        self._mapped: tuple[Tensor, tuple[int, int], Tensor] | None = None

    def mapped(self, ids: Tensor) -> Tensor:
        """The ids that are read in place of ``ids``; the same tensor again for the same batch."""
        if not self.is_mapped:
            return ids
        id_map = self.id_map if self.whole_map is None else self.whole_map
        versions = (ids._version, id_map._version)
        if self._mapped is None or self._mapped[0] is not ids or self._mapped[1] != versions:
            self._mapped = (ids, versions, id_map[ids].long())
        return self._mapped[2]

    def map_ids(self, id_map: Tensor) -> None:
        """From now on look up the rows of the ids ``id_map`` (N,) in place of each id's."""
        self.is_mapped = True
        self.id_map = id_map
        self._mapped = None

    def take_vocabulary(self, kept: Tensor) -> None:
        """From now on take ids of a larger vocabulary.

        Args:
            kept: for each of its ids, the id here, of any integer type.
        """
        self.is_mapped = True
        self.whole_map = self.id_map.to(torch.int32)[kept.to(self.id_map.device)]

    def read(self, ids: Tensor) -> Tensor:
        """Embeddings (B, S, D) of ids (B, S), one for each slot."""
        result: Tensor = self.embedding(self.mapped(ids))
        return result

    def pooled(self, values: Tensor, ids: Tensor) -> Tensor:
        """What each field has (B, F, …) of what its slots read (B, S, …).

        Where the model reads histories, of the other fields alone, and then the places of each history, zero where
        absent.
        """
        if self.others is None:
            return self._of_fields(values, self.mapped(ids), self.id_map[self.unknown])
        read, unknown = self.mapped(ids), self.id_map[self.unknown]
        parts = [self._of_fields(values[:, self.others], read[:, self.others], unknown[self.others])]
        parts += [values[:, columns] * self._present(ids, columns).unsqueeze(2) for columns in self.places]
        return torch.cat(parts, 1)

    def _of_fields(self, values: Tensor, read: Tensor, unknown: Tensor) -> Tensor:
        """What each field has of some slots, which read the ids ``read`` and where absent ``unknown``."""
        if self.pooling is None:
            return values
        result: Tensor = self.pooling(values, self.pooling.matrix(read, self.pooling.absent(unknown)))
        return result

    def _present(self, ids: Tensor, columns: list[int]) -> Tensor:
        """Which places of a history hold something, (B, L) float32."""
        unknown = self.id_map[self.unknown[columns]]
        return (self.mapped(ids)[:, columns] != unknown).to(torch.float32)

    def embed(self, ids: Tensor) -> Tensor:
        """`pooled` of what ids (B, S) read, for a penalty on what was looked up."""
        return self.pooled(self.read(ids), ids)

    def logits_of(self, embeddings: Tensor, ids: Tensor) -> Tensor:
        """Logits (B,) from what `pooled` gave."""
        if self.others is not None:
            return self._logits_of_histories(embeddings, ids)
        logits: Tensor = self.model(embeddings) + self.bias
        if self.first_order is not None:
            logits = logits + self.pooled(self.first_order(self.mapped(ids)), ids).sum((1, 2))
        if self.projection is not None:
            logits = logits + embeddings.flatten(1) @ self.projection.flatten()
        return logits

    def _logits_of_histories(self, embeddings: Tensor, ids: Tensor) -> Tensor:
        lengths = [len(columns) for columns in self.places]
        fields, *values = embeddings.split([embeddings.shape[1] - sum(lengths), *lengths], 1)
        present = (self._present(ids, columns) for columns in self.places)
        histories = [History(*each) for each in zip(values, present, strict=True)]
        result: Tensor = self.model(fields, histories) + self.bias
        return result

    @torch.no_grad()
    def rotate(self, rotation: Tensor) -> bool:
        """Read embeddings e·R as e was read, as `BaseModel.rotate`; the table is the caller's to rotate."""
        if not self.model.rotate(rotation):
            return False
        if self.projection is not None:
            self.projection.copy_(self.projection @ rotation)
        return True

    def forward(self, ids: Tensor) -> Tensor:
        return self.logits_of(self.embed(ids), ids)


def pruned_id_map(info: TableInfo, forms: Sequence[Form]) -> Tensor:
    """The id each id reads: the one it shares a row with, or its field's unknown id where that keeps nothing."""
    empty = torch.stack([form.row_sizes() == 0 for form in forms]).all(0)
    read = forms[0].read()
    return torch.where(empty[read], info.unknown_of(), read)


def rebuild(
    info: TableInfo,
    *,
    model: str,
    model_options: dict[str, Any],
    forms: list[Form],
    initial: Recommender | None = None,
    init_std: float | None = None,
    projected: bool = False,
) -> Recommender:
    """A recommender for the second phase: tables under ``forms``, the model as narrow as they are.

    Args:
        forms: the form of the embedding table, then of the first-order one if the model uses it.
        initial: where initial weights are taken from (lottery ticket); columns of a first linear layer that
            only meet dropped dimensions are dropped with them. None to draw new ones.
        init_std: as in `EmbeddingTable`.
        projected: as in `Recommender`.
    """
    source = initial.tables()[: len(forms)] if initial is not None else [None] * len(forms)
    tables: list[CompactTable] = []
    for form, table in zip(forms, source, strict=True):
        values = None if table is None else table.weight.detach()
        tables.append(form.table(info, initial=values, init_std=init_std))
    base = make_model(model, info.slots, tables[0].embedding_dim, model_options)
    first_order = tables[1] if len(tables) > 1 else None
    id_map = pruned_id_map(info, forms)
    recommender = Recommender(tables[0], first_order, base, id_map=id_map, projected=projected)
    if initial is not None:
        _copy_fitting(initial, recommender)
    _clear_unseen(recommender, forms[0])
    return recommender


def cut(
    recommender: Recommender, forms: list[Form], *, model: str, model_options: dict[str, Any]
) -> Recommender:
    """The recommender that keeps only a part of each table, at the width of that part.

    Nothing is trained: its scores in evaluation are those of the whole with the other values taken as zero, and with
    ids that keep nothing read as their field's unknown id.

    Args:
        recommender: with tables under forms, codes final.
        forms: one for each of its tables, every size at most that of the table.
        model: name of the base model, with its options.
    """
    tables = recommender.tables()
    assert len(forms) == len(tables), "a form for each table"
    smaller = rebuild(
        recommender.info,
        model=model,
        model_options=model_options,
        forms=forms,
        initial=recommender,
        projected=recommender.projection is not None,
    )
    for table, part in zip(tables, smaller.tables(), strict=True):
        assert isinstance(part, CompactTable)
        part.take_part(table)
    return smaller.to(recommender.bias.device).eval()


def _copy_fitting(source: Recommender, target: Recommender) -> None:
    """Copy the base model's weights, narrowing the layers that read embeddings.

    Layers that the target has otherwise (`compact.model`) keep the weights they were drawn with.
    """
    wide, narrow = source.model.embedding_dim, target.model.embedding_dim
    given = source.model.state_dict()
    for name, layer in _named_inputs(source.model).items() if narrow < wide else ():
        given |= {f"{name}.{part}": value for part, value in layer.narrowed(wide, narrow).items()}
    with torch.no_grad():
        for name, value in target.model.state_dict().items():
            other = given.get(name)
            if other is not None and other.shape == value.shape:
                value.copy_(other)
        target.bias.copy_(source.bias)
        if source.projection is not None and target.projection is not None:
            target.projection.copy_(source.projection[:, :narrow])


def _named_inputs(model: BaseModel) -> dict[str, InputLayer]:
    """The layers that read embeddings by their names in the model."""
    layers = {id(layer.linear): layer for layer in model.input_layers()}
    return {name: layers[id(module)] for name, module in model.named_modules() if id(module) in layers}


def _clear_unseen(recommender: Recommender, form: Form) -> None:
    """Zero the weights of input layers that only ever meet zeros: they are not to widen its range.

    A layer that reads each field by itself meets the dimensions of all of them.
    """
    model, info = recommender.model, recommender.info
    largest = torch.zeros(model.num_fields, dtype=torch.int64)
    places = torch.arange(1, model.embedding_dim + 1)
    kept = form.mask()[:, : model.embedding_dim].cpu().long().mul(places).amax(1)
    largest.scatter_reduce_(0, info.field_of(), kept, "amax")
    largest = largest[list(info.slots.sources)]  # a history meets what the field that it is of has
    unseen = torch.arange(model.embedding_dim) >= largest[:, None]  # (F, D)
    with torch.no_grad():
        for layer in model.input_layers():
            if layer.is_reading and layer.fields is not None and layer.linear.out_features > 1:
                layer.linear.weight[:, unseen[list(layer.fields)].flatten()] = 0.0
