"""Recommenders whose tables are searched, or free: made from names in the registries."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ondevice.forms.table import TableInfo
from ondevice.methods import METHODS, Method
from ondevice.models import MODELS
from ondevice.models.base import make_model
from ondevice.recommender import Recommender


def build(
    info: TableInfo,
    *,
    model: str,
    model_options: dict[str, Any],
    method: str,
    method_options: dict[str, Any],
    embedding_dim: int,
    first_order_method: str | None = None,
    id_map: Tensor | None = None,
) -> Recommender:
    """A recommender with fresh weights, from names in the registries.

    Args:
        info: field offsets and training counts.
        model: name of the base model, with its options.
        method: name of the embedding method, with its options.
        embedding_dim: dimension D of the table.
        first_order_method: method of the first-order weights; None for the same as the embeddings.
        id_map: as in `Recommender`.
    """
    MODELS.check_options(model, model_options, "model")
    METHODS.check_options(method, method_options, "method")
    base = make_model(model, info.slots, embedding_dim, model_options)
    embedding = METHODS[method](info, embedding_dim, **method_options)
    first_order: Method | None = None
    if base.uses_first_order:
        name = first_order_method or method
        first_order = METHODS[name](info, 1, **(method_options if name == method else {}))
    return Recommender(embedding, first_order, base, id_map=id_map)
