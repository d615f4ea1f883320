"""Tables of embeddings as a training sees them: what is known of their rows, and how a batch reads them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ondevice.data.slots import Slots
from ondevice.forms.rows import FetchedRows, RowFinder, lookup


@dataclass(frozen=True)
class TableInfo:
    """What a method may know of the data before training.

    Args:
        field_offsets: first id of each field, and the total at the end.
        counts: occurrences of each id in the training split.
        texts: gives the canonical text of each id's key, None for unknown ids; None for the place in the field.
        slots: the columns of a row of ids; None for one a field.

    ``distinct`` finds the distinct ids of a batch, for all tables that look it up.

    Shape: field_offsets (F + 1,) int64; counts (N,) int64.
    """

    field_offsets: Tensor
    counts: Tensor = field(repr=False)
    texts: Callable[[], Sequence[str | None]] | None = field(default=None, repr=False, compare=False)
    slots: Slots = None  # type: ignore[assignment]  # set below
    distinct: RowFinder = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "distinct", RowFinder(int(self.field_offsets[-1])))
        if self.slots is None:
            object.__setattr__(self, "slots", Slots.single(self.num_fields))

    @property
    def num_embeddings(self) -> int:
        return int(self.field_offsets[-1])

    @property
    def num_fields(self) -> int:
        return int(self.field_offsets.numel()) - 1

    def key_texts(self) -> Sequence[str | None]:
        """Canonical text of each id's key, None for unknown ids."""
        if self.texts is not None:
            return self.texts()
        places = (torch.arange(self.num_embeddings) - self.unknown_of()).tolist()
        return [str(place) if place else None for place in places]

    def field_of(self) -> Tensor:
        """The field each id belongs to, (N,) int64."""
        return torch.repeat_interleave(torch.arange(self.num_fields), self.field_offsets.diff())

    def unknown_of(self) -> Tensor:
        """The unknown id of each id's field, (N,) int64."""
        return self.field_offsets[:-1][self.field_of()]


def table_info(
    field_offsets: Any,
    counts: Any,
    texts: Callable[[], Sequence[str | None]] | None = None,
    slots: Slots | None = None,
) -> TableInfo:
    """`TableInfo` from the arrays of a data set, what gives its keys, and the columns of its rows."""
    offsets, occurrences = (torch.as_tensor(each).long().clone() for each in (field_offsets, counts))
    return TableInfo(offsets, occurrences, texts, slots or Slots.single(len(offsets) - 1))


class EmbeddingTable(nn.Module):
    """A table of N rows that is trained: freely, under a method that searches, or under a form that is kept.

    Args:
        info: field offsets and training counts.
        embedding_dim: the table's dimension D.
        init_std: standard deviation of the normal initial weights; None for Xavier uniform over (N, D).

    Shape: ids (B, F) int64 -> (B, F, D) float32.
    """

    fetched: FetchedRows | None = None
    """What an optimizer has fetched for the step under way: read in place of the table."""
    has_pending_updates: bool = False
    """Whether an optimizer still owes rows their updates."""
    learns_codes: bool = False
    """Whether values end as codes, which a phase of the training chooses (`ondevice.methods.code_search`)."""

    def __init__(self, info: TableInfo, embedding_dim: int, *, init_std: float | None = None) -> None:
        super().__init__()
        self.info = info
        self.embedding_dim = embedding_dim
        self.weight = nn.Parameter(torch.empty(info.num_embeddings, embedding_dim))
        if init_std is None:
            nn.init.xavier_uniform_(self.weight)
        else:
            nn.init.normal_(self.weight, std=init_std)

    @property
    def num_embeddings(self) -> int:
        return int(self.weight.shape[0])

    def forward(self, ids: Tensor) -> Tensor:
        fetched = self.fetched
        if fetched is not None and fetched.ids is ids:
            values = [fetched.values[p] for p in self.row_parameters()]
            return self.of_rows(fetched.rows, fetched.inverse, *values)
        if self.has_pending_updates:
            raise RuntimeError("rows of the table wait for their updates: call the optimizer's flush() first")
        return self.of_ids(ids)

    def row_parameters(self) -> list[nn.Parameter]:
        """Parameters with a row for each id: what `of_rows` takes."""
        return [self.weight]

    def of_rows(self, rows: Tensor, inverse: Tensor, *values: Tensor) -> Tensor:
        """Embeddings (B, F, D) from the rows (U, …) of each of `row_parameters` that a batch looks up.

        Shape: rows (U,) int64, all different; inverse (B, F) int64, where each lookup falls among them.
        """
        return lookup(values[0], inverse)

    def of_ids(self, ids: Tensor) -> Tensor:
        """Embeddings (B, F, D) read from the whole table."""
        return lookup(self.weight, ids)

    def table(self) -> Tensor:
        """The values in effect, (N, D): zero where pruned."""
        return self.weight.detach()

    def values(self) -> dict[str, Tensor]:
        """The values in effect as named tensors, for a file."""
        return {"weight": self.table()}

    def num_kept(self) -> int:
        """Number of values in effect now."""
        return self.weight.numel()

    @property
    def is_final(self) -> bool:
        """Whether the values are already of the kind that ships; a training keeps only epochs that end so."""
        return True

    def regularization(self) -> Tensor | None:
        """A penalty for the step whose lookup came last, if there is one."""
        return None

    def step_end(self, step: int) -> None:
        """Called after each step of a training, counted from 1."""

    def thresholds(self) -> list[nn.Parameter]:
        """Parameters that decide sizes rather than values: they get the threshold's learning rate and decay."""
        return []

    @property
    def thresholds_decay(self) -> bool:
        """Whether weight decay acts on the thresholds as well."""
        return False

    @property
    def follows_budget(self) -> bool:
        """Whether a search leads the thresholds along its budget; they are then moved by plain gradients."""
        return False
