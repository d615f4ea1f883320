"""The search: one training during which the kept values fall below each budget, a form saved at each."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from ondevice.config.sections import SizesConfig
from ondevice.errors import BudgetTooSmall
from ondevice.methods.base import Method, Selection, competing, forms_at
from ondevice.methods.selection import described, read_selection
from ondevice.recommender import Recommender
from ondevice.training.batches import Batches
from ondevice.training.checkpoint import load_state, save_state
from ondevice.training.fit import epoch_seed, evaluate
from ondevice.training.optimizers.table_adam import TableAdam, flush, release
from ondevice.training.processes import ALONE, Processes
from ondevice.training.progress import Progress
from ondevice.training.step import make_optimizers, train_step

SAMPLED_VALUES = 1 << 23
"""Values looked at when a search counts what is kept: of larger tables some rows stand for the others."""


@dataclass
class SearchResult:
    """Forms by budget, and how the search went.

    Args:
        forms: for each target (values), the forms of the embedding and the first-order table.
        history: one entry per epoch.
        seconds: time spent, over all resumes.
    """

    forms: dict[int, list[Selection]]
    history: list[dict[str, float]]
    seconds: float


@dataclass
class Search:
    """Train with a searching method in place until every target is passed.

    Methods that follow a budget are led along a geometric schedule from the full tables to the smallest
    target, which they reach at the end of the last epoch; others are watched.

    Args:
        recommender: built with the method, trained in place.
        train: training batches.
        valid: validation batches, for the curve that is shown; nothing is chosen by them.
        settings: the ``compact.sizes`` section.
        targets: numbers of values to stop at.
        seed: of order and dropout.
        progress: where progress is shown.
        checkpoint: file to resume from and to write after every epoch.
        processes: that share each batch.
    """

    recommender: Recommender
    train: Batches
    valid: Batches
    settings: SizesConfig
    targets: list[int]
    seed: int = 0
    progress: Progress = field(default_factory=lambda: Progress(show=False))
    checkpoint: Path | None = None
    processes: Processes = ALONE

    def __post_init__(self) -> None:
        self.targets = sorted(set(self.targets), reverse=True)
        self._begin()
        self.forms: dict[int, list[Selection]] = {}
        self.epoch = 0
        self.seconds = 0.0
        self.history: list[dict[str, float]] = []
        self.total_steps = len(self.train) * self.settings.epochs
        if self.checkpoint is not None and self.checkpoint.exists():
            self._load(self.checkpoint)

    def _begin(self) -> None:
        self.tables = competing(self._methods())
        self.num_values = sum(table.weight.numel() for table in self.tables)
        self.optimizers = make_optimizers(self.recommender, self.settings)
        self.stride = -(-self.num_values // SAMPLED_VALUES)
        lookups = self.settings.batch_size * self.recommender.info.num_fields * self.tables[0].embedding_dim
        self.check_every = max(self.settings.check_every, 2 * self.num_values // lookups)

    def _methods(self) -> list[Method]:
        """The tables, which are those of methods."""
        return [cast(Method, table) for table in self.recommender.tables()]

    def run(self) -> SearchResult:
        """Search to the end.

        Raises: BudgetTooSmall: when a target was not reached.
        """
        while self.epoch < self.settings.epochs and self._missing():
            self._one_epoch()
            self.processes.check_same(self.recommender.parameters(), "weights and thresholds")
            if self.checkpoint is not None:
                self._save(self.checkpoint)
        missing = self._missing()
        if missing:
            kept = self._num_kept()
            raise BudgetTooSmall(
                f"search: {kept} values are left after {self.epoch} epochs, the budget was {missing[0]}; "
                "raise compact.sizes.epochs or the thresholds (compact.sizes.threshold_init), or use "
                "compact.sizes.regime=budget"
            )
        release(self.optimizers)
        return SearchResult(self.forms, self.history, self.seconds)

    def _num_kept(self) -> int:
        return sum(table.num_kept() for table in self.tables)

    def _missing(self) -> list[int]:
        return [target for target in self.targets if target not in self.forms]

    def _follow_budget(self, step: int, stride: int = 1) -> int | None:
        """Shift all thresholds so that as many values are kept as the schedule says.

        Args:
            stride: only every ``stride``-th row is looked at, and stands for the others.

        Returns: how many are kept now of the values looked at; None when no method follows a budget.
        """
        followers = [table for table in self._methods() if table.follows_budget]
        margins = [t.margins(*self._rows(t, stride)) for t in followers]
        if not margins:
            return None
        values = torch.cat([margin.flatten() for margin in margins if margin is not None])
        seen = values.numel() / sum(table.weight.numel() for table in followers)
        keep = self._scheduled(step, values.numel(), seen)
        if keep >= values.numel():
            return int((values > 0).sum())
        amount = _between(values, values.numel() - keep)
        for table in followers:
            table.shift_thresholds(amount)
        return int((values > amount).sum())

    def _scheduled(self, step: int, num_values: int, seen: float = 1.0) -> int:
        """How many of ``num_values``, the share ``seen`` of all, the schedule keeps at a step."""
        target = self.targets[-1] * seen
        share = (target / num_values) ** min(1.0, step / max(1, self.total_steps - 1))
        return max(round(target), int(share * num_values), 1)

    def _rows(self, table: Method, stride: int) -> tuple[Tensor, ...]:
        """Row numbers, and these rows of the table's parameters."""
        rows = torch.arange(0, table.num_embeddings, stride, device=table.weight.device)
        if stride == 1:
            return rows, *(p.detach() for p in table.row_parameters())
        (adam,) = (o for o in self.optimizers if isinstance(o, TableAdam))
        return rows, *adam.peek(table, rows)

    def _forms(self, target: int) -> list[Selection]:
        return forms_at(self._methods(), target)

    def _check(self, step: int, stride: int = 1) -> int:
        """Lead thresholds along the schedule, and save the forms of targets that are passed."""
        if stride == 1:
            flush(self.optimizers)
        seen = self._follow_budget(step, stride)
        if stride == 1:
            kept = self._num_kept()
        elif seen is not None:
            kept = stride * seen
        else:
            kept = sum(stride * table.num_kept_of(*self._rows(table, stride)) for table in self.tables)
        for target in self._missing():
            # thresholds that share a value fall together: a hair above the schedule's last point is there
            if kept <= target or (step >= self.total_steps and kept <= 1.01 * target):
                flush(self.optimizers)
                self.forms[target] = self._forms(target)
        return kept

    def _one_epoch(self) -> None:
        started = time.perf_counter()
        seed = epoch_seed(self.seed, "search", self.epoch)
        torch.manual_seed(self.processes.seed(seed))
        self.recommender.train()
        running = torch.zeros((), device=self.train.device)
        steps, kept = 0, self._num_kept()
        with self.progress.bar(self.train.num_rows, f"search {self.epoch + 1}/{self.settings.epochs}") as bar:
            for rows, ids, labels in self.train.epoch(seed):
                (targets,) = self.processes.share(labels)
                running += train_step(
                    self.recommender,
                    self.optimizers,
                    ids,
                    targets,
                    embedding_penalty=self.settings.embedding_penalty,
                    precision=self.settings.precision,
                    processes=self.processes,
                    weights=self.train.weights(rows, len(ids)),
                )
                steps += 1
                bar.update(rows.numel())
                if steps % self.check_every == 0:
                    kept = self._check(self.epoch * len(self.train) + steps, self.stride)
                    share = kept / self.num_values
                    bar.set_postfix_str(f"loss {float(running) / steps:.4f}, kept {kept:,} ({share:.1%})")
                    if not self._missing():
                        break
        self.epoch += 1
        kept = self._check(self.epoch * len(self.train))
        valid = evaluate(self.recommender, self.valid, self.processes)
        seconds = time.perf_counter() - started
        self.seconds += seconds
        entry = {
            "epoch": self.epoch,
            "train_loss": float(self.processes.total(running)) / (steps * self.processes.size),
            "valid_auc": valid["auc"],
            "valid_logloss": valid["logloss"],
            "kept": kept,
        }
        self.history.append(entry)
        rate = steps * self.train.batch_size / seconds
        self.progress.scalars("search", self.epoch, {**entry, "rows_per_second": rate})
        self.progress.say(
            f"search: epoch {self.epoch}, loss {entry['train_loss']:.4f}, valid AUC {valid['auc']:.4f}, "
            f"kept {kept:,} of {self.num_values:,}, {rate:,.0f} rows/s"
        )

    def _save(self, path: Path) -> None:
        if self.processes.is_first:
            save_state(path, self._state())

    def _load(self, path: Path) -> None:
        self._restore(load_state(path, self.train.device))

    def _state(self) -> dict[str, Any]:
        forms = {target: [(described(f), f.tensors()) for f in forms] for target, forms in self.forms.items()}
        return {
            "recommender": self.recommender.state_dict(),
            "optimizers": [o.state_dict() for o in self.optimizers],
            "forms": forms,
            "epoch": self.epoch,
            "seconds": self.seconds,
            "history": self.history,
        }

    def _restore(self, state: dict[str, Any]) -> None:
        self.recommender.load_state_dict(state["recommender"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.forms = {
            target: [read_selection(what, {name: t.cpu() for name, t in of.items()}) for what, of in forms]
            for target, forms in state["forms"].items()
        }
        self.epoch, self.seconds, self.history = state["epoch"], state["seconds"], state["history"]


def _between(values: Tensor, rank: int) -> float:
    """Half way between the ``rank``-th smallest value (from 1) and the next: rounding then moves neither across."""
    if values.device.type == "cpu":  # numpy needs a third of the time that two of PyTorch's kthvalue do
        parted = np.partition(values.numpy(), (rank - 1, rank))
        return float(parted[rank - 1] + parted[rank]) / 2
    return float(values.kthvalue(rank).values + values.kthvalue(rank + 1).values) / 2
