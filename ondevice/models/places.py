"""What a model of histories reads of a row: fields, each history by its places, and the item that is asked about."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ondevice.data.slots import Slots
from ondevice.forms.pooling import Pooling
from ondevice.models.base import History


class Places(nn.Module):
    """Looks up the fields that are no histories, and each history by itself, so that no delegate takes a lookup apart.

    Args:
        slots: the columns of a row.
        unknown: what unknown values of each column's field read.
        by_columns: whether some columns of a row can be looked up without the others.

    Shape: rows (B, S) int64 -> embeddings (B, F', D) of the fields that are no histories, and the histories.
    """

    others: Tensor
    absent: Tensor

    def __init__(self, slots: Slots, unknown: Tensor, by_columns: bool = True) -> None:
        super().__init__()
        self.by_columns = by_columns
        others, histories = slots.apart()
        self.histories = [(each[0], each[-1] + 1, int(unknown[each[0]])) for each in histories]
        self.register_buffer("others", torch.tensor(others, dtype=torch.int32), persistent=False)
        part = slots.part(others)
        self.pooling = None if part.is_plain else Pooling(part)
        if self.pooling is not None:
            self.register_buffer("absent", self.pooling.absent(unknown[list(others)]), persistent=False)

    def forward(self, table: Callable[[Tensor], Tensor], rows: Tensor) -> tuple[Tensor, list[History]]:
        whole = None if self.by_columns else table(rows)
        others = rows.index_select(1, self.others)
        embeddings = table(others) if whole is None else whole.index_select(1, self.others)
        if self.pooling is not None:
            embeddings = self.pooling(embeddings, self.pooling.matrix(others, self.absent))
        histories = []
        for begin, end, absent in self.histories:
            present = (rows[:, begin:end] != absent).to(torch.float32)
            values = table(rows[:, begin:end]) if whole is None else whole[:, begin:end]
            histories.append(History(values * present.unsqueeze(2), present))
        return embeddings, histories


class AskedItem(nn.Module):
    """Of the fields that are no histories, the one whose values the first history holds; without a history the first.

    It is a product with a one-hot row: XNNPACK takes that, and no part of a batch of any size.

    Args:
        slots: of all fields.
        num_fields: of all fields F.

    Attributes: ``others``, the fields that are no histories.

    Shape: embeddings (B, F', D) of ``others`` -> (B, 1, D).
    """

    chosen: Tensor

    def __init__(self, slots: Slots, num_fields: int) -> None:
        super().__init__()
        histories = slots.histories
        self.others = [field for field in range(num_fields) if field not in histories]
        place = self.others.index(slots.sources[histories[0]]) if histories else 0
        self.register_buffer("chosen", torch.eye(len(self.others))[place : place + 1], persistent=False)

    def forward(self, embeddings: Tensor) -> Tensor:
        return F.linear(embeddings.transpose(1, 2), self.chosen).transpose(1, 2)
