"""Training and search of sharded recommenders, with checkpoints of which every process writes its rows."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ondevice.config.sections import DistributedConfig
from ondevice.errors import DamagedFile
from ondevice.files import atomic_json
from ondevice.methods.search import Search
from ondevice.sharded.checkpoint import load_rows, save_rows
from ondevice.sharded.recommender import WEIGHT, ShardedRecommender
from ondevice.training.checkpoint import load_state, save_state
from ondevice.training.fit import Fit

LATEST = "latest.json"


class Epochs:
    """A folder of checkpoints, a subfolder per epoch: the latest, and the best where there is one.

    Args:
        folder: one that all machines see.
        recommender: whose rows and other weights are written and read.
    """

    def __init__(self, folder: Path, recommender: ShardedRecommender) -> None:
        self.folder, self.recommender, self.processes = folder, recommender, recommender.processes

    def _of(self, epoch: int) -> Path:
        return self.folder / f"epoch-{epoch}"

    def save(
        self, epoch: int, best: int, state: dict[str, Any], more: dict[str, Tensor] | None = None
    ) -> None:
        """Write an epoch; it counts once all processes have, and the others but ``best`` go.

        Args:
            epoch: its number.
            best: the one that is kept beside it.
            state: what every process has alike.
            more: further values by own row.
        """
        save_rows(
            self._of(epoch) / "rows",
            self.recommender.store,
            {**self.recommender.store.state(), **(more or {})},
        )
        content = {**state, "whole": self.recommender.whole_state()}
        self.processes.only_first(lambda: self._close(epoch, best, content))

    def _close(self, epoch: int, best: int, content: dict[str, Any]) -> None:
        save_state(self._of(epoch) / "state.pt", content)
        atomic_json(self.folder / LATEST, {"epoch": epoch})
        for other in self.folder.glob("epoch-*"):
            if other not in (self._of(epoch), self._of(best)):
                shutil.rmtree(other)

    def latest(self) -> int | None:
        """The epoch to resume from; None when there is none."""
        try:
            return int(json.loads((self.folder / LATEST).read_text())["epoch"])
        except FileNotFoundError:
            return None
        except (ValueError, KeyError) as error:
            raise DamagedFile(
                f"{self.folder / LATEST}: damaged ({error}); delete {self.folder} to train that phase anew"
            ) from None

    def load(self, epoch: int, only_weights: bool = False) -> dict[str, Any]:
        """Read an epoch into the recommender; returns the state it was saved with."""
        state = load_state(self._of(epoch) / "state.pt", self.recommender.device)
        self.recommender.load_whole_state(state["whole"])
        rows = self.recommender.store.state()
        self.load_rows(epoch, {WEIGHT: rows[WEIGHT]} if only_weights else rows)
        return state

    def load_rows(self, epoch: int, rows: dict[str, Tensor]) -> None:
        """Read values by own row into ``rows``."""
        load_rows(self._of(epoch) / "rows", self.recommender.store, rows)


@dataclass
class ShardedFit(Fit):
    """`Fit` of a sharded recommender; ``checkpoint`` is a folder, and the best epoch stays in it.

    Args:
        distributed: optimizer and learning rate of the table.
    """

    recommender: ShardedRecommender  # type: ignore[assignment]
    distributed: DistributedConfig = field(default_factory=DistributedConfig)

    def __post_init__(self) -> None:
        assert self.checkpoint is not None, "the best epoch of a sharded table is kept on disk"
        self.epochs = Epochs(self.checkpoint, self.recommender)
        self.best_epoch = 0
        super().__post_init__()

    def _make_optimizers(self) -> list[torch.optim.Optimizer]:
        return [torch.optim.Adam(self.recommender.parameters(), lr=self.settings.learning_rate)]

    def _set_learning_rate(self, rate: float) -> None:
        super()._set_learning_rate(rate)
        table_rate = self.distributed.table_learning_rate or self.settings.learning_rate
        self.recommender.store.set_learning_rate(WEIGHT, rate * table_rate / self.settings.learning_rate)

    def _keep_best(self) -> None:
        self.best_epoch = self.epoch + 1  # the one that is about to be saved

    def _take_best(self) -> None:
        self.epochs.load(self.best_epoch, only_weights=True)

    def _save(self, path: Path) -> None:
        state = {
            "optimizer": self.optimizers[0].state_dict(),
            "best_epoch": self.best_epoch,
            "epoch": self.epoch,
            "seconds": self.seconds,
            "history": self.history,
        }
        self.epochs.save(self.epoch, self.best_epoch, state)

    def _load(self, path: Path) -> None:
        latest = self.epochs.latest()
        if latest is None:
            return
        state = self.epochs.load(latest)
        self.optimizers[0].load_state_dict(state["optimizer"])
        self.best_epoch, self.epoch = state["best_epoch"], state["epoch"]
        self.seconds, self.history = state["seconds"], state["history"]


@dataclass
class ShardedSearch(Search):
    """`Search` with sharded weights and thresholds; a form is the sizes of the process's own rows, uint8."""

    recommender: ShardedRecommender  # type: ignore[assignment]

    def __post_init__(self) -> None:
        assert self.checkpoint is not None, "sharded tables are checkpointed in a folder"
        self.epochs = Epochs(self.checkpoint, self.recommender)
        super().__post_init__()

    def _begin(self) -> None:
        self.num_values = self.recommender.num_values()
        self.stride, self.check_every = 1, self.settings.check_every
        self.optimizers = [torch.optim.Adam(self.recommender.parameters(), lr=self.settings.learning_rate)]

    def _num_kept(self) -> int:
        return self.recommender.num_kept()

    def _follow_budget(self, step: int, stride: int = 1) -> None:
        keep = self._scheduled(step, self.num_values)
        if keep < self.num_values:
            self.recommender.keep(keep)

    def _forms(self, target: int) -> list[Any]:
        return self.recommender.sizes_at(target)

    def _rows_by_name(self) -> dict[str, Tensor]:
        """The sizes at targets already passed, as rows of a checkpoint."""
        return {f"sizes.{t}.{i}": part for t, parts in self.forms.items() for i, part in enumerate(parts)}  # type: ignore[misc]

    def _save(self, path: Path) -> None:
        state = {
            "optimizer": self.optimizers[0].state_dict(),
            "targets": list(self.forms),
            "epoch": self.epoch,
            "seconds": self.seconds,
            "history": self.history,
        }
        self.epochs.save(self.epoch, self.epoch, state, self._rows_by_name())

    def _load(self, path: Path) -> None:
        latest = self.epochs.latest()
        if latest is None:
            return
        state = self.epochs.load(latest)
        self.optimizers[0].load_state_dict(state["optimizer"])
        self.epoch, self.seconds, self.history = state["epoch"], state["seconds"], state["history"]
        self.forms = {t: self.recommender.empty_sizes() for t in state["targets"]}  # type: ignore[misc]
        self.epochs.load_rows(latest, self._rows_by_name())
