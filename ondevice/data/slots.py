"""Which columns of a row of ids a field fills: its slots. What precedes the lookup counts slots, the rest fields."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

BLOCK_ROWS = 1 << 18
POOLINGS = ("mean", "sum", "sqrt")
"""How a field's embeddings become one: their sum, divided by their number, by nothing or by the number's root."""
POWERS = {"mean": 1.0, "sqrt": 0.5, "sum": 0.0}
"""Each value counts one over this power of their number."""


@dataclass(frozen=True)
class Slots:
    """The columns of a row of ids, field by field.

    A slot without a value has the unknown id of the field whose ids it holds.

    Args:
        widths: slots of each field.
        poolings: how the embeddings of its slots become one; None where there is one slot.
        sources: the field whose ids each field's slots hold: itself but for a history; None: each itself.
    """

    widths: tuple[int, ...]
    poolings: tuple[str | None, ...]
    sources: tuple[int, ...] = None  # type: ignore[assignment]  # set below

    def __post_init__(self) -> None:
        if self.sources is None:
            object.__setattr__(self, "sources", tuple(range(len(self.widths))))

    @classmethod
    def single(cls, num_fields: int) -> Slots:
        """One slot for each field."""
        return cls((1,) * num_fields, (None,) * num_fields)

    @property
    def total(self) -> int:
        """Number of slots S."""
        return sum(self.widths)

    @property
    def is_plain(self) -> bool:
        """Whether each field has one slot, so that slots are fields."""
        return all(pooling is None for pooling in self.poolings)

    @property
    def histories(self) -> list[int]:
        """The fields that hold another's ids."""
        return [field for field, source in enumerate(self.sources) if source != field]

    @property
    def has_history(self) -> bool:
        """Whether a field holds another's ids."""
        return bool(self.histories)

    @property
    def starts(self) -> list[int]:
        """The first slot of each field, and the total."""
        return [0, *np.cumsum(self.widths).tolist()]

    @property
    def fields(self) -> list[int]:
        """The field that each slot fills: what joins embeddings asks for this."""
        return [field for field, width in enumerate(self.widths) for _ in range(width)]

    @property
    def owners(self) -> list[int]:
        """The field whose ids, and so whose rows, each slot holds: what looks rows up asks for this."""
        return [self.sources[field] for field in self.fields]

    def part(self, columns: Sequence[int]) -> Slots:
        """The slots at these columns, which are all of some fields'."""
        fields = list(dict.fromkeys(self.fields[column] for column in columns))
        return Slots(tuple(self.widths[f] for f in fields), tuple(self.poolings[f] for f in fields))

    def apart(self) -> tuple[tuple[int, ...], list[tuple[int, ...]]]:
        """The columns of the fields that are no histories, and those of each history."""
        histories = self.histories
        others = [field for field in range(len(self.widths)) if field not in histories]
        return self.of(others), [self.of([field]) for field in histories]

    def of(self, fields: Iterable[int]) -> tuple[int, ...]:
        """The slots of some fields, in the order of these."""
        starts = self.starts
        return tuple(slot for field in fields for slot in range(starts[field], starts[field + 1]))


def count_unknown(slots: Slots, field_offsets: np.ndarray, ids: np.ndarray, counts: np.ndarray) -> None:
    """Let the unknown id that a field of several slots reads count the training rows that have no known value of it.

    Args:
        slots: the columns of the rows.
        field_offsets: first id of each field, its unknown one.
        ids: (n, S) of the training rows.
        counts: (N,) of each id, changed in place.
    """
    for field, source in enumerate(slots.sources):
        if slots.poolings[field] is not None:
            unknown, columns = int(field_offsets[source]), slice(slots.starts[field], slots.starts[field + 1])
            blocks = (ids[start : start + BLOCK_ROWS, columns] for start in range(0, len(ids), BLOCK_ROWS))
            empty = sum(int((block == unknown).all(1).sum()) for block in blocks)
            counts[unknown] = empty if field == source else counts[unknown] + empty
