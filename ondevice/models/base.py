"""The contract of a base model: it sees embeddings, never ids."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ondevice.data.slots import Slots
from ondevice.registry import Registry

MODELS: Registry[type[BaseModel]] = Registry("model")


@dataclass(frozen=True)
class InputLayer:
    """A linear layer that reads embeddings.

    Args:
        linear: the layer.
        fields: the fields whose embeddings are its input, one after the other; None where it reads each field's by
            itself.
        is_reading: whether embeddings are its input.
        is_writing: whether its output has the shape of its input, so that it narrows alike (a cross layer).
    """

    linear: nn.Linear
    fields: tuple[int, ...] | None
    is_reading: bool = True
    is_writing: bool = False

    def narrowed(self, dim: int, narrow: int) -> dict[str, Tensor]:
        """Its parameters without what belongs to dimensions beyond the first ``narrow`` of each embedding's ``dim``."""
        state: dict[str, Tensor] = dict(self.linear.named_parameters())
        if self.is_reading:
            state["weight"] = state["weight"].unflatten(1, (-1, dim))[..., :narrow].flatten(1)
        if self.is_writing:
            state = {
                name: value.unflatten(0, (-1, dim))[:, :narrow].flatten(0, 1) for name, value in state.items()
            }
        return state


@dataclass(frozen=True)
class History:
    """What a history holds in each row, the newest last.

    Args:
        values: embeddings (B, L, D), zero where there is none.
        present: (B, L) float32, 1 where there is one and 0 where not.
    """

    values: Tensor
    present: Tensor


class BaseModel(nn.Module):
    """Maps the embeddings of one interaction to a logit.

    A model that reads histories place by place (``reads_histories``) takes the slots of the data as a third argument of
    its constructor, None where no field is a history; its ``forward`` takes the embeddings of the other fields, in
    their order, and a `History` for each that is one. Other models see a history as a field, pooled like any of several
    values.

    ``uses_first_order`` says whether the recommender adds the sum of first-order weights to the logit.
    ``graph_bytes``, of the model and of each module in it, is what its operators take of a program beside its linear
    layers, an interaction of second order included: budgets in bytes count it (`ondevice.bundle.estimate`).

    Args:
        num_fields: number of fields F.
        embedding_dim: dimension D of each embedding.

    Shape: embeddings (B, F, D) -> logits (B,).
    """

    uses_first_order: ClassVar[bool] = True
    can_rotate: ClassVar[bool] = False
    """Whether embeddings in another orthogonal basis give the same logits, once the input layers have been rotated."""
    reads_histories: ClassVar[bool] = False
    linear_bits: int = 8
    """Bits a weight that linear layers with more than one output ship with: 8 or 4."""
    graph_bytes: ClassVar[int] = 0

    def __init__(self, num_fields: int, embedding_dim: int) -> None:
        super().__init__()
        self.num_fields = num_fields
        self.embedding_dim = embedding_dim

    def forward(self, embeddings: Tensor) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def input_layers(self) -> list[InputLayer]:
        """The linear layers that read embeddings: they narrow, and rotate, with the table. Others never do."""
        return []

    @torch.no_grad()
    def rotate(self, rotation: Tensor) -> bool:
        """Change the weights so that embeddings e·R give what e gave; False, and no change, where they cannot.

        Shape: rotation R (D, D), orthogonal.
        """
        if self.can_rotate:
            for layer in self.input_layers():
                weight = layer.linear.weight
                weight.copy_((weight.unflatten(1, (-1, len(rotation))) @ rotation).flatten(1))
        return self.can_rotate

    def compacted(self, field_dims: list[int]) -> BaseModel:
        """An equal model without the weights that only meet zeros, for evaluation.

        Args:
            field_dims: largest kept dimension of each field; embeddings are zero from there on.

        Returns: a model for embeddings of the same shape (B, F, D); by default this one.
        """
        return self


def make_model(name: str, slots: Slots, embedding_dim: int, options: Mapping[str, Any]) -> BaseModel:
    """The base model of a name, with fresh weights.

    Args:
        slots: the columns of the rows.
        options: keyword-only arguments of its constructor.

    Raises: ValueError: when it does not take them.
    """
    kind = MODELS[name]
    further = (slots,) if kind.reads_histories else ()
    return kind(len(slots.widths), embedding_dim, *further, **options)
