"""Recipes: starting points that a configuration names by ``recipe:`` and changes key by key.

A recipe says all but the data, its budgets and its fields; ``train/configs`` has one configuration for each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from ondevice.config.sections import Choice, Config
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
method: {name: code_saliency}
embedding: {dim: 32}
training: {epochs: 14, patience: 2, ema_decay: 0.998, weight_decay: 5.0e-4}
search: {epochs: 6}
retrain:
  methods: [forward]
  model: {name: fm}
  teacher: [dense, dense+1, dense+2]
  pairs: 0.5
  label_weight: 0.1
  epochs: 12
  patience: 12
  learning_rate: 1.0e-2
  schedule: cosine
  weight_decay: 1.0e-6
  ema_decay: 0.998
  first_order: projection
  max_size: 9
  size_step: 3
  code_dims: 3
  code_levels: 2
  code_start: 0.5
  code_choice: loss
""",
    ),
    "pep": Recipe(
        "Sizes learnt by PEP for a budget, values in int8, retrained with the dense DeepFM as teacher.",
        """
model: {name: deepfm, hidden: [100, 100], dropout: 0}
method: {name: pep, granularity: feature-dimension, regime: budget}
embedding: {dim: 32}
training: {epochs: 14, patience: 2, ema_decay: 0.998, weight_decay: 5.0e-4}
search: {epochs: 3, threshold_learning_rate: 1.0e-2}
retrain:
  teacher: [dense]
  label_weight: 0.2
  epochs: 10
  learning_rate: 2.0e-3
  schedule: cosine
  patience: 10
  weight_decay: 0.0
  ema_decay: 0.998
  model: {hidden: [56, 32], dropout: 0}
  first_order: projection
  max_size: 8
  size_step: 2
""",
    ),
    "pep_paper": Recipe(
        "Side by side with the PEP paper's released code: its model and settings, positions kept as they were found. "
        "First-order weights are neither pruned nor counted there, so here they keep a method of their own.",
        """
model: {name: fm}
method: {name: pep, granularity: feature-dimension, regime: decay, threshold_init: -15}
embedding: {dim: 32, first_order: uniform}
training: {epochs: 40, patience: 4, weight_decay: 1.0e-5}
search: {epochs: 80, weight_decay: 1.0e-5}
retrain: {form: positions, epochs: 80, patience: 6, weight_decay: 1.0e-5}
""",
    ),
    "large_vocabulary": Recipe(
        "Hundreds of thousands of values, most of them worth less than their key: fingerprints of a byte, a key "
        "counted as three values, and a factorization machine in residual codes, taught by five DeepFMs on real rows "
        "alone.",
        """
model: {name: deepfm, hidden: [100, 100], dropout: 0}
method: {name: code_saliency, row_cost: 3}
embedding: {dim: 32}
training: {epochs: 8, patience: 2, ema_decay: 0.998, weight_decay: 2.0e-4}
search: {epochs: 3}
retrain:
  methods: [forward]
  model: {name: fm}
  teacher: [dense, dense+1, dense+2, dense+3, dense+4]
  pairs: 0
  label_weight: 0.2
  epochs: 12
  patience: 12
  learning_rate: 5.0e-3
  schedule: cosine
  weight_decay: 1.0e-5
  ema_decay: 0.998
  first_order: projection
  max_size: 9
  size_step: 3
  code_dims: 3
  code_levels: 2
  code_start: 0.5
  code_choice: loss
  fingerprint_bits: 8
""",
    ),
}
"""The recipes by name."""


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
        below = merged.get(section, {})
        is_choice = isinstance(getattr(Config(), section, None), Choice)
        if is_choice and isinstance(keys, str):
            keys = {"name": keys}
        if not isinstance(keys, Mapping):
            if keys is not None or section not in merged:
                merged[section] = keys  # `from_dict` says what is wrong with it
        elif is_choice and keys.get("name", below.get("name")) != below.get("name"):
            merged[section] = dict(keys)
        else:
            merged[section] = {**below, **keys}
    return merged
