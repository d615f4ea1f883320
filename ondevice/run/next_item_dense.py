"""A run of the next item before it makes anything of its models: its data, its dense model, and what teaches others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ondevice import next_item
from ondevice.config.file import plain_options
from ondevice.config.sections import STARTS, Choice, Config, TeachConfig, TrainConfig
from ondevice.data import Dataset, load_dataset
from ondevice.data.kept import keep_fields
from ondevice.data.schema import Schema
from ondevice.errors import ConfigError, DataError
from ondevice.forms.table import TableInfo, table_info
from ondevice.models.item_attributes import ItemAttributes, attribute_fields
from ondevice.next_item import NextItemRecommender
from ondevice.run.effects import makes_compact
from ondevice.run.files import RunFiles
from ondevice.run.preflight import check_folder, check_options
from ondevice.run.teachers import other_run, other_teachers
from ondevice.training.checkpoint import load_next_item, save_next_item
from ondevice.training.fit import FitResult, count_parameters, select_device
from ondevice.training.next_item import NextItemFit, rank_next
from ondevice.training.processes import ALONE
from ondevice.training.progress import OnEpoch, Progress
from ondevice.training.ranking import by_group, summary, user_groups
from ondevice.training.rankings import RankingTeachers
from ondevice.training.windows import Log, Moments, Windows, gaps_of

DENSE = "dense"


class PreparedNextItem:
    """A run of the next item before its first phase, which trains its dense model where somebody asks for it.

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
        for name in other_teachers(config):  # one that is not there is told before a dense model is trained
            other_run(name)
        if config.research.start not in STARTS:
            other_run(config.research.start, "research.start")
        self.device = select_device(config.run.device)
        if config.run.threads:
            torch.set_num_threads(config.run.threads)
        self.dataset = load_dataset(config.data.name, **config.data.options)
        self.log = Log.of(self.dataset)
        self.info = item_info(self.dataset, torch.from_numpy(self.log.counts()))
        self.model_options = sequence_options("model", config.model, self.dataset.schema)
        self.files = RunFiles(self.folder, self.processes)
        self.files.claim(config, self.dataset)
        self.progress = Progress(self.folder / "events", show=config.run.progress, on_epoch=on_epoch)
        self.state = self.files.state

    def dense(self) -> NextItemRecommender:
        """The dense model: trained, or read back."""
        if DENSE not in self.state:
            self._train()
        return load_next_item(self.folder / DENSE, self.info).to(self.device)

    def teachers(
        self, teach: TeachConfig, settings: TrainConfig, last: int, temperature: float | str = 1.0
    ) -> RankingTeachers | None:
        """The teachers that a section names, for a pupil that reads the ``last`` items and is trained by ``settings``.

        Raises: UserError: when one is not there, or was trained on other data.
        """
        if not teach.teachers:
            return None
        models = [self.dense() if name == DENSE else self.other_dense(name) for name in teach.teachers]
        assert not isinstance(temperature, str), "check_options lets no other through"
        return RankingTeachers(models, teach, last, temperature, settings.precision)

    def other_dense(self, name: str, said: str = "teacher") -> NextItemRecommender:
        """The dense model of a finished run of the next item on the same data.

        Args:
            said: what it is, for an error.

        Raises: UserError: when there is none, or it was trained on other data.
        """
        run, which = other_run(name, said)
        if (run.path / "fingerprint").read_text().strip() != self.dataset.fingerprint:
            raise DataError(
                f"{said} {name}: trained on other data or another split; train it with this data section"
            )
        return load_next_item(run.path / which, self.info).to(self.device)

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
        if not makes_compact(config) and config.research.start not in STARTS:
            self._begin(recommender, config.research.start)
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
            teacher=self.teachers(config.teach, settings, last),
        )
        result = fit.run()
        recommender = recommender.baked()  # from here on items have one row, as programs store it
        self.processes.only_first(
            lambda: save_next_item(self.folder / DENSE, recommender, config.model.name, self.model_options)
        )
        entry = self.entry(DENSE, recommender, result)
        self.files.remember(**{DENSE: entry}, history={**self.state["history"], DENSE: result.history})
        self.files.forget(DENSE)

    def _begin(self, recommender: NextItemRecommender, start: str) -> None:
        """Give a dense model the weights of another run's, so that it goes on from there.

        Raises: UserError: when that run is not there, or its dense model has another shape.
        """
        read = self.other_dense(start, "research.start").state_dict()
        given = {
            name: value for name, value in read.items() if not name.endswith(".keep")
        }  # every value is kept
        weights = recommender.state_dict()
        sizes, needed = ({n: v.shape for n, v in each.items()} for each in (given, weights))
        if sizes != needed:
            other = next(n for n in sizes | needed if sizes.get(n) != needed.get(n))
            raise ConfigError(
                f"research.start: the dense model of {start} has another shape ({other}); name a run of this model "
                "with this embedding.dim, and data whose items have no attributes"
            )
        recommender.load_state_dict(given)

    def _attributes(self) -> ItemAttributes | None:
        attributes = ItemAttributes.of(self.dataset, self.config.embedding.dim)
        if attributes is None and self.config.train.item_dropout:
            raise ConfigError(
                f"train.item_dropout: got {self.config.train.item_dropout}, but items of schema "
                f"'{self.dataset.schema.name}' have no attributes to be ranked by; add fields of side item "
                "(data.fields=next_item_attributes), or use 0"
            )
        return attributes

    def entry(self, phase: str, recommender: NextItemRecommender, result: FitResult) -> dict[str, Any]:
        """What ``metrics.json`` says of the trained model; the test split is read here and nowhere else."""
        kept = recommender.num_kept() + count_parameters(recommender.model)
        entry: dict[str, Any] = {"parameters": kept}
        for split in ("valid", *(("test",) if self.config.run.test else ())):
            entry[split] = measured(self.log, recommender, split, self.info.counts)
        best, said = ("test", entry["test"]) if self.config.run.test else ("valid", entry["valid"])
        self.progress.say(
            f"{phase}: {best} NDCG@10 {said['all']['ndcg@10']:.4f}, HR@10 {said['all']['hr@10']:.4f}, "
            f"{result.epochs} epochs, {result.seconds:.0f} s"
        )
        return {**entry, "seconds": round(result.seconds, 2), "epochs": result.epochs}


def sequence_options(section: str, choice: Choice, schema: Schema) -> dict[str, Any]:
    """The options of a sequence model, which reads time gaps where the history of a schema has them.

    Raises: ConfigError: when the configuration says so, too.
    """
    options = plain_options(choice.options)
    if "gaps" in options:
        raise ConfigError(
            f"{section}.gaps: got {options['gaps']}, but that is for the data to say; set data.gaps, or gaps of the "
            "history in the table's schema"
        )
    return {**options, "gaps": True} if gaps_of(schema) is not None else options


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


def without_attributes(dataset: Dataset) -> Dataset:
    """A data set without the attributes of its items, which a trained model has in the items' rows."""
    left_out = attribute_fields(dataset.schema)
    if not left_out:
        return dataset
    return keep_fields(dataset, [f for f in range(len(dataset.schema.fields)) if f not in left_out])
