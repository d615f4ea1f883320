"""What can be known to be wrong before anything is written or trained."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ondevice.config.budget import parse_budget
from ondevice.config.file import plain_options
from ondevice.config.sections import NEXT_ITEM_LOSSES, SCHEDULE, STARTS, Config
from ondevice.data.dataset import Dataset
from ondevice.data.schema import Schema
from ondevice.data.slots import Slots
from ondevice.errors import ConfigError, DataError, UserError, nearest
from ondevice.forms.table import TableInfo
from ondevice.methods import METHODS
from ondevice.models import MODELS, BaseModel
from ondevice.models.base import make_model
from ondevice.models.sequences import SEQUENCE_MODELS
from ondevice.run.directory import CONFIG, read_config
from ondevice.run.effects import check_effects, is_next_item, makes_compact
from ondevice.training import qat
from ondevice.training.rank_rows import check_ranked
from ondevice.training.teacher import dense_number

PLACES = ("path", "folder", "schema", "tables", "memory", "workers")
"""Options of data sets that say where and how data are read, not what they are."""


def check_options(config: Config) -> None:
    """Make the model and the method once at the smallest size, so that wrong options end the run at once.

    Raises: ConfigError: for an unknown name or option, a value that an option does not take, or sections that
        exclude one another.
    """
    if is_next_item(config):
        _check_next_item(config)
        return
    if config.model.name not in MODELS:
        names = [*MODELS, *SEQUENCE_MODELS]
        raise ConfigError(f"model: unknown model '{config.model.name}' {nearest(config.model.name, names)}")
    for section, settings in (("train", config.train), ("compact.train", config.compact.train)):
        if settings.loss != "bce":
            raise ConfigError(
                f"{section}.loss: got {settings.loss}, which is of the next item, but model '{config.model.name}' "
                f"learns rows; use bce, or model.name={' or '.join(SEQUENCE_MODELS)}"
            )
    start = config.research.start
    if start not in STARTS:
        raise ConfigError(
            f"research.start: got '{start}'; it must be {', '.join(STARTS[:-1])} or {STARTS[-1]}"
        )
    MODELS.check_options(config.model.name, config.model.options, "model")
    sizes, store = config.compact.sizes, config.compact.store
    METHODS.check_options(sizes.name, sizes.options, "compact.sizes", SCHEDULE)
    smallest = TableInfo(torch.tensor([0, 2, 4]), torch.ones(4, dtype=torch.int64))
    with _says_which("model", config.model.name, config.model.options):
        _smallest(config.model.name, config.embedding.dim, config.model.options)
    compact = config.compact_model
    MODELS.check_options(compact.name, compact.options, "compact.model")
    with _says_which("compact.model", compact.name, compact.options):
        compact_model = _smallest(compact.name, config.embedding.dim, compact.options)
    qat.prepare(compact_model, store.linear_bits)
    with _says_which("compact.sizes", sizes.name, sizes.options):
        method = METHODS[sizes.name](smallest, 2, **sizes.options)
    if config.embedding.first_order is not None and config.embedding.first_order not in METHODS:
        METHODS.check_options(config.embedding.first_order, {}, "embedding.first_order")
    if store.keeps_positions and not method.finds_positions:
        raise ConfigError(
            f"compact.store.name: method '{sizes.name}' ends in sizes, not positions; use compact.store=int8"
        )
    method.check(config)
    in_bytes = [b for b in config.compact.budgets if parse_budget(b)[0] == "bytes"]
    if store.keeps_positions and in_bytes:
        raise ConfigError(
            f"compact.budgets: {in_bytes[0]} is in bytes, which are met by sizes; use compact.store=int8, or a "
            "number of values or a share"
        )
    if config.compact.train.elastic and len(config.compact.budgets) < 2:
        raise ConfigError(
            "compact.train.elastic: one training makes several budgets, but compact.budgets has "
            f"{config.compact.budgets[0]} alone; name the smallest and the largest, or set elastic=false"
        )
    if any(dense_number(name) is not None for name in config.teach.teachers):
        raise ConfigError(
            "teach.teachers: the dense model cannot be its own teacher; set compact.teach.teachers"
        )
    check_effects(config)


def _smallest(name: str, dim: int, options: dict[str, Any]) -> BaseModel:
    """A base model over two fields, of which the first is a history where it reads some."""
    slots = Slots((1, 1), ("mean", None), (1, 1)) if MODELS[name].reads_histories else Slots.single(2)
    return make_model(name, slots, dim, plain_options(options))


def _check_next_item(config: Config) -> None:
    model = config.model
    SEQUENCE_MODELS.check_options(model.name, model.options, "model")
    with _says_which("model", model.name, model.options):
        SEQUENCE_MODELS[model.name](config.embedding.dim, **plain_options(model.options))
    if config.train.loss not in NEXT_ITEM_LOSSES:
        raise ConfigError(
            f"train.loss: got {config.train.loss}, which learns rows, but model '{model.name}' learns the next item; "
            f"use {', '.join(NEXT_ITEM_LOSSES)}"
        )
    if config.distributed.mode != "none":
        raise ConfigError(
            f"distributed.mode: got {config.distributed.mode}, but a model of the next item is trained by one "
            "process; use none"
        )
    if config.teach.teachers and config.train.loss != "softmax":
        raise ConfigError(f"train.loss: got {config.train.loss}, but teachers rank all items; use softmax")
    _check_dense_teachers("teach", config.teach.teachers, with_dense=False)
    if makes_compact(config):
        _check_compact_next_item(config)
    check_effects(config)


def _check_compact_next_item(config: Config) -> None:
    compact, choice, dim = config.compact, config.compact_model, config.embedding.dim
    for budget in compact.budgets:
        if parse_budget(budget)[0] != "bytes":
            raise ConfigError(
                f"compact.budgets: got {budget}, but a compact model of the next item is made for the bytes of its "
                "bundle; write 64KB, or leave the budgets out for the dense model alone"
            )
    if compact.train.loss != "softmax":
        raise ConfigError(
            f"compact.train.loss: got {compact.train.loss}, but a compact model of the next item learns the ranking of "
            "all items; use softmax"
        )
    _check_dense_teachers("compact.teach", compact.teach.teachers, with_dense=True)
    if isinstance(config.research.teacher_temperature, str):
        raise ConfigError(
            "research.teacher_temperature: fitted is for models of ratings; give a number, 1.0 for none"
        )
    sizes, store = compact.sizes, compact.store
    METHODS.check_options(sizes.name, sizes.options, "compact.sizes", SCHEDULE)
    kind = METHODS[sizes.name]
    if kind.searches_in_place or kind.ships_as_selected or store.keeps_positions:
        allowed = [
            n for n in METHODS if not METHODS[n].searches_in_place and not METHODS[n].ships_as_selected
        ]
        raise ConfigError(
            f"compact.sizes: got {sizes.name} with compact.store={store.name}, but items have sizes that a rule or a "
            f"measurement gives; use compact.sizes={', '.join(allowed)} and compact.store=int8 or codes"
        )
    if store.first_order == "projection":
        raise ConfigError(
            "compact.store.first_order: got projection, which the last layer of a sequence model is already; use "
            "none, or rows"
        )
    smallest = TableInfo(torch.tensor([0, 4]), torch.ones(4, dtype=torch.int64))
    with _says_which("compact.sizes", sizes.name, sizes.options):
        METHODS[sizes.name](smallest, dim, **sizes.options).check(config)
    SEQUENCE_MODELS.check_options(choice.name, choice.options, "compact.model")
    if config.research.start == "dense" and choice.name != config.model.name:
        raise ConfigError(
            f"research.start: got dense, but the dense model is {config.model.name} and compact.model {choice.name}; "
            "name one model for both, or use initial"
        )
    for width in range(store.size_step, min(store.max_size or dim, dim) + 1, store.size_step):
        with _says_which("compact.model", choice.name, {**choice.options, "width of a row": width}):
            model = SEQUENCE_MODELS[choice.name](width, **plain_options(choice.options))
    qat.prepare(model, store.linear_bits)


def _check_dense_teachers(section: str, names: tuple[str, ...], with_dense: bool) -> None:
    for name in names:
        if dense_number(name) is not None and not (with_dense and name == "dense"):
            allowed = "dense, or folders of finished runs" if with_dense else "folders of finished runs"
            raise ConfigError(f"{section}.teachers: got {name}; teachers of the next item are {allowed}")


def check_sides(config: Config, schema: Schema) -> None:
    """Whether pairs can be made up from the schema's sides, and tables hold its slots.

    Raises: ConfigError: when a training asks for pairs and all fields are on one side, or sharded tables for several
        values a field.
    """
    for section, name in (("model", config.model.name), ("compact.model", config.compact_model.name)):
        if MODELS[name].reads_histories and not schema.histories:
            raise ConfigError(
                f"{section}: '{name}' reads histories, but schema '{schema.name}' has none; add a field of kind history"
            )
    for field in schema.histories:
        if field.gaps is not None:
            raise ConfigError(
                f"data: field '{field.name}' has gaps, which models of the next item read; remove gaps, or "
                "choose one of those (model.name, train.loss)"
            )
    if config.run.rank:
        check_ranked(schema)
    if _is_sharded(config) and not schema.slots.is_plain:
        several = ", ".join(field.name for field in schema.fields if field.pools)
        raise ConfigError(
            f"distributed.mode: sharded tables hold one value a field, but {several} have several; use distributed=ddp"
        )
    for section, settings in (("teach", config.teach), ("compact.teach", config.compact.teach)):
        if settings.teachers and settings.pairs and not (schema.context_fields and schema.item_fields):
            raise ConfigError(
                f"{section}.pairs: made-up pairs join context and item fields, but all fields of schema "
                f"'{schema.name}' are on one side; set {section}.pairs=0 or give fields a side"
            )


def check_classes(dataset: Dataset, test: bool) -> None:
    """Whether AUC can be measured: every split needs rows of both classes.

    Args:
        dataset: what is trained on.
        test: whether the test split is read.

    Raises: UserError: when a split has one class.
    """
    for name in ("train", "valid", *(("test",) if test else ())):
        labels = dataset.split(name).labels
        positive = int(np.count_nonzero(labels))
        if positive in (0, len(labels)):
            raise UserError(
                f"data set '{dataset.schema.name}': all {len(labels)} labels of {name} are {int(positive > 0)}, and "
                "AUC needs both classes; split at random (data.split=random), give it a larger share "
                "(data.fractions), or check the label's column"
            )


@contextlib.contextmanager
def _says_which(section: str, name: str, options: dict[str, Any]) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(f"{section}: '{name}' does not take {options}: {error}") from None


def check_folder(folder: Path, config: Config, resume: bool) -> None:
    """Whether a run of this configuration may begin, or go on, in a folder.

    Raises: ConfigError: when the folder is in use or was made by another configuration.
    """
    if (folder / CONFIG).exists():
        if not resume:
            raise ConfigError(f"{folder}: already holds a run; add --resume, or name another run.output=DIR")
        _check_same(read_config(folder), config, folder)
    elif folder.exists() and not _is_empty(folder):
        raise ConfigError(f"{folder}: not empty and not a run directory; name another run.output=DIR")


def _is_empty(folder: Path) -> bool:
    """Hidden files do not count: they are what a process that was killed while writing leaves."""
    return folder.is_dir() and all(path.name.startswith(".") for path in folder.iterdir())


def _is_sharded(*configs: Config) -> bool:
    return any(config.distributed.mode == "sharded" for config in configs)


def _check_same(old: Config, new: Config, folder: Path) -> None:
    """Raise ConfigError naming the first key in which a resumed run would differ."""
    a, b = old.flat(), new.flat()
    for key in dict.fromkeys([*a, *b]):
        section, _, name = key.partition(".")
        if (section == "run" and name != "seed") or (section == "distributed" and not _is_sharded(old, new)):
            continue  # where it runs may change
        if key == "compact.budgets":
            continue  # more budgets may be added to a finished run
        if section == "data" and name in PLACES:
            continue  # where data are may change; that they are the same their fingerprint says
        if a.get(key) != b.get(key):
            raise ConfigError(
                f"{folder}: was started with {key}={a.get(key)!r}, not {b.get(key)!r}; resume with the same config or "
                "name another run.output=DIR"
            )


def check_fingerprint(path: Path, fingerprint: str) -> None:
    """Whether the data are still those that a run began with.

    Raises: DataError: when they are not.
    """
    if path.exists() and path.read_text().strip() != fingerprint:
        raise DataError(
            f"{path.parent}: was started on other data (fingerprint {path.read_text()[:12]}, now "
            f"{fingerprint[:12]}); give it that data back or name another run.output=DIR"
        )
