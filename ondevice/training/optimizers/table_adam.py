"""Adam for models whose tables are read by rows: it equals Adam on whole tables, at the cost of the rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ondevice.forms.rows import FetchedRows, copy_rows_, zero_rows_
from ondevice.forms.table import EmbeddingTable
from ondevice.training.optimizers.idle import CAPACITY, AdamStep, IdleSteps, ReplayedSteps, Rows
from ondevice.training.optimizers.row_records import Column, RowRecords


class TableAdam(torch.optim.Adam):
    """Adam that fetches the rows a batch looks up, and takes gradients of just these rows.

    A step is `fetch`, forward, backward, `step`. With ``lazy=False`` the gradients are laid into whole
    tables, which is quickest for small ones. With ``lazy=True`` nothing but the batch's rows is touched:
    what the steps since its last lookup would have done to a row (momentum, weight decay, averaging) is made
    good when it is fetched, and for all rows by `flush`, after which weights and moments are those of Adam
    on whole tables: see `IdleSteps` and, for coupled decay, `ReplayedSteps`.

    Fetched rows of parameters that another optimizer updates are its to change in place; `step` writes them
    back, so it comes last. ``state_dict`` is that of ``torch.optim.Adam`` over the same groups.

    Args:
        groups: parameter groups, as for ``torch.optim.Adam``.
        tables: the tables among the parameters, all of the same ids.
        lr: learning rate.
        lazy: leave rows alone that are not looked up.
        decoupled: decay weights directly (AdamW) and not through the gradient (L2).
        averaged: whether moving averages of the rows are kept as well, if ``lazy``; see `averages`.
    """

    def __init__(
        self,
        groups: Sequence[dict[str, Any]],
        tables: Sequence[EmbeddingTable],
        *,
        lr: float,
        lazy: bool = False,
        decoupled: bool = False,
        averaged: bool = False,
    ) -> None:
        super().__init__(groups, lr=lr, fused=True, decoupled_weight_decay=decoupled)
        self.tables = [table for table in tables if reads_by_row(table, lazy)]
        self.lazy = lazy and bool(self.tables)
        self._of_tables = dict.fromkeys(p for table in self.tables for p in table.row_parameters())
        grouped = {p for group in self.param_groups for p in group["params"]}
        self._others = {p for p in self._of_tables if p not in grouped}
        self._laid_out: dict[nn.Parameter, Tensor] = {}
        self._fetched: dict[Column, Tensor] = {}
        if self.lazy:
            self._columns = ("weight", "exp_avg", "exp_avg_sq", *(("average",) if averaged else ()))
            self._records = RowRecords(
                {p: self._columns if p in grouped else ("weight",) for p in self._of_tables}
            )
            for p in grouped.intersection(self._of_tables):
                self.state[p]["step"] = torch.zeros((), device=p.device)
                self._bind(p)
                if averaged:
                    self.averages[p].copy_(p.detach())
            self._begin()

    @property
    def averages(self) -> dict[nn.Parameter, Tensor]:
        """The moving averages kept here, up to date after a `flush`."""
        kept = "average" in self._columns if self.lazy else False
        return {
            p: self._records.column(p, "average") for p in self._of_tables if kept and p not in self._others
        }

    @property
    def record_bytes(self) -> int:
        """Memory of all that is kept by row, if ``lazy``."""
        return self._records.values.nbytes if self.lazy else 0

    def _bind(self, p: nn.Parameter) -> None:
        """The moments of a parameter in records are columns beside it."""
        for name in ("exp_avg", "exp_avg_sq"):
            self.state[p][name] = self._records.column(p, name)

    def _begin(self) -> None:
        """Idle steps are counted from here; all rows are up to date."""
        self._idle: list[IdleSteps | ReplayedSteps] = []
        self._number = 0
        for group in self.param_groups:
            for p in self._by_row(group):
                self._number = int(self.state[p]["step"])
            if group["weight_decay"] and not group["decoupled_weight_decay"]:
                self._idle.append(ReplayedSteps())
            else:
                self._idle.append(IdleSteps(group["betas"], group["eps"], self._records.values.device))

    @property
    def _at_once(self) -> int:
        """Rows that are brought up to date together."""
        return max(idle.at_once for idle in self._idle)

    def _by_row(self, group: Mapping[str, Any]) -> list[nn.Parameter]:
        return [p for p in group["params"] if p in self._of_tables]

    def _settled(self, rows: Tensor | slice) -> dict[Column, Tensor]:
        """Copies of all columns of some rows, up to date."""
        if isinstance(rows, slice):
            parts, count = (rows,), rows.stop - rows.start
        else:
            parts, count = rows.split(self._at_once), len(rows)
        columns = self._records.empty(count)
        for number, part in enumerate(parts):
            place = slice(number * self._at_once, (number + 1) * self._at_once)
            settled = {column: values[place] for column, values in columns.items()}
            last = self._records.read(part, settled)
            for group, idle in zip(self.param_groups, self._idle, strict=True):
                parameters = self._by_row(group)
                if parameters:
                    idle.settle_(last, [self._rows_of(p, settled) for p in parameters])
        return columns

    def _rows_of(self, p: nn.Parameter, columns: Mapping[Column, Tensor]) -> Rows:
        return Rows(*(columns[p, name] for name in self._columns))

    @torch.no_grad()
    def peek(self, table: EmbeddingTable, rows: Tensor) -> list[Tensor]:
        """Copies of some rows (U,) of a table's `EmbeddingTable.row_parameters`, as `flush` would leave them."""
        parameters = table.row_parameters()
        if not self.lazy or table not in self.tables:
            return [p.index_select(0, rows) for p in parameters]
        columns = self._settled(rows)
        return [columns[p, "weight"] for p in parameters]

    @torch.no_grad()
    def fetch(self, ids: Tensor) -> None:
        """Read the rows that ``ids`` (B, F) look up: what the tables' forward of these ids uses."""
        if not self.tables:
            return
        if self.lazy and self._idle[0].count == CAPACITY:
            self.flush()
        rows, inverse = self.tables[0].info.distinct(ids)
        if self.lazy:
            self._fetched = self._settled(rows)
        for table in self.tables:
            parameters = table.row_parameters()
            read = [self._fetched[p, "weight"] if self.lazy else p.index_select(0, rows) for p in parameters]
            values = {p: value.requires_grad_() for p, value in zip(parameters, read, strict=True)}
            table.fetched = FetchedRows(ids, rows, inverse, values)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update from the gradients of the rows fetched, and of all other parameters."""
        read = {p: t.fetched for t in self.tables if t.fetched for p in t.row_parameters()}
        if self.lazy:
            super().step()
            if read:
                self._step_rows(read)
            return
        for p, fetched in read.items():
            gradient = fetched.values[p].grad
            if p not in self._others and gradient is not None:
                if p not in self._laid_out:
                    self._laid_out[p] = torch.zeros_like(p)
                p.grad = copy_rows_(self._laid_out[p], fetched.rows, gradient)
        super().step()
        for p, fetched in read.items():
            if p in self._others:
                copy_rows_(p, fetched.rows, fetched.values[p].detach())
            elif p.grad is not None:
                zero_rows_(self._laid_out[p], fetched.rows)
                p.grad = None

    def _step_rows(self, read: dict[nn.Parameter, FetchedRows]) -> None:
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
            parameters = self._by_row(group)
            if parameters:
                gradients = [read[p].values[p].grad for p in parameters]
                rows = [self._rows_of(p, self._fetched) for p in parameters]
                step.apply_(
                    rows,
                    [
                        torch.zeros_like(r.weight) if g is None else g
                        for r, g in zip(rows, gradients, strict=True)
                    ],
                )
            idle.record(step)
        self._records.write_(next(iter(read.values())).rows, self._fetched, self._idle[0].count)
        self._fetched = {}
        for table in self.tables:
            table.has_pending_updates = True

    @torch.no_grad()
    def flush(self) -> None:
        """Bring every row up to date."""
        if not self.lazy or not self._idle[0].count:
            return
        total = len(self._records.values)
        for begin in range(0, total, self._at_once):
            rows = slice(begin, min(begin + self._at_once, total))
            self._records.write_(rows, self._settled(rows), 0)
        for group, idle in zip(self.param_groups, self._idle, strict=True):
            idle.reset()
            for p in self._by_row(group):
                self.state[p]["step"].fill_(self._number)
        for table in self.tables:
            table.has_pending_updates = False

    def average(self, share: float) -> None:
        """Take (1 − ``share``)·w into `averages`, which keep ``share`` of themselves."""
        for idle in self._idle:
            idle.average(share)

    def release(self) -> None:
        """Give the parameters memory of their own again, after which this optimizer is done."""
        self.flush()
        for p in self._of_tables if self.lazy else ():
            p.data = p.data.clone(memory_format=torch.contiguous_format)

    def state_dict(self) -> dict[str, Any]:
        """The state of ``torch.optim.Adam``, after a `flush`."""
        self.flush()
        return super().state_dict()

    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a state that this class or ``torch.optim.Adam`` gave."""
        self.flush()
        super().load_state_dict(state_dict)
        if self.lazy:
            for p in (p for group in self.param_groups for p in self._by_row(group)):
                for name in ("exp_avg", "exp_avg_sq"):
                    self._records.column(p, name).copy_(self.state[p][name])
                self._bind(p)
            self._begin()


def reads_by_row(table: EmbeddingTable, lazy: bool) -> bool:
    """Whether a table's rows are fetched: all that can be if ``lazy``, else those whose rows are worked on."""
    if type(table).forward is not EmbeddingTable.forward:
        return False
    return lazy or type(table).of_rows is not EmbeddingTable.of_rows


def release(optimizers: Sequence[torch.optim.Optimizer]) -> None:
    """Give tables memory of their own again, at the end of a training."""
    for optimizer in optimizers:
        if isinstance(optimizer, TableAdam):
            optimizer.release()


def flush(optimizers: Sequence[torch.optim.Optimizer]) -> None:
    """Bring every row that an optimizer has left alone up to date: before tables are read as a whole."""
    for optimizer in optimizers:
        if isinstance(optimizer, TableAdam):
            optimizer.flush()
