"""A run of the next item: its models trained and ranked over the whole catalogue, in a resumable directory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ondevice.data import Dataset
from ondevice.errors import UserError
from ondevice.files import atomic_write
from ondevice.next_item import NextItemRecommender
from ondevice.run.directory import Run
from ondevice.run.effects import makes_compact
from ondevice.run.next_item_compact import NextItemCompact
from ondevice.run.next_item_dense import DENSE, PreparedNextItem, item_info, measured, without_attributes
from ondevice.run.next_item_page import page
from ondevice.training.checkpoint import load_next_item

__all__ = [
    "DENSE",
    "NextItemPipeline",
    "is_next_item_run",
    "item_info",
    "load_run",
    "measured",
    "table_lines",
    "without_attributes",
]

REPORT = "report.html"
TASK = "next_item"
"""What ``metrics.json`` has under ``task``."""


class NextItemPipeline(PreparedNextItem):
    """Trains models of the next item in a run directory; what is done already is not done again.

    Arguments and errors are those of `PreparedNextItem`.
    """

    def run(self) -> dict[str, Any]:
        """Train, rank, write; returns what ``metrics.json`` holds."""
        if makes_compact(self.config):
            NextItemCompact(self).run()
        else:
            self.dense()
        metrics = {
            "task": TASK,
            "dataset": self.config.data.name,
            "model": self.config.model.name,
            "seed": self.config.run.seed,
            "device": str(self.device),
            "items": self.log.num_items,
            "users": len(self.log.offsets) - 1,
            **({DENSE: self.state[DENSE]} if DENSE in self.state else {}),
            **({"budgets": self.state["budgets"]} if "budgets" in self.state else {}),
            "history": self.state["history"],
        }
        atomic_write(self.folder / REPORT, page(self.folder.name, metrics))
        self.files.finish(metrics, self.dataset if self.config.run.test else None)
        self.progress.close()
        return metrics


def load_run(run: Run, label: str | None = None) -> tuple[NextItemRecommender, Dataset]:
    """A trained model of a run, in evaluation mode, and the data set without its rows.

    Args:
        run: a finished one.
        label: of a compact model; None for the dense one.

    Raises: UserError: when it is no run of the next item, has not finished, or has no such model.
    """
    metrics = run.metrics
    if not is_next_item_run(metrics):
        raise UserError(f"{run.path}: a run of ratings; name one of the next item")
    labels = list(metrics.get("budgets", {}))
    if label is None and DENSE not in metrics:
        raise UserError(
            f"{run.path}: has no dense model, since nothing asked for one; it has {', '.join(labels)}"
        )
    if label is not None and label not in labels:
        raise UserError(f"{run.path}: no compact model '{label}'; there are: {', '.join(labels) or 'none'}")
    folder = run.path / DENSE if label is None else run.path / "budgets" / label
    dataset = without_attributes(run.dataset(rows=False))
    return load_next_item(folder, item_info(dataset)), dataset


def is_next_item_run(metrics: Mapping[str, Any]) -> bool:
    """Whether metrics are those of a run of the next item."""
    return metrics.get("task") == TASK


def table_lines(metrics: Mapping[str, Any]) -> list[str]:
    """All users and each group, a line each, of the last split that was read."""
    entries = {name: metrics[name] for name in (DENSE,) if name in metrics} | metrics.get("budgets", {})
    names, users = ("hr@10", "ndcg@10", "recall@20", "mrr", "coverage@10"), metrics["users"]
    lines = []
    for model, entry in entries.items():
        split = "test" if "test" in entry else "valid"
        head = f"{split} split" if len(entries) == 1 else f"{model}, {split} split"
        lines.append(f"{head:36} {'users':>7} " + " ".join(f"{name:>11}" for name in names))
        for group, figures in entry[split].items():
            lines.append(
                f"{group:36} {figures.get('users', users):>7,} "
                + " ".join(f"{figures[name]:>11.4f}" for name in names)
            )
        lines.append(f"{entry['parameters']:,} values, {entry['epochs']} epochs, {entry['seconds']:.0f} s")
    return lines
