"""An option that changes nothing in a run is refused, with the reason and the ways out."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from ondevice.config.file import from_dict
from ondevice.config.sections import SCHEDULE
from ondevice.errors import ConfigError
from ondevice.methods import METHODS
from ondevice.run.effects import idle_options
from ondevice.run.preflight import check_options

CODES = {"name": "codes", "max_size": 4, "code_dims": 2}
TEACHER = {"teachers": ["dense"]}
IDLE: list[tuple[dict[str, Any], str]] = [
    (
        {"train": {"ema_every": 2}},
        "train.ema_every: got 2, which has no effect: weights are not averaged",
    ),
    (
        {"compact": {"train": {"decoupled_decay": True}}},
        "compact.train.decoupled_decay: got True, which has no effect: weights do",
    ),
    (
        {"teach": {"label_weight": 0.2}},
        "teach.label_weight: got 0.2, which has no effect: the training has no",
    ),
    (
        {"compact": {"teach": {"pairs": 0}}},
        "compact.teach.pairs: got 0.0, which has no effect: the training has no teacher",
    ),
    (
        {"research": {"pairs_sampling": "uniform"}},
        "research.pairs_sampling: got 'uniform', which has no effect: no",
    ),
    (
        {"compact": {"teach": {**TEACHER, "pairs": 0}}, "research": {"pairs_sampling": "uniform"}},
        "research.pairs_sampling: got 'uniform'",
    ),
    (
        {"compact": {"teach": TEACHER}, "research": {"pairs_popularity": 0.5}},
        "set research.pairs_sampling=popularity, or leave",
    ),
    (
        {"compact": {"teach": TEACHER}, "research": {"teacher_mean": "logit"}},
        "research.teacher_mean: got 'logit', which has no effect",
    ),
    (
        {"research": {"teacher_temperature": "fitted"}},
        "research.teacher_temperature: got 'fitted', which has no",
    ),
    (
        {"compact": {"teach": {**TEACHER, "pairs": 0, "label_weight": 1}}},
        "compact.teach.teachers: got ['dense'], which has no",
    ),
    (
        {"compact": {"store": {**CODES, "code_learning_rate": 0.0001}}},
        "compact.store.code_learning_rate: got 0.0001, which has no",
    ),
    (
        {"model": "dlrm", "compact": {"store": {"first_order": "none"}}},
        "model 'dlrm' has no first-order weights",
    ),
    (
        {"model": "dlrm", "embedding": {"first_order": "uniform"}},
        "embedding.first_order: got 'uniform', which has",
    ),
    (
        {"compact": {"sizes": {"name": "frequency", "epochs": 3}}},
        "method 'frequency' does not read it; use compact.sizes.name=",
    ),
    (
        {"compact": {"sizes": {"name": "saliency", "learning_rate": 0.1}}},
        "compact.sizes.learning_rate: got 0.1, which has no effect",
    ),
    (
        {"compact": {"sizes": {"decoupled_decay": True}}},
        "compact.sizes.decoupled_decay: got True, which has no effect: weights do not",
    ),
    (
        {"compact": {"sizes": {"name": "hashing"}, "budgets": [50], "store": {"max_size": 4}}},
        "compact.store.max_size: got 4, which",
    ),
    (
        {"distributed": {"timeout": 60}},
        "distributed.timeout: got 60, which has no effect: there is one process",
    ),
    (
        {"distributed": {"mode": "ddp", "table_optimizer": "adagrad"}},
        "distributed.table_optimizer: got 'adagrad'",
    ),
]


@pytest.mark.parametrize(("values", "message"), IDLE, ids=lambda value: str(value)[:40])
def test_an_option_without_effect_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_options(from_dict(values))
    said = str(caught.value)
    assert message in said
    assert "which has no effect" in said
    assert ", or leave " in said
    assert "\n" not in said


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"train": {"ema_decay": 0.9, "ema_every": 2, "weight_decay": 0.1, "decoupled_decay": True}},
        {"compact": {"teach": {**TEACHER, "label_weight": 1.0}}},
        {
            "compact": {"teach": TEACHER},
            "research": {"pairs_sampling": "popularity", "pairs_popularity": 0.5},
        },
        {
            "compact": {"teach": {"teachers": ["dense", "dense+1"], "pairs": 0}},
            "research": {"teacher_mean": "logit"},
        },
        {
            "compact": {
                "store": {**CODES, "code_choice": "loss", "code_learning_rate": 0.0001, "code_start": 0.5},
            }
        },
        {"compact": {"sizes": {"name": "hashing"}, "budgets": [50]}},
        {"compact": {"sizes": {"name": "saliency", "batch_size": 256}}},
        {"compact": {"sizes": {"name": "code_saliency", "epochs": 3}, "store": CODES}},
        {
            "compact": {
                "sizes": {
                    "epochs": 3,
                    "threshold_learning_rate": 0.1,
                    "check_every": 5,
                    "precision": "bfloat16",
                }
            }
        },
        {"distributed": {"mode": "sharded", "timeout": 60, "table_learning_rate": 0.1}},
    ],
    ids=str,
)
def test_an_option_with_an_effect_is_not(values: dict[str, Any]) -> None:
    check_options(from_dict(values))


def test_a_resolved_configuration_can_be_read_back() -> None:
    """Keys at their defaults are no options that somebody gave, whatever the run makes of them."""
    for method in ("frequency", "hashing"):
        config = from_dict({"compact": {"sizes": method, "budgets": [50]}})
        check_options(from_dict(config.to_dict()))
        assert "compact.sizes.epochs" in {key for key, *_ in idle_options(config)}


def test_methods_name_keys_of_the_search() -> None:
    assert all(set(METHODS[name].search_keys) <= set(SCHEDULE) for name in METHODS)
    options = [parameter for name in METHODS for parameter in inspect.signature(METHODS[name]).parameters]
    assert not {"name", *SCHEDULE} & set(options), "a method's own options stand beside these"
