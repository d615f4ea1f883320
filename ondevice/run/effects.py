"""Options that change nothing in a run: they are refused, since whoever gives one expects something of it.

An option counts as given when its value is not the default one, so that a resolved configuration can be read back.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from ondevice.config.sections import Config, RetrainConfig, SearchConfig, TrainingConfig
from ondevice.errors import ConfigError
from ondevice.methods import METHODS
from ondevice.models import MODELS

Idle = tuple[str, str, str, str]
"""Section and key of an option without effect, why it has none, and what would give it one."""
NO_TEACHER = "the training has no teacher"
NOT_OF_THE_SEARCH = ("budgets", "skip_fields")
"""Keys of ``search`` that every method follows."""


def check_effects(config: Config) -> None:
    """Whether every option that is given does something.

    Raises: ConfigError: naming the first one that does not, why, and the ways out.
    """
    given, defaults = config.to_dict(), Config().to_dict()
    for section, key, why, way in idle_options(config):
        got, default = given[section][key], defaults[section][key]
        if got != default:
            usual = (
                "null" if default is None else str(default).lower() if isinstance(default, bool) else default
            )
            raise ConfigError(
                f"{section}.{key}: got {got!r}, which has no effect: {why}; {way}, or leave {section}.{key} at {usual}"
            )


def idle_options(config: Config) -> Iterator[Idle]:
    """All options that a run of this configuration does not read, whether they are given or not."""
    yield from _of_training("training", config.training)
    yield from _of_training("retrain", config.retrain)
    yield from _of_research(config.retrain)
    yield from _of_search(config)
    yield from _of_compact_models(config)
    if not MODELS[config.model.name].uses_first_order:
        why = f"model '{config.model.name}' has no first-order weights"
        yield "embedding", "first_order", why, "choose another model.name"
    yield from _of_processes(config)


def _of_training(section: str, settings: TrainingConfig) -> Iterator[Idle]:
    if not settings.ema_decay:
        yield section, "ema_every", "weights are not averaged", f"set {section}.ema_decay"
    if not settings.weight_decay:
        yield section, "decoupled_decay", "weights do not decay", f"set {section}.weight_decay"
    if not settings.teacher:
        for key in ("label_weight", "pairs"):
            yield section, key, NO_TEACHER, f"name one in {section}.teacher"
    elif not settings.pairs and settings.label_weight == 1:
        why = "real rows learn the label alone and no pairs are made up"
        yield section, "teacher", why, f"set {section}.label_weight below 1 or {section}.pairs above 0"


def _of_research(settings: RetrainConfig) -> Iterator[Idle]:
    if not settings.teacher:
        for key in ("teacher_mean", "teacher_temperature"):
            yield "research", key, NO_TEACHER, "name one in retrain.teacher"
    elif len(settings.teacher) == 1:
        yield "research", "teacher_mean", "there is one teacher", "name several in retrain.teacher"
    if not settings.teacher or not settings.pairs:
        for key in ("pairs_sampling", "pairs_popularity"):
            yield "research", key, "no pairs are made up", "set retrain.teacher and retrain.pairs"
    elif settings.pairs_sampling != "popularity":
        why = f"items are drawn by research.pairs_sampling={settings.pairs_sampling}"
        yield "research", "pairs_popularity", why, "set research.pairs_sampling=popularity"


def _of_search(config: Config) -> Iterator[Idle]:
    method = METHODS[config.method.name]
    for key in (field.name for field in dataclasses.fields(SearchConfig)):
        if key not in NOT_OF_THE_SEARCH and key not in method.search_keys:
            why = f"method '{config.method.name}' does not read it"
            readers = [name for name in METHODS if key in METHODS[name].search_keys]
            yield "search", key, why, f"use method.name={' or '.join(readers)}"
    if not config.search.weight_decay:
        yield "search", "decoupled_decay", "weights do not decay", "set search.weight_decay"


def _of_compact_models(config: Config) -> Iterator[Idle]:
    settings: RetrainConfig = config.retrain
    if settings.code_dims is None:
        for key in ("code_levels", "code_start", "code_choice", "code_learning_rate"):
            yield "retrain", key, "values are not stored as codes", "set retrain.code_dims"
    elif settings.code_choice != "loss":
        why = f"codes are chosen by retrain.code_choice={settings.code_choice}"
        yield "retrain", "code_learning_rate", why, "set retrain.code_choice=loss"
    shipped_as_found = METHODS[config.method.name].ships_as_found
    if settings.form == "positions" or shipped_as_found:
        why, way = "positions are stored as they were found", "set retrain.form=sizes"
        if shipped_as_found:
            why, way = (
                f"method '{config.method.name}' says what is stored of every row",
                "use another method.name",
            )
        for key in ("max_size", "size_step"):
            yield "retrain", key, why, way
    name = config.compact_model.name
    if not MODELS[name].uses_first_order:
        why = f"model '{name}' has no first-order weights"
        yield "retrain", "first_order", why, "choose another retrain.model"


def _of_processes(config: Config) -> Iterator[Idle]:
    mode = config.distributed.mode
    if mode != "sharded":
        for key in ("table_optimizer", "table_learning_rate"):
            yield "distributed", key, "no tables are sharded", "set distributed.mode=sharded"
    else:
        for section in ("training", "search"):
            why = "sharded tables touch the rows of a batch alone"
            yield section, "row_wise", why, "set distributed.mode=ddp"
    if mode == "none":
        yield "distributed", "timeout", "there is one process", "set distributed.mode=ddp or sharded"
