"""What the phases of a run work with: processes, data, files, and models that are not trained yet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ondevice.config.file import plain_options
from ondevice.config.sections import Config
from ondevice.data import load_dataset
from ondevice.errors import DataError
from ondevice.forms.base import Form
from ondevice.forms.table import TableInfo, table_info
from ondevice.methods import METHODS
from ondevice.methods.build import build
from ondevice.methods.sizing import skipped_id_map
from ondevice.recommender import Recommender, rebuild
from ondevice.run.budgets import Budgets
from ondevice.run.effects import is_next_item
from ondevice.run.files import RunFiles
from ondevice.run.preflight import check_classes, check_folder, check_options, check_sides
from ondevice.run.teachers import other_run, other_teachers
from ondevice.training.batches import Batches
from ondevice.training.fit import select_device
from ondevice.training.processes import join_job
from ondevice.training.progress import OnEpoch, Progress


class PreparedRun:
    """A run before its first phase: checked, joined by its processes, with its data read and its directory claimed.

    Args:
        config: the resolved configuration.
        folder: the run directory.
        resume: continue what is in the directory; without it the directory must be new.
        on_epoch: called after every epoch, as `Progress` says.

    Raises: UserError: when the directory is in use or was made by another configuration.
    """

    def __init__(
        self, config: Config, folder: str | Path, resume: bool = False, on_epoch: OnEpoch | None = None
    ) -> None:
        self.config = config
        self.folder = Path(folder)
        distributed = config.distributed
        self.processes, device = join_job(distributed.mode, config.run.device, distributed.timeout)
        with self.processes.guard():
            self._prepare(device, resume, on_epoch)

    def _prepare(self, device: str, resume: bool, on_epoch: OnEpoch | None) -> None:
        config = self.config
        self.processes.leaders_first(lambda: check_folder(self.folder, config, resume))
        check_options(config)
        for name in other_teachers(config):
            other_run(name)
        self.device = select_device(device)
        if config.run.threads:
            torch.set_num_threads(config.run.threads)
        self.dataset = self.processes.leaders_first(
            lambda: load_dataset(config.data.name, **config.data.options)
        )
        check_sides(config, self.dataset.schema)
        check_classes(self.dataset, config.run.test)
        for name in other_teachers(config):
            self._other_dense(name)
        vocabulary = self.dataset.vocabulary
        slots = self.dataset.schema.slots
        self.info = table_info(vocabulary.field_offsets, self.dataset.counts, vocabulary.key_texts, slots)
        self.model_options = plain_options(config.model.options)
        self.budgets = Budgets(config, self.dataset, self.info)  # of what compact models know
        self.compact_options, self.skip = self.budgets.model_options, self.budgets.skip
        self.files = RunFiles(self.folder, self.processes)
        self.files.claim(config, self.dataset)
        events = self.folder / "events" if self.processes.is_first else None
        show = config.run.progress and self.processes.is_first
        self.progress = Progress(events, show=show, on_epoch=on_epoch)
        self.valid = Batches(self.dataset.valid, 8192, self.device)
        self._train: dict[int, Batches] = {}
        self.state = self.files.state

    def train_batches(self, batch_size: int) -> Batches:
        if batch_size not in self._train:
            self._train[batch_size] = Batches(self.dataset.train, batch_size, self.device)
        return self._train[batch_size]

    def _other_dense(self, name: str) -> Recommender:
        """A dense model of another run, as a teacher: see `other_run`.

        Raises: DataError: when it was trained on other data.
        """
        other, which = other_run(name)
        if (other.path / "fingerprint").read_text().strip() != self.dataset.fingerprint:
            raise DataError(
                f"teacher {name}: trained on other data or another split; train it with this data section"
            )
        return other.dense(which)

    def _searching(self) -> Recommender:
        """The recommender of the search, with fresh weights."""
        sizes, embedding = self.config.compact.sizes, self.config.embedding
        options = METHODS[sizes.name].completed(sizes.options, self.config.compact.store.max_size)
        return self._fresh(sizes.name, options, embedding.first_order, skipped_id_map(self.info, self.skip))

    def _fresh(
        self,
        method: str,
        options: dict[str, Any],
        first_order: str | None,
        id_map: torch.Tensor | None = None,
        seed: int | None = None,
    ) -> Recommender:
        torch.manual_seed(self.config.run.seed if seed is None else seed)
        embedding = self.config.embedding
        if embedding.init_std is not None:
            options = {"init_std": embedding.init_std, **options}
        return build(
            self.info,
            model=self.config.model.name,
            model_options=self.model_options,
            method=method,
            method_options=options,
            embedding_dim=embedding.dim,
            first_order_method=first_order,
            id_map=id_map,
        ).to(self.device)

    def rebuilt(self, info: TableInfo, forms: list[Form], initial: Recommender | None) -> Recommender:
        """A compact recommender under ``forms``, from initial weights or drawn ones."""
        torch.manual_seed(self.config.run.seed)
        return rebuild(
            info,
            model=self.config.compact_model.name,
            model_options=self.compact_options,
            forms=forms,
            initial=initial,
            init_std=self.config.embedding.init_std,
            projected=self.config.compact.store.first_order == "projection",
        ).to(self.device)


def default_folder(config_path: str | Path, config: Config) -> Path:
    """runs/<config name>, or ``run.output``."""
    return Path(config.run.output) if config.run.output else Path("runs") / Path(config_path).stem


def describe(config: Config) -> str:
    """One line on what is about to run."""
    names = [config.data.name, config.model.name]
    if not is_next_item(config):
        names.append(config.compact.sizes.name)
    return f"{' · '.join(names)} · d={config.embedding.dim}"
