"""The contract of a base model: it sees embeddings, never ids."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from ondevice.registry import Registry

MODELS: Registry[type[BaseModel]] = Registry("model")


class BaseModel(nn.Module):
    """Maps the embeddings of one interaction to a logit.

    ``uses_first_order`` says whether the recommender adds the sum of first-order weights to the logit.
    ``graph_bytes``, of the model and of each module in it, is what its operators take of a program beside its linear
    layers, an interaction of second order included: budgets in bytes count it (`ondevice.bundle.estimate`).

    Args:
        num_fields: number of fields F.
        embedding_dim: dimension D of each embedding.

    Shape: embeddings (B, F, D) -> logits (B,).
    """

    uses_first_order: ClassVar[bool] = True
    linear_bits: int = 8
    """Bits a weight that linear layers with more than one output ship with: 8 or 4."""
    graph_bytes: ClassVar[int] = 0

    def __init__(self, num_fields: int, embedding_dim: int) -> None:
        super().__init__()
        self.num_fields = num_fields
        self.embedding_dim = embedding_dim

    def forward(self, embeddings: Tensor) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def rotate(self, rotation: Tensor) -> bool:
        """Change the weights so that embeddings e·R give what e gave; False, and no change, where that cannot be done.

        Shape: rotation R (D, D), orthogonal.
        """
        return False

    def compacted(self, field_dims: list[int]) -> BaseModel:
        """An equal model without the weights that only meet zeros, for evaluation.

        Args:
            field_dims: largest kept dimension of each field; embeddings are zero from there on.

        Returns: a model for embeddings of the same shape (B, F, D); by default this one.
        """
        return self
