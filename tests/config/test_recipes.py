"""Recipes: starting points that any key overrides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ondevice.config.file import from_dict, load
from ondevice.config.recipes import RECIPES
from ondevice.config.sections import Choice, Config, SizesConfig
from ondevice.config.stores import Int8
from ondevice.errors import UserError
from ondevice.run.preflight import check_options


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_a_whole_configuration_but_for_the_data(name: str) -> None:
    given: dict[str, Any] = {"recipe": name}
    sections = {"model", "embedding", "train"}
    if name != "next_item":  # which has no compact phase yet
        sections.add("compact")
        given["compact"] = {"budgets": [20_000] if name == "pep_paper" else ["64KB"]}  # no positions in bytes
    assert (
        set(RECIPES[name].values()) - {"research"} == sections
    )  # of which one begins its compact models otherwise
    config = from_dict(given)
    check_options(config)
    assert config.data == Config().data
    assert "recipe" not in config.to_dict()
    assert from_dict(config.to_dict()) == config


def test_any_key_overrides_the_recipe(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(
        "recipe: smallest\nmodel: {hidden: [8]}\ncompact: {train: {epochs: 3}, budgets: [30KB]}\n"
    )
    config = load(path, ["compact.store.max_size=6", "train.weight_decay=0"])
    assert config.model == Choice("deepfm", {"hidden": [8], "dropout": 0})
    compact = config.compact
    assert (compact.train.epochs, compact.train.patience, compact.sizes.epochs) == (3, 12, 6)
    assert compact.store.codes is not None
    assert (compact.store.max_size, compact.store.codes.code_dims) == (6, 3)
    assert (config.train.epochs, config.train.weight_decay) == (14, 0)
    assert compact.budgets == ("30KB",)


def test_another_entry_does_not_take_the_options_of_the_recipe() -> None:
    assert from_dict({"recipe": "smallest", "model": "fm"}).model == Choice("fm")
    for sizes in ("frequency", {"name": "frequency"}):
        config = from_dict({"recipe": "pep", "compact": {"sizes": sizes}})
        assert config.compact.sizes == SizesConfig("frequency")
        assert config.compact.store.max_size == 8
    for name in ({"name": "pep"}, {}):
        pep = from_dict({"recipe": "pep", "compact": {"sizes": {**name, "regime": "data"}}}).compact.sizes
        assert pep.options == {"granularity": "feature-dimension", "regime": "data"}
        assert pep.epochs == 3
    store = from_dict({"recipe": "smallest", "compact": {"store": "int8"}}).compact.store
    assert store == Int8(first_order="projection", max_size=9, size_step=3)  # what both stores take


def test_the_command_line_names_a_recipe(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("recipe: pep\ncompact: {train: {epochs: 3}}\n")
    config = load(path, ["compact.train.patience=5", "recipe=large_vocabulary"])
    assert config.compact.sizes == SizesConfig("code_saliency", {"row_cost": 3}, epochs=3)
    assert (config.compact.train.epochs, config.compact.train.patience) == (3, 5)
    path.write_text("")
    assert load(path, ["recipe=pep"]) == from_dict({"recipe": "pep"})


@pytest.mark.parametrize("given", ["smalest", 3, ["pep"]])
def test_an_unknown_recipe_is_named(given: Any) -> None:
    with pytest.raises(UserError) as caught:
        from_dict({"recipe": given})
    assert f"recipe: got {given!r}, which is unknown (" in str(caught.value)
    assert "smallest" in str(caught.value)


def test_a_recipe_that_is_read_is_not_changed_by_whoever_reads_it() -> None:
    RECIPES["pep"].values()["train"]["epochs"] = 1
    assert from_dict({"recipe": "pep"}).train.epochs == 14


def test_a_section_that_is_none_is_named_with_a_recipe_too() -> None:
    with pytest.raises(UserError, match="train: got 3; it must be a section"):
        from_dict({"recipe": "pep", "train": 3})
    assert from_dict({"recipe": "pep", "train": None}).train.epochs == 14
