"""One training with early stopping on validation: resumable, and the same when resumed."""

from __future__ import annotations

import math
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ondevice.config.sections import TrainConfig
from ondevice.errors import ConfigError
from ondevice.recommender import Recommender
from ondevice.training.average import WeightAverage
from ondevice.training.batches import Batch, Batches
from ondevice.training.checkpoint import load_state, save_state
from ondevice.training.metrics import auc, log_loss
from ondevice.training.optimizers.table_adam import flush, release
from ondevice.training.processes import ALONE, Processes
from ondevice.training.progress import Progress
from ondevice.training.stages import MakeStages
from ondevice.training.step import make_optimizers, train_step
from ondevice.training.teacher import Teacher


def epoch_seed(seed: int, phase: str, epoch: int) -> int:
    """The seed of one epoch's order and dropout: no generator state has to be saved for a resume."""
    return zlib.crc32(f"{seed}/{phase}/{epoch}".encode())


def select_device(name: str) -> torch.device:
    """The device of ``run.device``; ``auto`` is a GPU when there is one.

    Raises: ConfigError: when the device cannot be used here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"run.device: '{name}' cannot be used here ({reason}); use auto or cpu") from None
    return device


@torch.no_grad()
def predict(
    recommender: Recommender, batches: Batches, processes: Processes = ALONE
) -> tuple[Tensor, Tensor]:
    """Labels and scores (probabilities) of a split in its own order, on the CPU."""
    training = recommender.training
    recommender.eval()
    labels, scores = [], []
    for ids, label in batches.in_order():
        labels.append(label.cpu())
        share = torch.sigmoid(recommender(*processes.share(ids)))
        scores.append(processes.join(share, len(ids)).cpu())
    recommender.train(training)
    return torch.cat(labels), torch.cat(scores)


def evaluate(recommender: Recommender, batches: Batches, processes: Processes = ALONE) -> dict[str, float]:
    """Global AUC and log loss of a split, by the weights of its rows where it has them."""
    labels, scores = predict(recommender, batches, processes)
    weights = batches.row_weights
    return {"auc": auc(labels, scores, weights), "logloss": log_loss(labels, scores, weights)}


@dataclass
class FitResult:
    """What a training ended with.

    Args:
        valid: validation metrics of the kept epoch.
        history: one entry per epoch.
        epochs: passes that were made.
        seconds: time spent training, over all resumes.
    """

    valid: dict[str, float]
    history: list[dict[str, float]]
    epochs: int
    seconds: float


@dataclass
class Fit:
    """Train a recommender until its validation metric stops improving; it ends with the best epoch's weights.

    ``metrics`` names what a validation gives: the first one decides, and more of it is better.

    Args:
        recommender: what is trained, in place.
        train: training batches.
        valid: validation batches.
        settings: the training's section of the config.
        seed: of order and dropout.
        phase: name for seeds, logs and the checkpoint.
        progress: where progress is shown.
        checkpoint: file to resume from and to write after every epoch; None for neither.
        teacher: whose predictions are learnt beside the labels.
        processes: that share each batch.
        make_stages: makes what changes in the model while it is trained; tables of codes need theirs
            (`ondevice.methods.code_search.code_stages`).
        embedding_dropout: probability of zeroing a looked-up value.
    """

    recommender: Recommender
    train: Batches
    valid: Batches
    settings: TrainConfig
    seed: int = 0
    phase: str = "dense"
    progress: Progress = field(default_factory=lambda: Progress(show=False))
    checkpoint: Path | None = None
    teacher: Teacher | None = None
    processes: Processes = ALONE
    make_stages: MakeStages | None = None
    embedding_dropout: float = 0.0
    metrics: ClassVar[tuple[str, ...]] = ("auc", "logloss")

    def __post_init__(self) -> None:
        self.stages = None
        if self.make_stages is not None:
            seed = epoch_seed(self.seed, self.phase, 0) + 3
            self.stages = self.make_stages(
                self.recommender,
                self.settings,
                self.train,
                self.teacher,
                seed,
                self.processes,
                self._levels(),
            )
        assert self.stages is not None or all(table.is_final for table in self.recommender.tables())
        self.optimizers = self._make_optimizers()
        decay = self.settings.ema_decay
        every = self.settings.ema_every
        self.average = WeightAverage(self.recommender, decay, every, self.optimizers) if decay else None
        self.epoch = 0
        self.seconds = 0.0
        self.history: list[dict[str, float]] = []
        self.best: dict[str, Tensor] = {}
        if self.checkpoint is not None and self.checkpoint.exists():
            self._load(self.checkpoint)

    def _make_optimizers(self) -> list[torch.optim.Optimizer]:
        return make_optimizers(self.recommender, self.settings)

    def run(self) -> FitResult:
        """Train to the end."""
        while not self._is_over():
            self._one_epoch()
            self.processes.check_same(self.recommender.parameters(), "weights")
            if self.checkpoint is not None:
                self._save(self.checkpoint)
        release(self.optimizers)
        self._take_best()
        self.recommender.eval()
        kept = max(self._final(), key=lambda entry: entry[self._decides])
        valid = {name: kept[f"valid_{name}"] for name in self.metrics}
        return FitResult(valid, self.history, self.epoch, self.seconds)

    @property
    def _decides(self) -> str:
        """The entry of an epoch that says how good it was."""
        return f"valid_{self.metrics[0]}"

    def _is_over(self) -> bool:
        if self.epoch >= self.settings.epochs:
            return True
        final = self._final()
        if not final:
            return False
        best = max(range(len(final)), key=lambda i: final[i][self._decides])
        return len(final) - 1 - best >= self.settings.patience

    def _final(self) -> list[dict[str, float]]:
        """The epochs that ended with values of the kind that ships."""
        return [entry for entry in self.history if entry["final"]]

    def _levels(self) -> Callable[[int], None] | None:
        """What changes the level of a table between batches, where one does."""
        return None

    def _begin_step(self, step: int) -> None:
        """What happens to the model before a step, counted from 0."""
        self._change_stage(step)

    def _validate(self) -> dict[str, float]:
        """Validation `metrics` of the model as it is, and what else is to be shown."""
        return evaluate(self.recommender, self.valid, self.processes)

    def _change_stage(self, step: int) -> None:
        """What changes in the model before a step; training then goes on from the averaged weights."""
        if self.stages is None or not self.stages.is_due(step):
            return
        flush(self.optimizers)
        if self.average is not None:
            self.average.adopt()
        if self.stages.at(step):  # momentum along axes that are gone is no help
            for optimizer in self.optimizers:
                for state in optimizer.state.values():
                    if "exp_avg" in state:
                        state["exp_avg"].zero_()
        if self.average is not None:
            self.average.restart()

    def _learning_rate(self, step: int) -> float:
        base, begin, end = self.settings.learning_rate, 0.0, float(len(self.train) * self.settings.epochs)
        if self.stages is not None:
            base, begin, end = self.stages.rate(step)
        if self.settings.warmup:
            base *= min(1.0, (step + 1 - begin) / (self.settings.warmup * (end - begin)))
        if self.settings.schedule == "constant":
            return base
        return base * 0.5 * (1 + math.cos(math.pi * (step - begin) / (end - begin)))

    def _set_learning_rate(self, rate: float) -> None:
        for group in self.optimizers[0].param_groups:
            group["lr"] = rate

    def _one_epoch(self) -> None:
        started = time.perf_counter()
        seed = epoch_seed(self.seed, self.phase, self.epoch)
        torch.manual_seed(self.processes.seed(seed))
        generator = torch.Generator().manual_seed(seed + 1)
        self.recommender.train()
        best = max((e[self._decides] for e in self._final()), default=0.0)
        title = f"{self.phase} {self.epoch + 1}/{self.settings.epochs}"
        running = torch.zeros((), device=self.train.device)
        steps = 0
        with self.progress.bar(self.train.num_rows, title) as bar:
            for batch in self.train.epoch(seed):
                step = self.epoch * len(self.train) + steps
                self._begin_step(step)
                rate = self._learning_rate(step)
                self._set_learning_rate(rate)
                running += self._train_step(batch, generator)
                steps += 1
                for table in self.recommender.tables():
                    table.step_end(step + 1)
                if self.average is not None:
                    self.average.after_step(step + 1)
                bar.update(len(batch[0]))
                if steps % 50 == 0:
                    bar.set_postfix_str(
                        f"loss {float(running) / steps:.4f}, best valid {self.metrics[0].upper()} {best:.4f}"
                    )
        flush(self.optimizers)
        mean = float(self.processes.total(running)) / (steps * self.processes.size)
        if self.average is not None:
            with self.average.applied():
                self._finish_epoch(mean, started)
        else:
            self._finish_epoch(mean, started)

    def _train_step(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """One step on a batch of an epoch; its loss.

        Args:
            batch: what the training batches give.
            generator: of random draws of this epoch.
        """
        rows, ids, labels = batch
        if self.teacher is not None:
            ids, targets = self.teacher.extend(rows, ids, labels, generator)
        else:
            (targets,) = self.processes.share(labels)
        return train_step(
            self.recommender,
            self.optimizers,
            ids,
            targets,
            embedding_penalty=self.settings.embedding_penalty,
            embedding_dropout=self.embedding_dropout,
            precision=self.settings.precision,
            processes=self.processes,
            weights=self.train.weights(rows, len(ids)),
        )

    def _finish_epoch(self, train_loss: float, started: float) -> None:
        valid = self._validate()
        final = all(table.is_final for table in self.recommender.tables())
        best = max((entry[self._decides] for entry in self._final()), default=-1.0)
        if final and valid[self.metrics[0]] > best:
            self._keep_best()
        self.epoch += 1
        seconds = time.perf_counter() - started
        self.seconds += seconds
        entry = {
            "epoch": self.epoch,
            "train_loss": train_loss,
            **{f"valid_{name}": value for name, value in valid.items()},
            "kept": self.recommender.num_kept(),
            "final": final,
        }
        self.history.append(entry)
        rate = self.train.num_rows / seconds
        self.progress.scalars(self.phase, self.epoch, {**entry, "rows_per_second": rate})
        self.progress.say(
            f"{self.phase}: epoch {self.epoch}, loss {train_loss:.4f}, valid {self.metrics[0].upper()} "
            f"{valid[self.metrics[0]]:.4f}, "
            f"{rate:,.0f} rows/s"
        )

    def _keep_best(self) -> None:
        state = self.recommender.state_dict()  # of packed rows, whose columns are copied alone
        self.best = {
            name: value.clone(memory_format=torch.contiguous_format) for name, value in state.items()
        }

    def _take_best(self) -> None:
        self.recommender.load_state_dict(self.best)

    def _save(self, path: Path) -> None:
        if self.processes.is_first:
            save_state(path, self._state())

    def _load(self, path: Path) -> None:
        self._restore(load_state(path, self.train.device))

    def _state(self) -> dict[str, Any]:
        state: dict[str, Any] = {
            "recommender": self.recommender.state_dict(),
            "optimizers": [o.state_dict() for o in self.optimizers],
            "best": self.best,
            "epoch": self.epoch,
            "seconds": self.seconds,
            "history": self.history,
        }
        if self.average is not None:
            state["average"] = self.average.average
            state["average_updates"] = self.average.updates
        return state

    def _restore(self, state: dict[str, Any]) -> None:
        self.recommender.load_state_dict(state["recommender"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.best, self.epoch = state["best"], state["epoch"]
        self.seconds, self.history = state["seconds"], state["history"]
        if self.average is not None:
            torch._foreach_copy_(self.average.average, state["average"])
            self.average.updates = state["average_updates"]


def count_parameters(module: nn.Module) -> int:
    """Number of trainable values."""
    return sum(p.numel() for p in module.parameters())
