"""Recipes: starting points that a configuration names by ``recipe:`` and changes key by key.

A recipe says all but the data, its budgets and its fields; ``train/configs`` has one configuration for each.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from ondevice.config.sections import Config
from ondevice.config.stores import STORES
from ondevice.errors import ConfigError, nearest


@dataclass(frozen=True)
class Recipe:
    """A starting point.

    Args:
        sentence: what it is for.
        text: its sections, as YAML.
    """

    sentence: str
    text: str

    def values(self) -> dict[str, Any]:
        """Its sections as plain values, which the caller may change."""
        values: dict[str, Any] = yaml.safe_load(self.text)
        return values


RECIPES = {
    "smallest": Recipe(
        "The smallest program at a dense DeepFM's quality: a factorization machine in residual codes, taught by three "
        "DeepFMs.",
        """
model: {name: deepfm, hidden: [100, 100], dropout: 0}
embedding: {dim: 32}
train: {epochs: 14, patience: 2, ema_decay: 0.998, weight_decay: 5.0e-4}
compact:
  endpoints: [forward]
  model: {name: fm}
  sizes: {name: code_saliency, epochs: 6}
  store:
    name: codes
    first_order: projection
    max_size: 9
    size_step: 3
    code_dims: 3
    code_levels: 2
    code_start: 0.5
    code_choice: loss
  teach: {teachers: [dense, dense+1, dense+2], pairs: 0.5, label_weight: 0.1}
  train:
    epochs: 12
    patience: 12
    learning_rate: 1.0e-2
    schedule: cosine
    weight_decay: 1.0e-6
    ema_decay: 0.998
""",
    ),
    "pep": Recipe(
        "Sizes learnt by PEP for a budget, values in int8, retrained with the dense DeepFM as teacher.",
        """
model: {name: deepfm, hidden: [100, 100], dropout: 0}
embedding: {dim: 32}
train: {epochs: 14, patience: 2, ema_decay: 0.998, weight_decay: 5.0e-4}
compact:
  model: {hidden: [56, 32], dropout: 0}
  sizes:
    name: pep
    granularity: feature-dimension
    regime: budget
    epochs: 3
    threshold_learning_rate: 1.0e-2
  store: {name: int8, first_order: projection, max_size: 8, size_step: 2}
  teach: {teachers: [dense], label_weight: 0.2}
  train:
    epochs: 10
    patience: 10
    learning_rate: 2.0e-3
    schedule: cosine
    weight_decay: 0.0
    ema_decay: 0.998
""",
    ),
    "pep_codes": Recipe(
        "Sizes learnt by PEP in the loss's own units, beginning with the dense DeepFM, which is the teacher as well; "
        "values in codes of two dimensions.",
        """
model: {name: deepfm, hidden: [100, 100], dropout: 0}
embedding: {dim: 32}
train: {epochs: 14, patience: 2, ema_decay: 0.998, weight_decay: 5.0e-4}
compact:
  model: {hidden: [56, 32], dropout: 0}
  sizes:
    name: pep
    granularity: feature-dimension
    regime: loss
    epochs: 1
    learning_rate: 1.0e-5
    threshold_learning_rate: 1.0e-3
  store: {name: codes, first_order: projection, max_size: 8, size_step: 2, code_dims: 2}
  teach: {teachers: [dense], label_weight: 0.2}
  train:
    epochs: 6
    patience: 6
    learning_rate: 2.0e-3
    schedule: cosine
    weight_decay: 0.0
    ema_decay: 0.998
""",
    ),
    "pep_paper": Recipe(
        "Side by side with the PEP paper's released code: its model and settings, positions kept as they were found. "
        "First-order weights are neither pruned nor counted there, so here they keep a method of their own.",
        """
model: {name: fm}
embedding: {dim: 32, first_order: uniform}
train: {epochs: 40, patience: 4, weight_decay: 1.0e-5}
compact:
  sizes:
    name: pep
    granularity: feature-dimension
    regime: decay
    threshold_init: -15
    epochs: 80
    weight_decay: 1.0e-5
  store: {name: positions}
  train: {epochs: 80, patience: 6, weight_decay: 1.0e-5}
""",
    ),
    "large_vocabulary": Recipe(
        "Hundreds of thousands of values, most of them worth less than their key: fingerprints of a byte, a key "
        "counted as three values, and a factorization machine in residual codes, taught by five DeepFMs on real rows "
        "alone.",
        """
