"""GEM (arXiv 2002.06561): embeddings smoothed over a graph of what occurs together, stored as one table."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ondevice.forms.base import Form
from ondevice.forms.rows import lookup
from ondevice.forms.sizes import Sizes
from ondevice.forms.table import TableInfo
from ondevice.methods.base import METHODS
from ondevice.methods.context import SearchContext
from ondevice.methods.sizes.magnitude import Magnitude


class Graph:
    """Which ids occur together in training, as edges with weights.

    Â = D^−½·A·D^−½, where A counts the samples that two ids share, A_ii those that have i, and D its row sums.

    Args:
        ends: the two ids of each edge, in both directions, none to itself.
        counts: samples that the two share.
        id_counts: samples that have each id.

    Shape: ends (2, E) int64, counts (E,), id_counts (N,).
    """

    def __init__(self, ends: Tensor, counts: Tensor, id_counts: Tensor) -> None:
        loops = torch.arange(len(id_counts))
        loop_counts = id_counts.double().clamp(min=1)  # an id that never occurs keeps what it has
        weights = torch.cat([counts.double(), loop_counts])
        both = torch.cat([ends, loops.expand(2, -1)], 1)
        degrees = torch.zeros(len(id_counts), dtype=torch.float64).index_add_(0, both[0], weights)
        weights = weights / (degrees[both[0]] * degrees[both[1]]).sqrt()
        shape = (len(id_counts),) * 2
        self.matrix = torch.sparse_coo_tensor(both, weights.float(), shape, check_invariants=True).coalesce()

    @classmethod
    def of(cls, batches: Iterable[Tensor], info: TableInfo, num_neighbours: int) -> Graph:
        """The graph of training rows: of each id the ``num_neighbours`` that share most samples with it.

        Unknown values have no edge.

        Args:
            batches: ids (B, S) of all training rows, some at a time.
        """
        num_ids, unknown = info.num_embeddings, info.field_offsets[:-1]
        keys, counts = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
        for ids in batches:
            known = ~torch.isin(ids, unknown)
            pairs = []
            for one, other in torch.combinations(torch.arange(ids.shape[1])).tolist():
                both = known[:, one] & known[:, other] & (ids[:, one] != ids[:, other])
                pairs.append((ids[both, one] * num_ids + ids[both, other]).numpy())
            new, new_counts = np.unique(np.concatenate(pairs), return_counts=True)
            keys, places = np.unique(np.concatenate([keys, new]), return_inverse=True)
            counts = np.bincount(places, np.concatenate([counts, new_counts]), len(keys)).astype(np.int64)
        one, other = keys // num_ids, keys % num_ids
        ends, both_counts = np.concatenate([[one, other], [other, one]], 1), np.tile(counts, 2)
        order = np.lexsort((ends[1], -both_counts, ends[0]))
        ends, both_counts = ends[:, order], both_counts[order]
        first = np.searchsorted(ends[0], ends[0])
        nearest = np.arange(len(order)) - first < num_neighbours
        chosen = np.unique(np.sort(ends[:, nearest], 0)[0] * num_ids + np.sort(ends[:, nearest], 0)[1])
        kept = np.isin(np.minimum(*ends) * num_ids + np.maximum(*ends), chosen)  # an edge goes both ways
        return cls(torch.from_numpy(ends[:, kept]), torch.from_numpy(both_counts[kept]), info.counts)


class Propagation(nn.Module):
    """H⁰ = E, H^{l+1} = ReLU(Â·H^l·W^l): a graph convolution over all ids (section 3.2).

    Args:
        graph: of the ids.
        dim: dimension D.
        num_layers: layers L; each W begins as the identity.
        relu: whether each layer ends in a ReLU.

    Shape: E (N, D) -> (N, D).
    """

    def __init__(self, graph: Graph, dim: int, num_layers: int, relu: bool) -> None:
        super().__init__()
        self.matrix, self.relu = graph.matrix, relu
        self.weights = nn.ParameterList(torch.eye(dim) for _ in range(num_layers))

    def forward(self, values: Tensor) -> Tensor:
        self.matrix = self.matrix.to(values.device)
        for weight in self.weights:
            values = torch.sparse.mm(self.matrix, values @ weight)
            if self.relu:
                values = torch.relu(values)
        return values


@METHODS.register("gem")
class GEM(Magnitude):
    """Embeddings smoothed over a graph of what occurs together, baked into a table, of which the largest values stay.

    A model is trained whose embeddings are graph convolutions g(E), with `compact.train` for `compact.sizes.epochs`;
    with ``model.name=fm`` it is that of the paper, ŷ = w₀ + Σ w_i + Σ ⟨g(x_i), g(x_j)⟩. Then g(E) is worked out once
    and is the table from there on: compact models begin with it, and a program reads rows as any other. Departure: the
    graph has the nearest neighbours of each id alone.

    Args:
        num_layers: convolutions, one after the other.
        num_neighbours: of each id, those that share the most samples with it.
        relu: whether a convolution ends in a ReLU.
    """

    search_keys = ("epochs",)

    def __init__(
        self,
        info: TableInfo,
        embedding_dim: int,
        *,
        init_std: float | None = None,
        num_layers: int = 1,
        num_neighbours: int = 20,
        relu: bool = True,
    ) -> None:
        super().__init__(info, embedding_dim, init_std=init_std)
        if num_layers < 1 or num_neighbours < 1:
            raise ValueError(
                f"num_layers and num_neighbours must be at least 1, got {num_layers} and {num_neighbours}"
            )
        self.num_layers, self.num_neighbours, self.relu = num_layers, num_neighbours, relu
        self.propagation: Propagation | None = None

    def forward(self, ids: Tensor) -> Tensor:
        if self.propagation is None:
            return super().forward(ids)
        return lookup(self.propagation(self.weight), ids)

    def table(self) -> Tensor:
        if self.propagation is None:
            return super().table()
        with torch.no_grad():
            values: Tensor = self.propagation(self.weight)
        return values

    def convolve(self, graph: Graph) -> None:
        """From now on read g(E)."""
        made = Propagation(graph, self.embedding_dim, self.num_layers, self.relu)
        self.propagation = made.to(self.weight.device)

    def bake(self) -> None:
        """Make g(E) the table, and forget g."""
        with torch.no_grad():
            self.weight.copy_(self.table())
        self.propagation = None

    def prepare(self, context: SearchContext[Any]) -> list[dict[str, float]]:
        """Train a model with convolved embeddings, bake them, and let compact models begin with it."""
        compact, model = context.config.compact, context.recommender
        batches = context.train_batches(compact.train.batch_size)
        rows = (model.mapped(ids).cpu() for ids, _ in batches.in_order())
        self.convolve(Graph.of(rows, self.info, self.num_neighbours))
        history = context.train(model, dataclasses.replace(compact.train, epochs=compact.sizes.epochs))
        self.bake()
        seen = self.info.counts > 0
        forms: list[Form] = [Sizes(seen.long() * self.embedding_dim, self.embedding_dim)]
        if len(model.tables()) > 1 and compact.store.first_order == "rows":
            forms.append(Sizes(seen.long(), 1))
        context.begin_retraining_with(context.compact_model(forms, model), False)
        return history
