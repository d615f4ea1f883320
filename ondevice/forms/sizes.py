"""The table of the second phase: trained under a form that no longer changes."""

from __future__ import annotations

import torch
from torch import Tensor

from ondevice.forms.base import Codes, Form, Mask, SharedMap, Sizes
from ondevice.forms.rows import lookup
from ondevice.forms.table import EmbeddingMethod, TableInfo


def table_width(form: Form) -> int:
    """Dimension of a table under a form: the largest size, where the form does not say otherwise."""
    if isinstance(form, Sizes) and not isinstance(form, Codes):
        return max(1, int(form.row_sizes().max()))
    return form.dim


class RetrainedEmbedding(EmbeddingMethod):
    """A table whose kept values are trained and whose other values are zero.

    With `Sizes` the table is as wide as the largest size, so narrow models are narrow while they train too.

    Args:
        info: field offsets and training counts.
        form: what is kept.
        initial: initial values (N, D), such as those saved before the search (lottery ticket); None to draw.

    Shape: ids (B, F) int64 -> (B, F, D) float32, D the largest size for `Sizes`, the full D for `Mask`.
    """

    keep: Tensor
    level: Tensor | None = None
    """What is read and trained for now, (N, D) bool: a part of ``keep``; None for all of it."""

    def __init__(
        self, info: TableInfo, form: Form, *, initial: Tensor | None = None, init_std: float | None = None
    ) -> None:
        width = table_width(form)
        super().__init__(info, width, init_std=init_std)
        self.positions = isinstance(form, Mask)
        self.register_buffer("keep", form.mask()[:, :width].clone())
        with torch.no_grad():
            if initial is not None:
                self.weight.copy_(initial[:, :width])
            self.weight.mul_(self.keep)
        # a gradient of zero keeps a zero weight at zero under Adam, momentum and weight decay alike
        self.weight.register_hook(lambda gradient: gradient * self.keep)

    @property
    def in_effect(self) -> Tensor:
        """The kept values that are read, (N, D) bool."""
        return self.keep if self.level is None else self.level

    def of_rows(self, rows: Tensor, inverse: Tensor, *values: Tensor) -> Tensor:
        return lookup(values[0] * self.in_effect.index_select(0, rows), inverse)

    def of_ids(self, ids: Tensor) -> Tensor:
        found = super().of_ids(ids)
        return found if self.level is None else found * self.level[ids]

    def table(self) -> Tensor:
        return self.weight.detach() * self.in_effect

    def num_kept(self) -> int:
        return int(self.in_effect.sum())

    def compact(self, target: int | None = None) -> Form:
        """The form the table was made with, at its own width."""
        if self.positions:
            return Mask(self.keep.cpu())
        return Sizes(self.keep.sum(1).cpu(), self.embedding_dim)


class SharedEmbedding(RetrainedEmbedding):
    """A table under a `SharedMap`; `Recommender.id_map` leads each id to the row it reads.

    Args:
        info: field offsets and training counts.
        form: which ids have rows, and who reads them.
        initial: as in `RetrainedEmbedding`.
        init_std: as in `EmbeddingMethod`.

    Shape: ids (B, F) int64 -> (B, F, D) float32.
    """

    shared: Tensor
    modulus: Tensor

    def __init__(
        self,
        info: TableInfo,
        form: SharedMap,
        *,
        initial: Tensor | None = None,
        init_std: float | None = None,
    ) -> None:
        super().__init__(info, form, initial=initial, init_std=init_std)
        self.register_buffer("shared", form.shared)
        self.register_buffer("modulus", form.modulus)

    def compact(self, target: int | None = None) -> SharedMap:
        """The form the table was made with, at its own width."""
        return SharedMap(self.keep.sum(1).cpu(), self.embedding_dim, self.shared.cpu(), self.modulus.cpu())