model: {name: deepfm, hidden: [100, 100], dropout: 0}
embedding: {dim: 32}
train: {epochs: 8, patience: 2, ema_decay: 0.998, weight_decay: 2.0e-4}
compact:
  endpoints: [forward]
  model: {name: fm}
  sizes: {name: code_saliency, row_cost: 3, epochs: 3}
  store:
    name: codes
    first_order: projection
    fingerprint_bits: 8
    max_size: 9
    size_step: 3
    code_dims: 3
    code_levels: 2
    code_start: 0.5
    code_choice: loss
  teach: {teachers: [dense, dense+1, dense+2, dense+3, dense+4], pairs: 0, label_weight: 0.2}
  train:
    epochs: 12
    patience: 12
    learning_rate: 5.0e-3
    schedule: cosine
    weight_decay: 1.0e-5
    ema_decay: 0.998
""",
    ),
    "next_item": Recipe(
        "What comes next, from what somebody did before: self-attention over their last 50 items, which knows nobody.",
        """
model: {name: sasrec, last: 50, num_blocks: 2, num_heads: 2, dropout: 0.2}
embedding: {dim: 64}
train:
  loss: softmax
  batch_size: 128
  epochs: 30
  patience: 30
  learning_rate: 2.0e-3
  schedule: cosine
  warmup: 0.05
  ema_decay: 0.99
  precision: bfloat16
""",
    ),
    "next_item_compact": Recipe(
        "What comes next in a tenth of the bytes: a decayed pooling whose items are residual codes, begun with its "
        "dense model and taught the ranking of all items.",
        """
model: {name: decayed_pooling, last: 50, dropout: 0.2}
embedding: {dim: 64}
train:
  loss: softmax
  batch_size: 128
  epochs: 30
  patience: 30
  learning_rate: 2.0e-3
  schedule: cosine
  warmup: 0.05
  ema_decay: 0.99
  precision: bfloat16
research: {start: dense}
compact:
  model: {name: decayed_pooling, last: 50, hidden: 128, dropout: 0}
  sizes: {name: code_saliency, epochs: 3}
  store:
    name: codes
    first_order: none
    linear_bits: 4
    max_size: 64
    size_step: 4
    code_dims: 4
    code_levels: 2
    code_start: 0.05
    code_choice: nearest
  teach: {teachers: [dense], pairs: 0, label_weight: 0.2}
  train:
    loss: softmax
    batch_size: 128
    epochs: 6
    patience: 8
    learning_rate: 2.0e-3
    schedule: cosine
    warmup: 0.05
    ema_decay: 0.99
    precision: bfloat16
""",
    ),
}
"""The recipes by name."""


SECTIONS = ("compact", "compact.sizes", "compact.store", "compact.teach", "compact.train")
"""Sections that have sections, or are in one."""
SHORT = {
    "data": "name",
    "model": "name",
    "compact.sizes": "name",
    "compact.store": "name",
    "distributed": "mode",
}
"""What a section's value is when it is written without keys: ``model=fm``, ``distributed: ddp``."""


def options_kept(where: str, options: Mapping[str, Any], name: Any) -> dict[str, Any]:
    """What stays of a section's options when it names another entry: of a store, those that both have; else none.

    Args:
        where: the section.
        options: its keys, the name of the entry among them.
        name: of the entry that is now chosen.
    """
    before = options.get("name", Config().compact.store.name if where == "compact.store" else None)
    if name == before:
        return dict(options)
    if where != "compact.store" or name not in STORES or before not in STORES:
        return {}
    takes = {kind: {field.name for field in dataclasses.fields(STORES[kind])} for kind in (before, name)}
    gone = takes[before] - takes[name] | {"name"}
    return {key: value for key, value in options.items() if key not in gone}


def with_recipe(values: Mapping[str, Any]) -> dict[str, Any]:
    """Plain values with those of their ``recipe:`` below them; without one, as they are.

    A key that is given replaces the recipe's. Where another data set, model or method is named, the recipe's options
    of its own one go with it.

    Raises: ConfigError: for an unknown recipe.
    """
    given = dict(values)
    name = given.pop("recipe", None)
    if name is None:
        return given
    if not isinstance(name, str) or name not in RECIPES:
        raise ConfigError(f"recipe: got {name!r}, which is unknown {nearest(str(name), RECIPES)}")
    merged = RECIPES[name].values()
    for section, keys in given.items():
        _merge(section, section, merged, keys)
    return merged


def _merge(where: str, key: str, below: dict[str, Any], given: Any) -> None:
    """Lay what is given under ``key`` over what is there; what no section can be is left for `from_dict` to refuse."""
    if isinstance(given, str) and SHORT.get(where) == "name":
        given = {"name": given}
    lower = below.get(key)
    if "." in where and where not in SECTIONS:
        below[key] = given  # a single value
    elif not isinstance(given, Mapping):
        if given is not None or key not in below:
            below[key] = given
    else:
        merged = dict(lower or {})
        if "name" in given:
            merged = options_kept(where, merged, given["name"])
        for name, value in given.items():
            _merge(f"{where}.{name}", name, merged, value)
        below[key] = merged
