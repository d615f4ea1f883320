"""Histories as a training of the next item reads them: windows to learn from, and moments at which to rank."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ondevice.data.dataset import Dataset
from ondevice.data.gaps import buckets
from ondevice.data.schema import Schema
from ondevice.data.splits import SPLITS
from ondevice.errors import ConfigError, DataError
from ondevice.models.sequences.places import BITS, with_seconds
from ondevice.training.batches import Batch
from ondevice.training.ranking import Lists


@dataclass(frozen=True)
class Log:
    """What each user did, one user after the other, in the order of time.

    Args:
        items: ids of the item table, whose id 0 is the unknown item.
        offsets: where each user begins, and the end.
        division: the split of each, by its place in `SPLITS`.
        num_items: number of known items.
        times: of each, in seconds; None where histories have no gaps.
        gaps: of the history, since or until; None for none.

    Shape: items (T,) int64, offsets (U + 1,) int64, division (T,) uint8, times (T,) float64.
    """

    items: np.ndarray
    offsets: np.ndarray
    division: np.ndarray
    num_items: int
    times: np.ndarray | None = None
    gaps: str | None = None

    @classmethod
    def of(cls, dataset: Dataset) -> Log:
        """The log of a data set.

        Raises: ConfigError: when it has no sequences.
        """
        sequences, schema = dataset.sequences, dataset.schema
        if sequences is None or schema.item_key is None:
            raise ConfigError(
                f"data set '{schema.name}' has no sequences, which a model of the next item reads; choose "
                "data.fields=next_item, or give the table an item_key, a user_key and a split.time"
            )
        offsets = dataset.vocabulary.field_offsets
        field = schema.names.index(schema.item_key)
        items = sequences.items.astype(np.int64) - int(offsets[field])
        number = int(offsets[field + 1] - offsets[field]) - 1
        gaps = gaps_of(schema)
        times = None if gaps is None or sequences.times is None else np.asarray(sequences.times)
        return cls(items, np.asarray(sequences.offsets), np.asarray(sequences.division), number, times, gaps)

    def known(self) -> tuple[np.ndarray, np.ndarray]:
        """The known items, and how many of them precede each place, (T + 1,)."""
        known = self.items != 0
        return self.items[known], np.append(0, np.cumsum(known, dtype=np.int64))

    def of_split(self, name: str) -> np.ndarray:
        """The places (n,) of a split."""
        return np.flatnonzero(self.division == SPLITS.index(name))

    def counts(self) -> np.ndarray:
        """How often training saw each id, (1 + I,) int64."""
        return np.bincount(self.items[self.of_split("train")], minlength=self.num_items + 1)


def gaps_of(schema: Schema) -> str | None:
    """Which time gaps the histories of a schema have, since or until; None for none.

    Raises: ConfigError: when they differ.
    """
    kinds = {field.gaps for field in schema.histories}
    if len(kinds) > 1:
        raise ConfigError(
            f"data: histories of schema '{schema.name}' differ in gaps; give all of them the same"
        )
    return kinds.pop() if kinds else None


def _gaps(log: Log, places: np.ndarray, begins: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """The bucket of the gap at each place of the histories of moments.

    Args:
        places: of the moments in the log.
        begins: of each moment's user, among the known items.
        columns: of the histories, among the known items.

    Shape: places and begins (Q,), columns (Q, L) -> (Q, L) int64.
    """
    assert log.times is not None, "histories with gaps have times"
    times = np.append(log.times[log.items != 0], np.nan)
    if log.gaps == "since":
        columns = np.concatenate([columns[:, :1] - 1, columns], 1)
    read = np.where(columns >= begins[:, None], times[np.clip(columns, 0, len(times) - 1)], np.nan)
    if log.gaps == "until":
        read = np.concatenate([read, log.times[places][:, None]], 1)
    return buckets(np.diff(read, axis=1))


class Windows:
    """Windows of what users did in training, as batches.

    Of each user an epoch has ``per_user`` windows of at most ``last`` + 1 items: half of them (rounded up) end with
    the newest one, the others anywhere such that they are as long as the user's history allows. Where histories have
    gaps, an item has its seconds beside it (`places.with_seconds`), which `places.with_gaps` makes gaps of.

    Args:
        log: of which the training split is read.
        last: items that a model reads.
        per_user: windows of each user.
        batch_size: windows in a batch.
        device: where batches are wanted.

    Shape: a batch is (users (B,), items (B, last + 1), lengths (B,)), all int64, items at the end, 0 before them.

    Raises: DataError: when no user has two items in training.
    """

    def __init__(self, log: Log, last: int, per_user: int, batch_size: int, device: torch.device) -> None:
        self.last, self.per_user, self.batch_size, self.device = last, per_user, batch_size, device
        chosen = (log.division == SPLITS.index("train")) & (log.items != 0)
        before = np.append(0, np.cumsum(chosen, dtype=np.int64))
        begins, ends = before[log.offsets[:-1]], before[log.offsets[1:]]
        long = ends - begins >= 2
        if not long.any():
            raise DataError("no user has two items in the training split: there is no next item to learn")
        items = log.items[chosen]
        self.gaps = log.gaps
        if log.times is not None:
            items = with_seconds(items, log.times[chosen])
        self.items = torch.from_numpy(items).to(device)
        self.begins, self.ends = (torch.from_numpy(each[long]).to(device) for each in (begins, ends))

    @property
    def num_rows(self) -> int:
        """Windows of an epoch."""
        return len(self.begins) * self.per_user

    def __len__(self) -> int:
        """Batches of an epoch."""
        return -(-self.num_rows // self.batch_size)

    def epoch(self, seed: int) -> Generator[Batch, None, None]:
        """One shuffled pass over all users' windows; it depends on ``seed`` alone."""
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(self.num_rows, generator=generator).to(self.device)
        draws = torch.rand(self.num_rows, generator=generator, dtype=torch.float64).to(self.device)
        for rows in order.split(self.batch_size):
            users, number = rows % len(self.begins), rows // len(self.begins)
            begins, ends = self.begins[users], self.ends[users]
            shortest = torch.minimum(begins + self.last + 1, ends)
            drawn = shortest + (draws[rows] * (ends - shortest + 1)).long()
            ends = torch.where(number < (self.per_user + 1) // 2, ends, drawn)
            places = ends[:, None] + torch.arange(-self.last - 1, 0, device=self.device)
            inside = places >= begins[:, None]
            yield users, torch.where(inside, self.items[places.clamp(min=0)], 0), inside.sum(1)


@dataclass(frozen=True)
class Moments:
    """Moments at which a user's next item is known: what a model may read, what it should rank first.

    Args:
        histories: the last known items before each moment, 0 before them; where histories have gaps, with the bucket
            of each (`places.gaps_of`).
        targets: the item that came, as its place among the known ones; −1 where it is unknown.
        seen: all known items before, as places.

    Shape: histories (Q, L) int64, targets of Q lists of one item.
    """

    histories: Tensor
    targets: Lists
    seen: Lists

    @classmethod
    def of(cls, log: Log, split: str, last: int) -> Moments:
        """A moment for each interaction of a split; its history is all that the user did before it.

        Raises: DataError: when the split is empty.
        """
        places = log.of_split(split)
        if not len(places):
            raise DataError(f"the {split} split has no interaction to rank items for")
        items, before = log.known()
        owners = np.searchsorted(log.offsets, places, side="right") - 1
        begins, ends = before[log.offsets[owners]], before[places]
        columns = ends[:, None] + np.arange(-last, 0)
        padded = np.append(items, 0)  # read by the last place where there is no item at all
        histories = np.where(columns >= begins[:, None], padded[np.clip(columns, 0, len(items))], 0)
        if log.times is not None:
            histories = histories + (_gaps(log, places, begins, columns) << BITS)
        offsets = np.append(0, np.cumsum(ends - begins))
        rows = np.arange(offsets[-1]) + np.repeat(begins - offsets[:-1], ends - begins)
        seen = Lists(torch.from_numpy(items[rows] - 1), torch.from_numpy(offsets))
        return cls(torch.from_numpy(histories), Lists.single(torch.from_numpy(log.items[places] - 1)), seen)

    def __len__(self) -> int:
        return len(self.histories)

    @property
    def lengths(self) -> Tensor:
        """Items that each user had before, (Q,)."""
        return self.seen.offsets.diff()
