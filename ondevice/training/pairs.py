"""Pairs that nobody rated: which contexts and items are joined for teachers to label."""

from __future__ import annotations

import torch
from torch import Tensor

from ondevice.forms.table import TableInfo
from ondevice.training.batches import Batches

SAMPLINGS = ("rows", "uniform", "popularity", "uncertainty")
CANDIDATES = 4  # items of which the teachers' uncertainty keeps one


class MadeUpPairs:
    """Context columns of one training row with the item columns of another.

    Teachers label them, so a compact model learns the teacher's function where the data has no rows
    (Bucilă et al. 2006, Model Compression; the pairing by sides is this project's). Contexts are those of rows
    drawn uniformly. An item, all item columns of a row together, is drawn

    - ``rows``: with a row, so in proportion to its count;
    - ``uniform``: every item of the training rows alike;
    - ``popularity``: in proportion to count^power (the unigram distribution of word2vec's negative samples,
      arXiv 1310.4546, section 2.2);
    - ``uncertainty``: as by ``rows``, `CANDIDATES` for each context, of which `choose` keeps one.

    Args:
        batches: the training split.
        item_columns: of the item-side fields.
        sampling: one of `SAMPLINGS`.
        power: exponent of ``popularity``; 1 is the same as ``rows``, 0 the same as ``uniform``.
    """

    def __init__(
        self, batches: Batches, item_columns: tuple[int, ...], sampling: str = "rows", power: float = 0.75
    ) -> None:
        self.batches = batches
        self.sampling = sampling
        self.item_columns = torch.tensor(item_columns, dtype=torch.int64, device=batches.device)
        self._first: Tensor | None = None
        if sampling in ("uniform", "popularity"):
            self._first, counts = distinct_items(batches, item_columns)
            self._upto = counts.double().pow(power if sampling == "popularity" else 0.0).cumsum(0)

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """``count`` pairs, (count, F) int64; with ``uncertainty`` the `CANDIDATES` of each follow one another."""
        if self._first is not None:
            context = torch.randint(self.batches.num_rows, (count,), generator=generator)
            drawn = torch.rand(count, dtype=torch.float64, generator=generator) * self._upto[-1]
            place = torch.searchsorted(self._upto, drawn, right=True).clamp(max=len(self._upto) - 1)
            return self._joined(context, self._first[place])
        if self.sampling == "uncertainty":
            context = torch.randint(self.batches.num_rows, (count,), generator=generator)
            item = torch.randint(self.batches.num_rows, (count * CANDIDATES,), generator=generator)
            return self._joined(context.repeat_interleave(CANDIDATES), item)
        rows = torch.randint(self.batches.num_rows, (2, count), generator=generator)
        return self._joined(rows[0], rows[1])

    def _joined(self, context: Tensor, item: Tensor) -> Tensor:
        ids = self.batches.take(context.to(self.batches.device))
        items = self.batches.take(item.to(self.batches.device))
        ids[:, self.item_columns] = items[:, self.item_columns]
        return ids


def choose(probability: Tensor, generator: torch.Generator) -> Tensor:
    """One of each row's candidates, with a chance in proportion to p·(1 − p), the variance of its label.

    Not by how much teachers disagree: that needs several, and p·(1 − p) is there with one.

    Shape: probability (B, K) -> (B,) int64 in [0, K).
    """
    weight = (probability * (1 - probability)).double().cpu().clamp(min=1e-12).cumsum(1)
    drawn = torch.rand(len(weight), 1, dtype=torch.float64, generator=generator) * weight[:, -1:]
    place = torch.searchsorted(weight, drawn, right=True).squeeze(1)
    return place.clamp(max=probability.shape[1] - 1).to(probability.device)


def distinct_items(batches: Batches, item_columns: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """A training row of each distinct item, and how many rows have it.

    Shape: (I,) int64 each, on the CPU.
    """
    number = torch.zeros(batches.num_rows, dtype=torch.int64)
    for column in item_columns:
        ids = torch.cat([ids[:, column].cpu() for ids, _ in batches.in_order()])
        _, number = torch.unique(number * (int(ids.max()) + 1) + ids, return_inverse=True)
    counts = number.bincount()
    rows = torch.arange(len(number))
    first = torch.full_like(counts, len(number)).scatter_reduce_(0, number, rows, "amin")
    return first, counts


def constant_side(info: TableInfo, item_columns: tuple[int, ...], skip: tuple[int, ...] = ()) -> str | None:
    """The side, ``context`` or ``item``, whose fields that are not skipped have one value in all training rows.

    Pairs then repeat the rows. None when both sides vary.
    """
    seen = [int((counts > 0).sum()) for counts in info.counts.split(info.field_offsets.diff().tolist())]
    varied = {f for f, source in enumerate(info.slots.sources) if seen[source] > 1} - set(skip)
    items = {info.slots.fields[column] for column in item_columns}
    for side, fields in (("item", items), ("context", set(range(info.num_fields)) - items)):
        if not varied & fields:
            return side
    return None
