"""Rows as sequences, each user's in the order of time: the histories of rows, and what comes next."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ondevice.data.schema import Field, Schema
from ondevice.data.times import seconds
from ondevice.errors import DataError

FILES = ("items", "offsets", "division", "users", "times")
OPTIONAL = ("users", "times")


@dataclass(frozen=True)
class Sequences:
    """Every interaction of every user in the order of time; rows of equal time in the order of the rows.

    Where all histories of a schema take positive rows only, so do the sequences. Rows that name no user are left out.

    Args:
        items: (T,) int32 global ids of the field that histories hold; its unknown id where training never saw it.
        offsets: (U + 1,) int64, where each user's begin, and the total.
        division: (T,) uint8, 0 train, 1 valid, 2 test.
        users: (U,) canonical key of each user, int64 or texts; None where they are not known.
        times: (T,) float64 seconds of each; None where no history has gaps.
    """

    items: np.ndarray
    offsets: np.ndarray
    division: np.ndarray
    users: np.ndarray | None = None
    times: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def save(self, folder: Path) -> None:
        """Write each array beside the rows of a store."""
        for name in FILES:
            array = getattr(self, name)
            if array is not None:
                np.save(folder / f"sequences.{name}.npy", array, allow_pickle=False)

    @classmethod
    def open(cls, folder: Path) -> Sequences | None:
        """What `save` wrote, mapped from disk; None where there are none."""
        paths = {name: folder / f"sequences.{name}.npy" for name in FILES}
        if not paths["items"].exists():
            return None
        return cls(
            **{
                name: np.load(path, mmap_mode="r", allow_pickle=False)
                for name, path in paths.items()
                if name not in OPTIONAL or path.exists()
            }
        )


class Timeline:
    """The rows of each user in the order of time.

    Args:
        users: (n,) number of each row's user, -1 where none is known.
        order: arrays (n,) that sort the rows in time, the most significant first; rows that are equal in all of them
            keep their order.

    Attributes: ``rows`` (T,), those of one user after those of another, and ``offsets`` (U + 1,), where each user's
    begin; ``numbers`` (U,), which user that is.
    """

    def __init__(self, users: np.ndarray, order: tuple[np.ndarray, ...]) -> None:
        ranked = np.lexsort((*reversed(order), users))  # stable
        self.rows = ranked[np.searchsorted(users[ranked], 0) :]
        self.times = order[0]
        self.num_rows = len(users)
        owners = users[self.rows]
        starts = np.flatnonzero(np.diff(owners, prepend=-1))  # users are 0 or more
        self.offsets = np.append(starts, len(owners)).astype(np.int64)
        self.numbers = owners[self.offsets[:-1]]

    def among(self, keep: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """Rows of which ``keep`` (n,) is true, in this order, and how many of them precede each place (T + 1,)."""
        kept = np.ones(len(self.rows), dtype=bool) if keep is None else keep[self.rows]
        return self.rows[kept], np.append(0, np.cumsum(kept, dtype=np.int64))

    def sequences(
        self,
        items: np.ndarray,
        division: np.ndarray,
        keep: np.ndarray | None,
        keys: np.ndarray | None,
        has_gaps: bool = False,
    ) -> Sequences:
        """The sequences of these rows.

        Args:
            items: (n,) ids.
            division: (n,) the split of each row.
            keep: (n,) which rows; None for all.
            keys: of users, by number.
            has_gaps: whether a history has time gaps.
        """
        rows, before = self.among(keep)
        users = None if keys is None else keys[self.numbers]
        times = seconds(self.times)[rows] if has_gaps else None
        return Sequences(items[rows].astype(np.int32), before[self.offsets], division[rows], users, times)


class Histories:
    """What a history field holds in each row: the last values that are known of the rows before it.

    Args:
        field: the history.
        timeline: of all rows.
        items: (n,) ids of the field that it is of.
        unknown: that field's unknown id, which is no value.
        labels: (n,) of the rows.
    """

    def __init__(
        self, field: Field, timeline: Timeline, items: np.ndarray, unknown: int, labels: np.ndarray
    ) -> None:
        keep = items != unknown
        if field.only is not None:
            keep = keep & (labels == int(field.only == "positive"))
        rows, before = timeline.among(keep)
        self.values = np.append(items[rows], unknown).astype(np.int32)  # the last one is that of empty slots
        self.slots = np.arange(-field.slots, 0)
        self.begin = np.zeros(timeline.num_rows, dtype=np.int64)
        self.end = np.zeros(timeline.num_rows, dtype=np.int64)
        lengths = np.diff(timeline.offsets)
        self.begin[timeline.rows] = np.repeat(before[timeline.offsets[:-1]], lengths)
        self.end[timeline.rows] = before[:-1]

    def ids(self, rows: np.ndarray) -> np.ndarray:
        """Ids (n, L) int32 of some rows, the newest in the last slot."""
        places = self.end[rows][:, None] + self.slots
        slot_values: np.ndarray = self.values[np.where(places >= self.begin[rows][:, None], places, -1)]
        return slot_values

    def num_empty(self, rows: np.ndarray) -> int:
        """Of some rows, those before which there was no value."""
        return int((self.begin[rows] == self.end[rows]).sum())

    @property
    def num_cut(self) -> int:
        """Rows before which there were more values than slots."""
        return int((self.end - self.begin > len(self.slots)).sum())


def write_sequences(
    folder: Path,
    schema: Schema,
    timeline: Timeline,
    items: np.ndarray,
    labels: np.ndarray,
    division: np.ndarray,
    unknown: int,
    keys: np.ndarray | None,
) -> dict[int, Histories]:
    """Write the sequences of a schema with histories into a store.

    Args:
        folder: the store.
        schema: has a history.
        timeline: of all rows.
        items: (n,) ids of the field that histories are of.
        labels: (n,) of the rows.
        division: (n,) the split of each row.
        unknown: that field's unknown id.
        keys: of users, by number.

    Returns: what each history holds, by the place of its field.
    """
    keep = labels == 1 if all(field.only == "positive" for field in schema.histories) else None
    has_gaps = any(field.gaps is not None for field in schema.histories)
    timeline.sequences(items, division, keep, keys, has_gaps).save(folder)
    return {
        f: Histories(field, timeline, items, unknown, labels)
        for f, field in enumerate(schema.fields)
        if field.is_history
    }


def check_histories(schema: Schema, user: str | None, has_order: bool) -> None:
    """Whether what histories are made of is known.

    Raises: DataError: where no field or column says whose row it is, or when it was.
    """
    for field in schema.histories:
        where = f"data set '{schema.name}': field '{field.name}' is a history"
        if user is None:
            raise DataError(
                f"{where}, but nothing says whose rows they are; add user_key: the field or column of the user"
            )
        if not has_order:
            raise DataError(f"{where} and needs a time for every row; name the time column (split.time)")
