"""What is known of an item beside its number: rows of its attributes, added to its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ondevice.data.dataset import Dataset
from ondevice.data.schema import Field, Schema
from ondevice.data.slots import POWERS

INIT_STD = 0.02
PULL = 10.0
"""Items of mean count, whose rows are zero, that each value has beside its own where `ItemAttributes.fit` fits it."""
EXACT = 1e-6  # of what is to be solved for, below which nothing is left to solve
MOST_STEPS = 500


def attribute_fields(schema: Schema) -> list[int]:
    """The fields of an item beside the one that names it."""
    return [f for f in schema.item_fields if schema.names[f] != schema.item_key]


class ItemAttributes(nn.Module):
    """Σ_f Σ_a s_a·A_a over the values a that an item has in each attribute f; A has D dimensions and a bias.

    A share s_a is one over the number of an item's values in the field, over its root, or 1, as the field's pooling
    says. Values that training does not know count nothing.

    Args:
        fields: of the attributes, and ``keys``, the known values of each.
        ids: rows of the values of each item, 0 where there is none; ``shares``, what each counts.
        dim: dimension D.

    Shape: ids and shares (1 + I, S); items, any shape, 0 for none, -> (…, D + 1).
    """

    ids: Tensor
    shares: Tensor

    def __init__(
        self, fields: list[Field], keys: list[list[int | str]], ids: Tensor, shares: Tensor, dim: int
    ) -> None:
        super().__init__()
        self.fields, self.keys = fields, keys
        self.register_buffer("ids", ids, persistent=False)
        self.register_buffer("shares", shares, persistent=False)
        initial = torch.randn(1 + sum(map(len, keys)), dim + 1) * INIT_STD
        initial[0], initial[:, -1] = 0.0, 0.0
        self.weight = nn.Parameter(initial)

    @classmethod
    def of(cls, dataset: Dataset, dim: int) -> ItemAttributes | None:
        """Those of a data set's items; None where it has no attributes."""
        schema, catalog, vocabulary = dataset.schema, dataset.catalog, dataset.vocabulary
        fields = attribute_fields(schema)
        if catalog is None or not fields:
            return None
        offsets = vocabulary.field_offsets
        item = schema.names.index(str(schema.item_key))
        places = {column: at for at, column in enumerate(schema.item_columns)}

        def local(field: int) -> np.ndarray:
            columns = [places[column] for column in schema.slots.of([field])]
            ids: np.ndarray = catalog.ids[:, columns].astype(np.int64) - int(offsets[field])
            return ids

        numbers, begin, ids, shares = local(item)[:, 0], 0, [], []
        for field in fields:
            values = local(field)
            present = values > 0
            counts = np.maximum(present.sum(1, keepdims=True), 1)
            share = counts.astype(np.float32) ** -POWERS[schema.fields[field].pooling]
            ids.append(np.where(present, values + begin, 0))
            shares.append(present * share)
            begin += len(vocabulary.keys[field])
        known = numbers > 0
        table = np.zeros((int(offsets[item + 1] - offsets[item]), sum(each.shape[1] for each in ids)))
        of_items, parts = table.astype(np.int64), table.astype(np.float32)
        of_items[numbers[known]] = np.concatenate(ids, 1)[known]
        parts[numbers[known]] = np.concatenate(shares, 1)[known]
        described = [vocabulary.fields[field] for field in fields]
        keys = [[k.item() if hasattr(k, "item") else k for k in vocabulary.keys[field]] for field in fields]
        return cls(described, keys, torch.from_numpy(of_items), torch.from_numpy(parts), dim)

    @property
    def described(self) -> list[dict[str, Any]]:
        """Each field as in a schema, with its ``keys``."""
        return [{**field.to_dict(), "keys": keys} for field, keys in zip(self.fields, self.keys, strict=True)]

    @torch.no_grad()
    def fit(self, items: Tensor, vectors: Tensor, counts: Tensor) -> None:
        """Give the values the rows that come nearest to finished vectors of items: a ridge regression.

        Σ_i n_i·‖v_i − Σ_a s_a·A_a‖² + `PULL`·n̄·Σ_a ‖A_a‖² is least, n̄ the mean of the counts n. So a new item begins
        where items of its attributes that people take are, and a value of few items says little.

        Args:
            items: whose vectors they are.
            vectors: each with its bias at the end.
            counts: how often training saw each; not all zero.

        Shape: items (n,) int64, vectors (n, D + 1), counts (n,).
        """
        ids, shares = self.ids[items], self.shares[items].double()
        weights = (counts.double() / counts.double().mean())[:, None]

        def added(rows: Tensor) -> Tensor:
            return F.embedding_bag(ids, rows, mode="sum", per_sample_weights=shares)

        def collected(of_items: Tensor) -> Tensor:
            result = of_items.new_zeros(len(self.weight), of_items.shape[1])
            for column, share in zip(ids.T, shares.T, strict=True):
                result.index_add_(0, column, share[:, None] * of_items)
            return result

        def times(rows: Tensor) -> Tensor:
            return collected(weights * added(rows)) + PULL * rows

        right = collected(weights * vectors.double())
        self.weight.copy_(_solved(times, right))

    def forward(self, items: Tensor) -> Tensor:
        flat = items.reshape(-1)
        ids, shares = self.ids[flat], self.shares[flat]
        sums = F.embedding_bag(ids, self.weight, mode="sum", per_sample_weights=shares, padding_idx=0)
        return sums.view(*items.shape, -1)


def _solved(times: Callable[[Tensor], Tensor], right: Tensor) -> Tensor:
    """X of A·X = B by conjugate gradients, each column on its own (Hestenes and Stiefel 1952).

    Args:
        times: product with A, symmetric and positive definite.
        right: B.
    """
    solution, left = torch.zeros_like(right), right
    direction, lengths = left, left.square().sum(0)
    enough = EXACT**2 * lengths
    for _ in range(MOST_STEPS):
        if bool((lengths <= enough).all()):
            break
        product = times(direction)
        step = lengths / torch.linalg.vecdot(direction, product, dim=0).clamp(min=1e-300)
        solution, left = solution + step * direction, left - step * product
        before, lengths = lengths, left.square().sum(0)
        direction = left + direction * (lengths / before.clamp(min=1e-300))
    return solution
