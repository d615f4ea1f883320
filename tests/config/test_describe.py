"""Every key has a default and a sentence, and docs/config.md holds just these."""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path

import pytest

from ondevice.config.describe import COMMAND, REGISTRIES, lines, markdown, parts
from ondevice.config.sections import Config, TrainConfig
from ondevice.config.stores import STORES, Int8
from ondevice.registry import Registry

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_the_page_is_what_the_command_writes() -> None:
    assert (DOCS / "config.md").read_text(encoding="utf-8") == markdown(), f"run {COMMAND}"


def test_every_key_of_every_section_is_described() -> None:
    described = {
        f"{key.section}.{key.name}": key for part in parts() for key in part.keys if "=" not in part.title
    }
    options_of_the_store = {f"compact.store.{key}" for key in dataclasses.asdict(Int8())}
    assert set(described) == set(Config().flat()) - options_of_the_store
    assert all(len(key.sentence.split()) > 2 for key in described.values())
    assert described["compact.budgets"].default == "[10%]"
    assert described["compact.train.epochs"].default == "15"
    assert described["compact.store.name"].default == "int8"


@pytest.mark.parametrize("section", REGISTRIES)
def test_every_option_of_every_entry_is_described(section: str) -> None:
    """The docstring of an entry, of a class it extends or of the entry it refers to says what its options mean."""
    registry: Registry[object] = REGISTRIES[section]
    described = {part.title: part for part in parts()}
    for name in registry:
        options = inspect.signature(registry[name]).parameters.values()  # type: ignore[arg-type]
        expected = [option.name for option in options if option.kind is option.KEYWORD_ONLY]
        keys = described[f"{section}={name}"].keys
        assert [key.name for key in keys] == expected
        assert all(len(key.sentence.split()) > 1 for key in keys)


def test_every_option_of_every_store_is_described() -> None:
    described = {part.title: part for part in parts()}
    for name in STORES:
        keys = described[f"compact.store={name}"].keys
        assert [key.name for key in keys] == [entry.name for entry in dataclasses.fields(STORES[name])]
        assert all(len(key.sentence.split()) > 2 for key in keys)


def test_a_key_is_a_line_with_its_default_and_its_sentence() -> None:
    said = lines()
    assert any(line.startswith("train: The training of the dense model") for line in said)
    default = TrainConfig().batch_size
    assert f"  train.batch_size={default}  Real rows per step." in said
    assert "  compact.sizes.batch_size=1024  Rows per step. Read by pep, saliency." in said
    assert "  model.hidden=[100, 100]  width of each hidden layer." in said
    assert said[1].startswith("  recipe=smallest  The smallest program at a dense DeepFM's quality")
    assert not [line for line in said if "\n" in line]
