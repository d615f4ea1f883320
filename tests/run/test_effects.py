"""An option that changes nothing in a run is refused, with the reason and the ways out."""

from __future__ import annotations

from typing import Any

import pytest

from ondevice.config.file import from_dict
from ondevice.errors import ConfigError
from ondevice.methods import METHODS
from ondevice.run.effects import idle_options
from ondevice.run.preflight import check_options

CODES = {"max_size": 4, "code_dims": 2}
TEACHER = {"teacher": ["dense"]}
IDLE: list[tuple[dict[str, Any], str]] = [
    (
        {"training": {"ema_every": 2}},
        "training.ema_every: got 2, which has no effect: weights are not averaged",
    ),
    (
        {"retrain": {"decoupled_decay": True}},
        "retrain.decoupled_decay: got True, which has no effect: weights do",
    ),
    (
        {"training": {"label_weight": 0.2}},
        "training.label_weight: got 0.2, which has no effect: the training has no",
    ),
    ({"retrain": {"pairs": 0}}, "retrain.pairs: got 0.0, which has no effect: the training has no teacher"),
    (
        {"research": {"pairs_sampling": "uniform"}},
        "research.pairs_sampling: got 'uniform', which has no effect: no",
    ),
    (
        {"retrain": {**TEACHER, "pairs": 0}, "research": {"pairs_sampling": "uniform"}},
        "research.pairs_sampling: got 'uniform'",
    ),
    (
        {"retrain": TEACHER, "research": {"pairs_popularity": 0.5}},
        "set research.pairs_sampling=popularity, or leave",
    ),
    (
        {"retrain": TEACHER, "research": {"teacher_mean": "logit"}},
        "research.teacher_mean: got 'logit', which has no effect",
    ),
    (
        {"research": {"teacher_temperature": "fitted"}},
        "research.teacher_temperature: got 'fitted', which has no",
    ),
    (
        {"retrain": {**TEACHER, "pairs": 0, "label_weight": 1}},
        "retrain.teacher: got ['dense'], which has no",
    ),
    ({"retrain": {"code_start": 0.5}}, "values are not stored as codes; set retrain.code_dims, or leave"),
    ({"retrain": {"code_choice": "loss"}}, "retrain.code_choice: got 'loss', which has no effect"),
    (
        {"retrain": {**CODES, "code_learning_rate": 1e-4}},
        "retrain.code_learning_rate: got 0.0001, which has no",
    ),
    (
        {"retrain": {"form": "positions", "size_step": 4}, "search": {"budgets": [50]}},
        "retrain.size_step: got 4",
    ),
    ({"model": "dlrm", "retrain": {"first_order": "none"}}, "model 'dlrm' has no first-order weights"),
    (
        {"model": "dlrm", "embedding": {"first_order": "uniform"}},
        "embedding.first_order: got 'uniform', which has",
    ),
    (
        {"method": "frequency", "search": {"epochs": 3}},
        "method 'frequency' does not read it; use method.name=",
    ),
    (
        {"method": "saliency", "search": {"learning_rate": 0.1}},
        "search.learning_rate: got 0.1, which has no effect",
    ),
    (
        {"search": {"decoupled_decay": True}},
        "search.decoupled_decay: got True, which has no effect: weights do not",
    ),
    (
        {"method": "hashing", "search": {"budgets": [50]}, "retrain": {"max_size": 4}},
        "retrain.max_size: got 4, which",
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
        {"training": {"ema_decay": 0.9, "ema_every": 2, "weight_decay": 0.1, "decoupled_decay": True}},
        {"retrain": {**TEACHER, "label_weight": 1.0}},
        {"retrain": TEACHER, "research": {"pairs_sampling": "popularity", "pairs_popularity": 0.5}},
        {"retrain": {"teacher": ["dense", "dense+1"], "pairs": 0}, "research": {"teacher_mean": "logit"}},
        {"retrain": {**CODES, "code_choice": "loss", "code_learning_rate": 1e-4, "code_start": 0.5}},
        {"method": "hashing", "search": {"budgets": [50]}},
        {"method": "saliency", "search": {"batch_size": 256}},
        {"method": "code_saliency", "search": {"epochs": 3}, "retrain": CODES},
        {"search": {"epochs": 3, "threshold_learning_rate": 0.1, "check_every": 5, "precision": "bfloat16"}},
        {"distributed": {"mode": "sharded", "timeout": 60, "table_learning_rate": 0.1}},
    ],
    ids=str,
)
def test_an_option_with_an_effect_is_not(values: dict[str, Any]) -> None:
    check_options(from_dict(values))


def test_a_resolved_configuration_can_be_read_back() -> None:
    """Keys at their defaults are no options that somebody gave, whatever the run makes of them."""
    for method in ("frequency", "hashing"):
        config = from_dict({"method": method, "search": {"budgets": [50]}})
        check_options(from_dict(config.to_dict()))
        assert ("search", "epochs") in {(section, key) for section, key, *_ in idle_options(config)}


def test_methods_name_keys_of_the_search() -> None:
    known = set(from_dict({}).to_dict()["search"])
    assert all(set(METHODS[name].search_keys) <= known for name in METHODS)
