"""Recipes: starting points that any key overrides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ondevice.config.file import from_dict, load
from ondevice.config.recipes import RECIPES
from ondevice.config.sections import Choice, Config
from ondevice.errors import UserError
from ondevice.run.preflight import check_options


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_a_whole_configuration_but_for_the_data(name: str) -> None:
    assert set(RECIPES[name].values()) == {"model", "method", "embedding", "training", "search", "retrain"}
    budgets = [20_000] if name == "pep_paper" else ["64KB"]  # positions are not met in bytes
    config = from_dict({"recipe": name, "search": {"budgets": budgets}})
    check_options(config)
    assert config.data == Config().data
    assert "recipe" not in config.to_dict()
    assert from_dict(config.to_dict()) == config


def test_any_key_overrides_the_recipe(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(
        "recipe: smallest\nmodel: {hidden: [8]}\nretrain: {epochs: 3}\nsearch: {budgets: [30KB]}\n"
    )
    config = load(path, ["retrain.max_size=6", "training.weight_decay=0"])
    assert config.model == Choice("deepfm", {"hidden": [8], "dropout": 0})
    assert (config.retrain.epochs, config.retrain.max_size, config.retrain.code_dims) == (3, 6, 3)
    assert (config.training.epochs, config.training.weight_decay) == (14, 0)
    assert (config.search.budgets, config.search.epochs) == (("30KB",), 6)


def test_another_entry_does_not_take_the_options_of_the_recipe() -> None:
    assert from_dict({"recipe": "smallest", "model": "fm"}).model == Choice("fm")
    assert from_dict({"recipe": "pep", "method": {"name": "frequency"}}).method == Choice("frequency")
    pep = from_dict({"recipe": "pep", "method": {"name": "pep", "regime": "data"}}).method
    assert pep.options == {"granularity": "feature-dimension", "regime": "data"}


def test_the_command_line_names_a_recipe(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("recipe: pep\nretrain: {epochs: 3}\n")
    config = load(path, ["retrain.patience=5", "recipe=large_vocabulary"])
    assert config.method == Choice("code_saliency", {"row_cost": 3})
    assert (config.retrain.epochs, config.retrain.patience) == (3, 5)
    path.write_text("")
    assert load(path, ["recipe=pep"]) == from_dict({"recipe": "pep"})


@pytest.mark.parametrize("given", ["smalest", 3, ["pep"]])
def test_an_unknown_recipe_is_named(given: Any) -> None:
    with pytest.raises(UserError) as caught:
        from_dict({"recipe": given})
    assert f"recipe: got {given!r}, which is unknown (" in str(caught.value)
    assert "smallest" in str(caught.value)


def test_a_recipe_that_is_read_is_not_changed_by_whoever_reads_it() -> None:
    RECIPES["pep"].values()["training"]["epochs"] = 1
    assert from_dict({"recipe": "pep"}).training.epochs == 14


def test_a_section_that_is_none_is_named_with_a_recipe_too() -> None:
    with pytest.raises(UserError, match="training: got 3; it must be a section"):
        from_dict({"recipe": "pep", "training": 3})
    assert from_dict({"recipe": "pep", "training": None}).training.epochs == 14
