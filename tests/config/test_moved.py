"""Keys of before, which name their place of now."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from ondevice.config.file import load
from ondevice.config.moved import MOVED
from ondevice.config.sections import Config
from ondevice.config.stores import STORES
from ondevice.errors import ConfigError

OLD = [
    ("retrain.form=positions", "retrain.form: no such key; it is compact.store.name now"),
    ("search.budgets=[5%]", "search.budgets: no such key; it is compact.budgets now"),
    ("training.epochs=3", "training.epochs: no such key; it is train.epochs now"),
    ("training.teacher=[a]", "training.teacher: no such key; it is teach.teachers now"),
    ("retrain.teacher=[dense]", "retrain.teacher: no such key; it is compact.teach.teachers now"),
    ("retrain.epochs=3", "retrain.epochs: no such key; it is compact.train.epochs now"),
    ("retrain.code_dims=3", "retrain.code_dims: no such key; it is compact.store.code_dims now"),
    ("method.regime=data", "method.regime: no such key; it is compact.sizes.regime now"),
    ("method.name=pep", "method.name: no such key; it is compact.sizes.name now"),
]


@pytest.mark.parametrize(("override", "message"), OLD)
def test_a_key_of_before_names_its_place_of_now(
    written: Callable[[str], Path], override: str, message: str
) -> None:
    key, _, value = override.partition("=")
    section, name = key.split(".")
    for text, overrides in (("", [override]), (f"{section}: {{{name}: {value}}}\n", [])):
        with pytest.raises(ConfigError) as caught:
            load(written(text), overrides)
        assert str(caught.value) == message
    with pytest.raises(ConfigError, match=r"method: no such key; it is compact\.sizes now"):
        load(written("method: pep\n"))


def test_every_present_name_of_an_old_key_is_a_key() -> None:
    stores = {f"compact.store.{key}" for store in STORES for key in dataclasses.asdict(STORES[store]())}
    known = {*Config().flat(), *stores, "compact.model"}
    for key in (
        present for present in MOVED.values() if present not in ("train", "compact.sizes", "compact.train")
    ):
        assert key in known, key
