"""One embedding a field from those of its slots: the step between the lookup and the base model."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ondevice.data.slots import Slots


class Pooling(nn.Module):
    """What is read in the slots of each field, joined: e_f = Σ_s m_s·e_s / norm(Σ_s m_s).

    m_s says whether slot s has a value, that is, does not read what unknown values do of the field whose rows it reads;
    in a field that is not pooled it always has. norm(n) is n for the mean, 1 for the sum, √n for ``sqrt``. A field
    without any value has the embedding of unknown values, the mean of what its K slots then read.

    The eager model reads ids and a program rows, by this same module. Sums over slots are products with matrices of
    all fields at once: XNNPACK takes those, and no parts of batches of any size.

    Args:
        slots: the columns of a row.
    """

    is_pooled: Tensor
    members: Tensor
    share: Tensor

    def __init__(self, slots: Slots) -> None:
        super().__init__()
        fields, widths = torch.tensor(slots.fields), torch.tensor(slots.widths)
        self.kinds = sorted({pooling for pooling in slots.poolings if pooling is not None})
        constants = {
            "is_pooled": torch.tensor([pooling is not None for pooling in slots.poolings])[fields],
            "members": F.one_hot(fields, len(widths)).t().float(),  # (F, S)
            "share": 1 / widths.float(),
        }
        for kind in self.kinds if len(self.kinds) > 1 else ():
            # the count of a single slot is 1, whose norm is 1 of any kind
            constants[kind] = torch.tensor([float((p or self.kinds[0]) == kind) for p in slots.poolings])
        for name, value in constants.items():
            self.register_buffer(name, value.contiguous())

    def absent(self, unknown: Tensor) -> Tensor:
        """What a slot without a value reads, (S,): -1, which nothing is, where a field is not pooled.

        Shape: unknown (S,), what the unknown values of each slot's owner read.
        """
        return torch.where(self.is_pooled, unknown, -1)

    def matrix(self, read: Tensor, absent: Tensor) -> Tensor:
        """What each slot counts in its field, and 0 in the others, (B, F, S).

        Shape: read (B, S), ids or rows; absent (S,).
        """
        present = (read != absent).to(torch.float32)
        count = F.linear(present, self.members)
        without = (1 - count.clamp(max=1.0)) * self.share
        matrix = self.members * (present.unsqueeze(1) + without.unsqueeze(2))
        norm = self._norm(count.clamp(min=1.0))
        return matrix if norm is None else matrix / norm.unsqueeze(2)

    def _norm(self, count: Tensor) -> Tensor | None:
        norms = {"mean": lambda: count, "sqrt": count.sqrt}
        if len(self.kinds) == 1:
            return norms[self.kinds[0]]() if self.kinds[0] in norms else None
        total = None
        for kind in self.kinds:
            chosen: Tensor = getattr(self, kind)
            term = norms[kind]() * chosen if kind in norms else chosen
            total = term if total is None else total + term
        return total

    def forward(self, values: Tensor, matrix: Tensor) -> Tensor:
        """Shape: values (B, S, D) -> (B, F, D)."""
        return torch.bmm(matrix, values)
