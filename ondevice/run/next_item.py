"""A run of the next item: its model trained and ranked over the whole catalogue, in a resumable directory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ondevice import next_item
from ondevice.config.file import plain_options
from ondevice.config.sections import Config
from ondevice.data import Dataset, load_dataset
from ondevice.data.kept import keep_fields
from ondevice.errors import ConfigError, UserError
from ondevice.files import atomic_write
from ondevice.forms.table import TableInfo, table_info
from ondevice.models.item_attributes import ItemAttributes, attribute_fields
from ondevice.next_item import NextItemRecommender
from ondevice.run.directory import Run
from ondevice.run.files import RunFiles
from ondevice.run.next_item_page import page
from ondevice.run.preflight import check_folder, check_options
from ondevice.training.checkpoint import load_next_item, save_next_item
from ondevice.training.fit import FitResult, count_parameters, select_device
from ondevice.training.next_item import NextItemFit, rank_next
from ondevice.training.processes import ALONE
from ondevice.training.progress import OnEpoch, Progress
from ondevice.training.ranking import by_group, summary, user_groups
from ondevice.training.windows import Log, Moments, Windows

DENSE = "dense"
REPORT = "report.html"
TASK = "next_item"
"""What ``metrics.json`` has under ``task``."""


class NextItemPipeline:
    """Trains a model of the next item in a run directory; what is done already is not done again.

    Args:
        config: the resolved configuration.
        folder: the run directory.
        resume: continue what is in the directory; without it the directory must be new.
        on_epoch: called after every epoch, as `Progress` says.

    Raises: UserError: when the directory is in use or was made by another configuration, or the data have no
        sequences.
    """

    def __init__(
        self, config: Config, folder: str | Path, resume: bool = False, on_epoch: OnEpoch | None = None
    ) -> None:
        self.config, self.folder, self.processes = config, Path(folder), ALONE
        check_folder(self.folder, config, resume)
        check_options(config)
        self.device = select_device(config.run.device)
        if config.run.threads:
            torch.set_num_threads(config.run.threads)
        self.dataset = load_dataset(config.data.name, **config.data.options)
        self.log = Log.of(self.dataset)
        self.info = item_info(self.dataset, torch.from_numpy(self.log.counts()))
        self.model_options = plain_options(config.model.options)
        self.files = RunFiles(self.folder, self.processes)
        self.files.claim(config, self.dataset)
        self.progress = Progress(self.folder / "events", show=config.run.progress, on_epoch=on_epoch)
        self.state = self.files.state

    def run(self) -> dict[str, Any]:
        """Train, rank, write; returns what ``metrics.json`` holds."""
        if DENSE not in self.state:
            self._train()
        metrics = {
            "task": TASK,
            "dataset": self.config.data.name,
            "model": self.config.model.name,
            "seed": self.config.run.seed,
            "device": str(self.device),
            "items": self.log.num_items,
            "users": len(self.log.offsets) - 1,
            DENSE: self.state[DENSE],
            "history": self.state["history"],
        }
        atomic_write(self.folder / REPORT, page(self.folder.name, metrics))
        self.files.finish(metrics, self.dataset if self.config.run.test else None)
        self.progress.close()
        return metrics

    def _train(self) -> None:
        config, settings = self.config, self.config.train
        torch.manual_seed(config.run.seed)
        recommender = next_item.build(
            self.info,
            model=config.model.name,
            model_options=self.model_options,
            dim=config.embedding.dim,
            init_std=config.embedding.init_std,
            attributes=self._attributes(),
        ).to(self.device)
        last = recommender.model.last
        fit = NextItemFit(
            recommender,
            Windows(self.log, last, settings.windows, settings.batch_size, self.device),
            Moments.of(self.log, "valid", last),
            settings,
            seed=config.run.seed,
            phase=DENSE,
            progress=self.progress,
            checkpoint=self.files.checkpoint(DENSE),
        )
        result = fit.run()
        name, attributes = config.model.name, recommender.attributes
        recommender = recommender.baked()  # from here on items have one row, as programs store it
        self.processes.only_first(
            lambda: save_next_item(self.folder / DENSE, recommender, name, self.model_options, attributes)
        )
        entry = self._entry(recommender, result)
        self.files.remember(**{DENSE: entry}, history={DENSE: result.history})
        self.files.forget(DENSE)

    def _attributes(self) -> ItemAttributes | None:
        attributes = ItemAttributes.of(self.dataset, self.config.embedding.dim)
        if attributes is None and self.config.train.item_dropout:
            raise ConfigError(
                f"train.item_dropout: got {self.config.train.item_dropout}, but items of schema "
                f"'{self.dataset.schema.name}' have no attributes to be ranked by; add fields of side item "
                "(data.fields=next_item_attributes), or use 0"
            )
        return attributes

    def _entry(self, recommender: NextItemRecommender, result: FitResult) -> dict[str, Any]:
        """What ``metrics.json`` says of the trained model; the test split is read here and nowhere else."""
        entry: dict[str, Any] = {"parameters": count_parameters(recommender)}
        for split in ("valid", *(("test",) if self.config.run.test else ())):
            entry[split] = measured(self.log, recommender, split, self.info.counts)
        best, said = ("test", entry["test"]) if self.config.run.test else ("valid", entry["valid"])
        self.progress.say(
            f"{DENSE}: {best} NDCG@10 {said['all']['ndcg@10']:.4f}, HR@10 {said['all']['hr@10']:.4f}, "
            f"{result.epochs} epochs, {result.seconds:.0f} s"
        )
        return {**entry, "seconds": round(result.seconds, 2), "epochs": result.epochs}


def measured(
    log: Log, recommender: NextItemRecommender, split: str, counts: Tensor
) -> dict[str, dict[str, float]]:
    """Metrics over all moments of a split (``all``) and by group, in float32.

    Args:
        counts: of each id in training.
    """
    moments = Moments.of(log, split, recommender.model.last)
    ranking = rank_next(recommender, moments)
    groups = user_groups(moments.lengths, counts.cpu()[moments.targets.items + 1])
    return {"all": summary(ranking), **by_group(ranking, groups)}


def item_info(dataset: Dataset, counts: Tensor | None = None) -> TableInfo:
    """What the table of a data set's items knows.

    Args:
        counts: of each item id in training, the unknown one first; None: those of the data set.
    """
    schema, vocabulary = dataset.schema, dataset.vocabulary
    assert schema.item_key is not None, "a data set with sequences names its items"
    field = schema.names.index(schema.item_key)
    begin, end = (int(offset) for offset in vocabulary.field_offsets[field : field + 2])
    item_counts = torch.as_tensor(dataset.counts[begin:end].copy()) if counts is None else counts
    return table_info([0, end - begin], item_counts, lambda: vocabulary.key_texts()[begin:end])


def load_run(run: Run) -> tuple[NextItemRecommender, Dataset]:
    """The trained model of a run, in evaluation mode, and the data set without its rows.

    Raises: UserError: when it is no run of the next item, or has not finished.
    """
    if not is_next_item_run(run.metrics):
        raise UserError(f"{run.path}: a run of ratings; name one of the next item")
    dataset = without_attributes(run.dataset(rows=False))
    return load_next_item(run.path / DENSE, item_info(dataset)), dataset


def without_attributes(dataset: Dataset) -> Dataset:
    """A data set without the attributes of its items, which a trained model has in the items' rows."""
    left_out = attribute_fields(dataset.schema)
    if not left_out:
        return dataset
    return keep_fields(dataset, [f for f in range(len(dataset.schema.fields)) if f not in left_out])


def is_next_item_run(metrics: Mapping[str, Any]) -> bool:
    """Whether metrics are those of a run of the next item."""
    return metrics.get("task") == TASK


def table_lines(metrics: Mapping[str, Any]) -> list[str]:
    """All users and each group, a line each, of the last split that was read."""
    entry = metrics[DENSE]
    split = "test" if "test" in entry else "valid"
    names = ("hr@10", "ndcg@10", "recall@20", "mrr", "coverage@10")
    lines = [f"{split + ' split':36} {'users':>7} " + " ".join(f"{name:>11}" for name in names)]
    users = metrics["users"]
    for group, figures in entry[split].items():
        lines.append(
            f"{group:36} {figures.get('users', users):>7,} "
            + " ".join(f"{figures[name]:>11.4f}" for name in names)
        )
    return [*lines, f"{entry['parameters']:,} values, {entry['epochs']} epochs, {entry['seconds']:.0f} s"]
