"""Options that change nothing in a run: they are refused, since whoever gives one expects something of it.

An option counts as given when its value is not the default one, so that a resolved configuration can be read back.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from ondevice.config.sections import SCHEDULE, STARTS, Config, SizesConfig, TeachConfig, TrainConfig
from ondevice.errors import ConfigError
from ondevice.methods import METHODS
from ondevice.models import MODELS
from ondevice.models.sequences import SEQUENCE_MODELS

Idle = tuple[str, str, str]
"""An option without effect, why it has none, and what would give it one."""
NO_TEACHER = "the training has no teacher"


def check_effects(config: Config) -> None:
    """Whether every option that is given does something.

    Raises: ConfigError: naming the first one that does not, why, and the ways out.
    """
    given, defaults = config.flat(), _defaults(config)
    for key, why, way in idle_options(config):
        if key in given and given[key] != defaults[key]:
            default = defaults[key]
            usual = (
                "null" if default is None else str(default).lower() if isinstance(default, bool) else default
            )
            raise ConfigError(
                f"{key}: got {given[key]!r}, which has no effect: {why}; {way}, or leave {key} at {usual}"
            )


def _defaults(config: Config) -> dict[str, object]:
    """Defaults by ``section.key``, of the store that is chosen."""
    usual = Config()
    compact = dataclasses.replace(usual.compact, store=type(config.compact.store)())
    return dataclasses.replace(usual, compact=compact).flat()


def idle_options(config: Config) -> Iterator[Idle]:
    """All options that a run of this configuration does not read, whether they are given or not."""
    if is_next_item(config):
        yield from _of_next_item(config)
        return
    for section in ("train", "compact.train"):
        for key in ("num_negatives", "windows", "item_dropout"):
            way = f"choose a model of the next item (model.name={' or '.join(SEQUENCE_MODELS)})"
            yield f"{section}.{key}", f"model '{config.model.name}' learns rows", way
    yield from _of_training("train", config.train)
    yield from _of_training("compact.train", config.compact.train)
    yield from _of_teaching("teach", config.teach)
    yield from _of_teaching("compact.teach", config.compact.teach)
    yield from _of_research(config)
    yield from _of_sizes(config.compact.sizes)
    yield from _of_store(config)
    if not MODELS[config.model.name].uses_first_order:
        why = f"model '{config.model.name}' has no first-order weights"
        yield "embedding.first_order", why, "choose another model.name"
    yield from _of_processes(config)


def is_next_item(config: Config) -> bool:
    """Whether a run learns what comes next in histories."""
    return config.model.name in SEQUENCE_MODELS


def makes_compact(config: Config) -> bool:
    """Whether a run of the next item makes compact models: budgets in bytes ask for them."""
    return config.compact.budgets != Config().compact.budgets


def _of_next_item(config: Config) -> Iterator[Idle]:
    """Options that a run of the next item does not read."""
    task = f"model '{config.model.name}' learns the next item"
    for key in config.flat():
        if key.startswith("compact.") and key != "compact.budgets" and not makes_compact(config):
            yield key, "no compact model is asked for", "name the bytes of one (compact.budgets=[64KB])"
        if key.startswith("distributed.") or key == "compact.skip_fields":
            yield key, task, "choose a model of ratings"
        if key.startswith("research.") and key not in ("research.teacher_temperature", "research.start"):
            yield key, task, "choose a model of ratings"
    yield "embedding.first_order", f"{task}, and its items' biases are no method's", "choose another model"
    yield "run.rank", f"{task}, and is always measured so", "choose a model of ratings"
    sections = {"train": config.train}
    if not makes_compact(config):
        if config.research.start in STARTS:  # a folder is what the dense model begins with
            yield (
                "research.start",
                "no compact model is asked for",
                "name the bytes of one (compact.budgets=[64KB]), or the folder of a run to begin with",
            )
    else:
        compact = config.compact
        sections["compact.train"] = compact.train
        yield from _of_teaching("compact.teach", compact.teach)
        yield from _of_sizes(compact.sizes)
        yield from _of_codes(config)
        yield (
            "compact.train.item_dropout",
            f"{task}, and what attributes are worth is fitted to the rows of compact items",
            "set train.item_dropout, which is the dense model's",
        )
        asked = "dense" in (*compact.teach.teachers, config.research.start)
        if not asked and not METHODS[compact.sizes.name].reads_dense:
            yield (
                "train.item_dropout",
                "no dense model is trained, and compact ones have no item dropout",
                "name dense in compact.teach.teachers or research.start",
            )
        yield "compact.store.fingerprint_bits", f"{task}, whose items are named", "choose a model of ratings"
        yield (
            "compact.endpoints",
            f"{task}, whose program has rank and recommend",
            "choose a model of ratings",
        )
        yield (
            "compact.train.elastic",
            f"{task}, whose budgets are trained one by one",
            "choose a model of ratings",
        )
    if not makes_compact(config) or not config.compact.teach.teachers:
        yield "research.teacher_temperature", NO_TEACHER, "name one in compact.teach.teachers"
    yield from _of_teaching("teach", config.teach)
    for section, settings in sections.items():
        yield f"{section}.embedding_penalty", task, "choose a model of ratings"
        if settings.loss != "sampled_softmax":
            why = f"{section}.loss={settings.loss} draws no such number"
            yield f"{section}.num_negatives", why, f"set {section}.loss=sampled_softmax"
        if settings.loss == "softmax":
            yield f"{section}.row_wise", "the softmax reads every item", f"set {section}.loss=sampled_softmax"
        yield from _of_training(section, settings)


def _of_training(section: str, settings: TrainConfig | SizesConfig) -> Iterator[Idle]:
    if isinstance(settings, TrainConfig) and not settings.ema_decay:
        yield f"{section}.ema_every", "weights are not averaged", f"set {section}.ema_decay"
    if not settings.weight_decay:
        yield f"{section}.decoupled_decay", "weights do not decay", f"set {section}.weight_decay"


def _of_teaching(section: str, settings: TeachConfig) -> Iterator[Idle]:
    if not settings.teachers:
        for key in ("label_weight", "pairs"):
            yield f"{section}.{key}", NO_TEACHER, f"name one in {section}.teachers"
    elif not settings.pairs and settings.label_weight == 1:
        why = "real rows learn the label alone and no pairs are made up"
        yield f"{section}.teachers", why, f"set {section}.label_weight below 1 or {section}.pairs above 0"


def _of_research(config: Config) -> Iterator[Idle]:
    settings, teach = config.research, config.compact.teach
    if not teach.teachers:
        for key in ("teacher_mean", "teacher_temperature"):
            yield f"research.{key}", NO_TEACHER, "name one in compact.teach.teachers"
    elif len(teach.teachers) == 1:
        yield "research.teacher_mean", "there is one teacher", "name several in compact.teach.teachers"
    if not teach.teachers or not teach.pairs:
        for key in ("pairs_sampling", "pairs_popularity"):
            way = "set compact.teach.teachers and compact.teach.pairs"
            yield f"research.{key}", "no pairs are made up", way
    elif settings.pairs_sampling != "popularity":
        why = f"items are drawn by research.pairs_sampling={settings.pairs_sampling}"
        yield "research.pairs_popularity", why, "set research.pairs_sampling=popularity"


def _of_sizes(settings: SizesConfig) -> Iterator[Idle]:
    reads = METHODS[settings.name].search_keys
    for key in (key for key in SCHEDULE if key not in reads):
        readers = [name for name in METHODS if key in METHODS[name].search_keys]
        why = f"method '{settings.name}' does not read it"
        yield f"compact.sizes.{key}", why, f"use compact.sizes.name={' or '.join(readers)}"
    yield from _of_training("compact.sizes", settings)


def _of_codes(config: Config) -> Iterator[Idle]:
    store = config.compact.store
    if store.codes is not None and store.codes.code_choice != "loss":
        why = f"codes are chosen by compact.store.code_choice={store.codes.code_choice}"
        yield "compact.store.code_learning_rate", why, "set compact.store.code_choice=loss"


def _of_store(config: Config) -> Iterator[Idle]:
    yield from _of_codes(config)
    sizes = config.compact.sizes.name
    if METHODS[sizes].ships_as_selected:
        for key in ("max_size", "size_step"):
            why = f"method '{sizes}' says what is stored of every row"
            yield f"compact.store.{key}", why, "use another compact.sizes.name"
    name = config.compact_model.name
    if not MODELS[name].uses_first_order:
        why = f"model '{name}' has no first-order weights"
        yield "compact.store.first_order", why, "choose another compact.model"


def _of_processes(config: Config) -> Iterator[Idle]:
    mode = config.distributed.mode
    if mode != "sharded":
        for key in ("table_optimizer", "table_learning_rate"):
            yield f"distributed.{key}", "no tables are sharded", "set distributed.mode=sharded"
    else:
        yield "run.rank", "sharded tables are not read for it", "set distributed.mode=ddp"
        for section in ("train", "compact.sizes"):
            why = "sharded tables touch the rows of a batch alone"
            yield f"{section}.row_wise", why, "set distributed.mode=ddp"
    if mode == "none":
        yield "distributed.timeout", "there is one process", "set distributed.mode=ddp or sharded"
