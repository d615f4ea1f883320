"""Adam for models whose tables are read by rows: it equals Adam on whole tables, at the cost of the rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ondevice.embeddings import EmbeddingMethod
from ondevice.embeddings.rows import FetchedRows, copy_rows_, zero_rows_
from ondevice.training.idle import CAPACITY, AdamStep, IdleSteps, ReplayedSteps, Rows

CHUNK = 1 << 16
"""Rows that `TableAdam.flush` brings up to date at once."""


class TableAdam(torch.optim.Adam):
    """Adam that fetches the rows a batch looks up, and takes gradients of just these rows.

    A step is `fetch`, forward, backward, `step`. With ``lazy=False`` the gradients are laid into whole
    tables, which is quickest for small ones. With ``lazy=True`` nothing but the batch's rows is touched:
    what the steps since its last lookup would have done to a row (momentum, weight decay, averaging) is made
    good when it is fetched, and for all rows by `flush`, after which weights and moments are those of Adam
    on whole tables: see `IdleSteps` and, for coupled decay, `ReplayedSteps`.

    ``state_dict`` is that of ``torch.optim.Adam`` over the same groups, all rows up to date.

    Args:
        groups: parameter groups, as for ``torch.optim.Adam``.
        tables: the tables among the parameters, all of the same ids.
        lr: learning rate.
        lazy: leave rows alone that are not looked up.
        decoupled: decay weights directly (AdamW) and not through the gradient (L2).
    """

    def __init__(
        self,
        groups: Sequence[dict[str, Any]],
        tables: Sequence[EmbeddingMethod],
        *,
        lr: float,
        lazy: bool = False,
        decoupled: bool = False,
    ) -> None:
        super().__init__(groups, lr=lr, fused=True, decoupled_weight_decay=decoupled)
        self.tables = [table for table in tables if reads_by_row(table, lazy)]
        self.lazy = lazy and bool(self.tables)
        self._tables_rows = {p for table in self.tables for p in table.row_parameters()}
        self._laid_out: dict[nn.Parameter, Tensor] = {}
        self._fetched: dict[nn.Parameter, Rows] = {}
        self._averages: dict[nn.Parameter, Tensor] = {}
        if self.lazy:
            self._begin()

    def _of_rows(self, group: Mapping[str, Any]) -> list[nn.Parameter]:
        return [p for p in group["params"] if p in self._tables_rows]

    def _begin(self) -> None:
        """All rows are up to date: state for each, and idle steps of each group counted from here."""
        self._idle: list[IdleSteps | ReplayedSteps] = []
        self._number = 0
        weight = self.tables[0].weight
        self._last = torch.zeros(weight.shape[0], dtype=torch.int32, device=weight.device)
        for group in self.param_groups:
            for p in self._of_rows(group):
                if not self.state[p]:
                    self.state[p]["step"] = torch.zeros((), device=p.device)
                    self.state[p].update(exp_avg=torch.zeros_like(p), exp_avg_sq=torch.zeros_like(p))
                self._number = int(self.state[p]["step"])
            if group["weight_decay"] and not group["decoupled_weight_decay"]:
                self._idle.append(ReplayedSteps())
            else:
                self._idle.append(
                    IdleSteps(group["betas"], group["eps"], bool(self._averages), weight.device)
                )

    def _whole(self, p: nn.Parameter) -> Rows:
        state = self.state[p]
        return Rows(p.detach(), state["exp_avg"], state["exp_avg_sq"], self._averages.get(p))

    @torch.no_grad()
    def peek(self, rows: Tensor) -> dict[nn.Parameter, Rows]:
        """Copies of some rows (U,), all different, of each parameter, as `flush` would leave them."""
        last = self._last.index_select(0, rows)
        found: dict[nn.Parameter, Rows] = {}
        for group, idle in zip(self.param_groups, self._idle, strict=True):
            parameters = self._of_rows(group)
            copies = [self._whole(p).at(rows) for p in parameters]
            if copies and idle.count:
                idle.apply_(last, copies)
            found.update(zip(parameters, copies, strict=True))
        return found

    @torch.no_grad()
    def fetch(self, ids: Tensor) -> None:
        """Read the rows that ``ids`` (B, F) look up: what the tables' forward of these ids uses."""
        if not self.tables:
            return
        if self.lazy and self._idle[0].count == CAPACITY:
            self.flush()
        rows, inverse = self.tables[0].info.distinct(ids)
        self._fetched = self.peek(rows) if self.lazy else {}
        for table in self.tables:
            values = {}
            for p in table.row_parameters():
                value = self._fetched[p].weight if p in self._fetched else p.index_select(0, rows)
                values[p] = value.requires_grad_()
            table.fetched = FetchedRows(ids, rows, inverse, values)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update from the gradients of the rows fetched, and of all other parameters."""
        read = {p: t.fetched for t in self.tables if t.fetched for p in t.row_parameters()}
        if not self.lazy:
            self._lay_out(read)
        super().step()
        for p, fetched in read.items():
            if p in self._laid_out:
                zero_rows_(self._laid_out[p], fetched.rows)
                p.grad = None
        if self.lazy and read:
            self._step_rows(read)

    def _lay_out(self, read: dict[nn.Parameter, FetchedRows]) -> None:
        """Gradients of rows as gradients of tables, which are zero elsewhere and kept from step to step."""
        for p in (p for group in self.param_groups for p in self._of_rows(group)):
            gradient = read[p].values[p].grad if p in read else None
            if gradient is not None:
                if p not in self._laid_out:
                    self._laid_out[p] = torch.zeros_like(p)
                p.grad = copy_rows_(self._laid_out[p], read[p].rows, gradient)

    def _step_rows(self, read: dict[nn.Parameter, FetchedRows]) -> None:
        rows = next(iter(read.values())).rows
        self._number += 1
        for group, idle in zip(self.param_groups, self._idle, strict=True):
            step = AdamStep(
                self._number,
                group["lr"],
                group["weight_decay"],
                group["decoupled_weight_decay"],
                group["betas"],
                group["eps"],
            )
            parameters = self._of_rows(group)
            if parameters:
                gradients = [read[p].values[p].grad for p in parameters]
                updated = [self._fetched[p] for p in parameters]
                step.apply_(updated, [g for g in gradients if g is not None])
                for p, values in zip(parameters, updated, strict=True):
                    self._whole(p).put_(rows, values)
            idle.record(step)
        self._fetched = {}
        self._last.index_fill_(0, rows, self._idle[0].count)
        for table in self.tables:
            table.is_behind = True

    @torch.no_grad()
    def flush(self) -> None:
        """Bring every row up to date."""
        if not self.lazy or not self._idle[0].count:
            return
        for group, idle in zip(self.param_groups, self._idle, strict=True):
            whole = [self._whole(p) for p in self._of_rows(group)]
            for begin in range(0, len(self._last), CHUNK) if whole else ():
                end = min(begin + CHUNK, len(self._last))
                idle.apply_(self._last[begin:end], [rows.part(begin, end) for rows in whole])
            idle.reset()
            for p in self._of_rows(group):
                self.state[p]["step"].fill_(self._number)
        self._last.zero_()
        for table in self.tables:
            table.is_behind = False

    def keep_averages(self, averages: Mapping[nn.Parameter, Tensor]) -> set[nn.Parameter]:
        """Let moving averages follow rows as lazily as the rows themselves; returns those it will keep."""
        if self.lazy:
            self.flush()
            self._averages = {p: average for p, average in averages.items() if p in self._tables_rows}
            self._begin()
        return set(self._averages)

    def average(self, share: float) -> None:
        """Take (1 − ``share``)·w into the averages kept here, which keep ``share`` of themselves."""
        for idle in self._idle:
            idle.average(share)

    def state_dict(self) -> dict[str, Any]:
        """The state of ``torch.optim.Adam``, after a `flush`."""
        self.flush()
        return super().state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a state that this class or ``torch.optim.Adam`` gave."""
        super().load_state_dict(state_dict)
        if self.lazy:
            self._begin()


def reads_by_row(table: EmbeddingMethod, lazy: bool) -> bool:
    """Whether a table's rows are fetched: all that can be if ``lazy``, else those whose rows are worked on."""
    if type(table).forward is not EmbeddingMethod.forward:
        return False
    return lazy or type(table).of_rows is not EmbeddingMethod.of_rows


def flush(optimizers: Sequence[torch.optim.Optimizer]) -> None:
    """Bring every row that an optimizer has left alone up to date: before tables are read as a whole."""
    for optimizer in optimizers:
        if isinstance(optimizer, TableAdam):
            optimizer.flush()
