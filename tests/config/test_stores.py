"""Stores and methods: choices with options of their own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ondevice.config.file import load
from ondevice.config.sections import SizesConfig
from ondevice.config.stores import STORES, Codes, Int8, Positions


def test_the_options_of_a_store_are_its_own(written: Callable[[str], Path]) -> None:
    """Another store keeps those that both have; another method none, schedule included."""
    store = "{name: codes, max_size: 6, size_step: 3, code_dims: 3, first_order: none, linear_bits: 4}"
    path = written(f"compact: {{sizes: {{name: pep, regime: data, epochs: 3}}, store: {store}}}\n")
    shared = {"first_order": "none", "linear_bits": 4}
    assert load(path).compact.store == Codes(max_size=6, size_step=3, code_dims=3, **shared)
    assert load(path, ["compact.store=int8"]).compact.store == Int8(max_size=6, size_step=3, **shared)
    assert load(path, ["compact.store=positions"]).compact.store == Positions(**shared)
    assert load(path, ["compact.store.name=codes"]) == load(path)
    again = load(path, ["compact.store=int8", "compact.store.size_step=1", "compact.sizes=saliency"])
    assert (again.compact.store.size_step, again.compact.sizes) == (1, SizesConfig("saliency"))
    assert load(path, ["compact.sizes.epochs=4"]).compact.sizes == SizesConfig(
        "pep", {"regime": "data"}, epochs=4
    )
    assert load(path, ["compact.model.name=fm"]).compact.model == {"name": "fm"}
    assert load(written(""), ["compact.store.max_size=4"]).compact.store == Int8(max_size=4)
    assert {name: STORES[name]().name for name in STORES} == {name: name for name in STORES}
