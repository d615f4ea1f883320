"""What the keys of earlier configurations are called now, for whoever has one."""

from __future__ import annotations

OLD_SECTIONS = ("training", "method", "search", "retrain")
"""Sections that there are no longer."""
_STORE = (
    "max_size",
    "size_step",
    "first_order",
    "linear_bits",
    "fingerprint_bits",
    "code_dims",
    "code_levels",
    "code_start",
    "code_choice",
    "code_learning_rate",
)
MOVED = {
    "training": "train",
    "training.teacher": "teach.teachers",
    "training.label_weight": "teach.label_weight",
    "training.pairs": "teach.pairs",
    "method": "compact.sizes",
    "search": "compact.sizes",
    "search.budgets": "compact.budgets",
    "search.skip_fields": "compact.skip_fields",
    "retrain": "compact.train",
    "retrain.form": "compact.store.name",
    "retrain.methods": "compact.endpoints",
    "retrain.model": "compact.model",
    "retrain.teacher": "compact.teach.teachers",
    "retrain.label_weight": "compact.teach.label_weight",
    "retrain.pairs": "compact.teach.pairs",
    **{f"retrain.{key}": f"compact.store.{key}" for key in _STORE},
}
"""The present key, or the present section for all other keys of an old one."""


def present_key(section: str, key: str) -> str:
    """What a key of one of `OLD_SECTIONS` is called now; of the section alone with an empty key."""
    old = f"{section}.{key}" if key else section
    return MOVED.get(old, f"{MOVED[section]}.{key}")
