"""A recommender whose rows lie in several processes, with or without the thresholds of a search."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ondevice.config.sections import DistributedConfig
from ondevice.forms.table import EmbeddingTable, TableInfo
from ondevice.methods.base import RowSearch
from ondevice.models import BaseModel
from ondevice.sharded.descent import ScaledDescent
from ondevice.sharded.initial import InitialRows
from ondevice.sharded.selection import kth_smallest
from ondevice.sharded.tables import ShardedTables, TableSpec
from ondevice.training.processes import Processes

WEIGHT, THRESHOLD = "weight", "threshold"
CHUNK_ROWS = 1 << 16


@dataclass(frozen=True)
class Thresholds:
    """How a search's thresholds begin and move.

    Args:
        rows: what the method does with some rows.
        learning_rate: of the descent of thresholds.
    """

    rows: RowSearch
    learning_rate: float


class ShardedRecommender(nn.Module):
    """`Recommender` with the embeddings and the first-order weight of a row side by side in one sharded table.

    With thresholds it is one under a method that searches (`RowSearch`), whose s lie in a second table.
    Parameters of the module are those of the base model and the bias, which every process holds.

    Args:
        info: field offsets and training counts.
        model: the base model.
        rows: initial weights of the rows.
        settings: optimizer and learning rate of the table.
        learning_rate: of the training, for a table without its own.
        processes: that share batches and rows.
        device: where this process computes.
        thresholds: of a search; None for a dense model.
        skip: places of fields whose every value reads the field's unknown id.

    Shape: ids (B, F) int64 -> logits (B,).
    """

    def __init__(
        self,
        info: TableInfo,
        model: BaseModel,
        rows: InitialRows,
        settings: DistributedConfig,
        learning_rate: float,
        processes: Processes,
        device: torch.device,
        thresholds: Thresholds | None = None,
        skip: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.info, self.processes, self.device, self.skip = info, processes, device, list(skip)
        self.dim, self.thresholds = rows.dim, thresholds
        self.model = model
        self.bias = nn.Parameter(torch.zeros(1))
        self.to(device)
        specs = [TableSpec(WEIGHT, rows.width, settings.table_optimizer, learning_rate)]
        self.descent: ScaledDescent | None = None
        if thresholds is not None:
            width = rows.width if thresholds.rows.by_value else 1 + rows.width - rows.dim
            specs.append(TableSpec(THRESHOLD, width, "sgd", thresholds.learning_rate))
            self.descent = ScaledDescent(rows.num_rows * width, processes)
        store = ShardedTables(rows.num_rows, specs, processes, device)
        object.__setattr__(self, "store", store)  # no module of this one: its rows are in no state_dict
        with torch.no_grad():
            rows.fill_(store.shard(WEIGHT), store.rows.start)
            if thresholds is not None:
                local = info.counts[store.rows.start : store.rows.stop].to(device)
                s = thresholds.rows.initial(local)
                store.shard(THRESHOLD).copy_(s[:, None].expand_as(store.shard(THRESHOLD)))

    store: ShardedTables

    def tables(self) -> list[EmbeddingTable]:
        """None that a process holds as a whole."""
        return []

    def mapped(self, ids: Tensor) -> Tensor:
        """The ids that are read in place of ``ids``."""
        if not self.skip:
            return ids
        read = ids.clone()
        read[:, self.skip] = self.info.field_offsets[self.skip].to(ids.device)
        return read

    def embed(self, ids: Tensor) -> Tensor:
        """Embeddings (B, F, D) of ids (B, F); every process looks up at the same time."""
        rows, inverse = torch.unique(self.mapped(ids), return_inverse=True)
        gathered = self.store(rows)
        values = gathered[WEIGHT]
        if self.descent is not None:
            assert self.thresholds is not None
            values = self.thresholds.rows.pruned(
                values, self._spread(self.descent(gathered[THRESHOLD], rows))
            )
        looked_up = F.embedding(inverse, values)
        self._first_order = looked_up[..., self.dim :]
        return looked_up[..., : self.dim]

    def logits_of(self, embeddings: Tensor, ids: Tensor) -> Tensor:
        """Logits (B,) from embeddings just looked up by `embed`."""
        return self.model(embeddings) + self.bias + self._first_order.sum((1, 2))

    def forward(self, ids: Tensor) -> Tensor:
        return self.logits_of(self.embed(ids), ids)

    def _spread(self, s: Tensor) -> Tensor:
        """The threshold of every value of some rows."""
        assert self.thresholds is not None
        if self.thresholds.rows.by_value:
            return s
        return torch.cat([s[:, :1].expand(-1, self.dim), s[:, 1:]], 1)

    def num_values(self) -> int:
        """Values of the full tables."""
        return self.store.num_rows * self.store.shard(WEIGHT).shape[1]

    def num_kept(self) -> int:
        """Values in effect, over all processes."""
        if self.thresholds is None:
            return self.num_values()
        local = sum(int((v != 0).sum()) for v in self._pruned())
        return int(self.processes.total(torch.tensor([local], device=self.device)))

    def _chunks(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Weights and thresholds of the own rows, some at a time."""
        shards = self.store.shard(WEIGHT).detach(), self.store.shard(THRESHOLD).detach()
        for weight, s in zip(*(shard.split(CHUNK_ROWS) for shard in shards), strict=True):
            yield weight, self._spread(s)

    @torch.no_grad()
    def _pruned(self) -> Iterator[Tensor]:
        assert self.thresholds is not None
        for weight, s in self._chunks():
            yield self.thresholds.rows.pruned(weight, s)

    def _margins(self) -> Iterator[Tensor]:
        assert self.thresholds is not None
        for weight, s in self._chunks():
            yield self.thresholds.rows.margins(weight, s)

    def _scores(self) -> Iterator[Tensor]:
        """|V̂|, 0 for rows that training never saw."""
        rows = self.store.rows
        seen = (self.info.counts[rows.start : rows.stop] > 0).to(self.device)
        for values, known in zip(self._pruned(), seen.split(CHUNK_ROWS), strict=True):
            yield values.abs() * known[:, None]

    @torch.no_grad()
    def keep(self, count: int) -> None:
        """Shift all thresholds by what leaves ``count`` values in effect."""
        pruned = self.num_values() - count
        last, following = kth_smallest(self._margins, pruned, self.processes, self.device)
        self.store.shard(THRESHOLD).add_((last + following) / 2)

    @torch.no_grad()
    def sizes_at(self, target: int) -> list[Tensor]:
        """For each of the own rows how many values are among the ``target`` largest: see `forms_at`.

        Shape: one or two of (num_own,) uint8: of the embeddings, and of the first-order weights.
        """
        local = sum(int((scores > 0).sum()) for scores in self._scores())
        alive = int(self.processes.total(torch.tensor([local], device=self.device)))
        threshold = 0.0
        if target < alive:
            threshold, _ = kth_smallest(self._scores, self.num_values() - target, self.processes, self.device)
        kept = [scores > threshold for scores in self._scores()]
        parts = [torch.cat([k[:, : self.dim].sum(1) for k in kept])]
        if self.store.shard(WEIGHT).shape[1] > self.dim:
            parts.append(torch.cat([k[:, self.dim] for k in kept]))
        return [part.to(torch.uint8) for part in parts]

    def empty_sizes(self) -> list[Tensor]:
        """Room for `sizes_at`."""
        parts = 1 + self.store.shard(WEIGHT).shape[1] - self.dim
        return [
            torch.zeros(len(self.store.rows), dtype=torch.uint8, device=self.device) for _ in range(parts)
        ]

    def whole_state(self) -> dict[str, Any]:
        """What every process holds alike: base model, bias and the thresholds' running mean."""
        state: dict[str, Any] = {"module": self.state_dict()}
        if self.descent is not None:
            state["descent"] = self.descent.state_dict()
        return state

    def load_whole_state(self, state: dict[str, Any]) -> None:
        """Take over `whole_state`."""
        self.load_state_dict(state["module"])
        if self.descent is not None:
            self.descent.load_state_dict(state["descent"])
