"""Budgets in bytes: the most values whose bundle fits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from ondevice.data import Dataset, load_dataset
from ondevice.embeddings import Form, Sizes
from ondevice.errors import UserError
from ondevice.models import MODELS, BaseModel
from ondevice.training.bytes import bundle_bytes, fixed_bytes, largest_target
from ondevice.training.sizing import shipped_sizes


@pytest.fixture
def dataset(tiny_config: Callable[..., dict[str, Any]]) -> Dataset:
    return load_dataset(**tiny_config()["data"])


def model_of(forms: list[Form]) -> BaseModel:
    return MODELS["deepfm"](3, max(1, int(forms[0].row_sizes().max())), hidden=(8,))


def forms_at(dataset: Dataset, target: int) -> list[Form]:
    """Rows of more occurrences keep more, of at most 16 values."""
    counts = torch.tensor(dataset.counts)
    sizes = (counts.float() / counts.max() * 16).ceil().long()
    return shipped_sizes([Sizes(sizes, 16), Sizes((counts > 0).long(), 1)], target, size_step=2)


def largest(dataset: Dataset, budget: int, limit: int = 78 * 17) -> int:
    return largest_target(budget, limit, lambda target: forms_at(dataset, target), model_of, dataset)


def needed(dataset: Dataset, target: int) -> int:
    forms = forms_at(dataset, target)
    return bundle_bytes(forms, model_of(forms), dataset)


def test_linear_layers_count_a_byte_per_weight() -> None:
    """(3·4·100 + 100·50 + 50) weights and 8 bytes of bias and scale for each of 151 outputs."""
    narrow = fixed_bytes(MODELS["deepfm"](3, 4, hidden=(100, 50)), 0)
    none = fixed_bytes(MODELS["fm"](3, 4), 0)
    assert narrow - none == 1200 + 5000 + 50 + 8 * 151
    assert fixed_bytes(MODELS["fm"](3, 4), 1000) - none == pytest.approx(3000, rel=0.2)


def test_tables_count_a_byte_per_value(dataset: Dataset) -> None:
    """75 rows and one of zeros, four values or two wide; first-order weights or none."""
    counts = torch.tensor(dataset.counts)
    seen = (counts > 0).long()

    def total(size: int, first_order: int) -> int:
        forms: list[Form] = [Sizes(seen * size, 4), Sizes(seen * first_order, 1)]
        return bundle_bytes(forms, MODELS["fm"](3, 4), dataset)

    assert int(seen.sum()) == 75
    assert total(4, 1) - total(2, 1) == 2 * 76
    assert total(4, 1) - total(4, 0) == pytest.approx(76, abs=2)


@pytest.mark.parametrize("spare", [150, 300, 500])
def test_the_largest_target_fits_and_more_does_not(dataset: Dataset, spare: int) -> None:
    budget = needed(dataset, 160) + spare
    target = largest(dataset, budget)
    assert 160 < target < 78 * 17
    assert needed(dataset, target) <= budget
    assert needed(dataset, round(target * 1.03) + 10) > budget


def test_everything_fits_a_large_budget(dataset: Dataset) -> None:
    assert largest(dataset, 10**6) == 78 * 17


def test_a_budget_below_the_program_is_an_error(dataset: Dataset) -> None:
    with pytest.raises(
        UserError, match=r"budget 9,000 bytes: the program.* take about 1\d,\d{3}; allow more"
    ):
        largest(dataset, 9_000)


def test_every_id_has_its_key(dataset: Dataset) -> None:
    texts = dataset.vocabulary.key_texts()
    assert len(texts) == len(dataset.counts)
    offsets = dataset.vocabulary.field_offsets
    assert [texts[i] for i in offsets[:-1]] == [None] * 3
    assert texts[1] == "1"
    assert all(text.startswith("film ") for text in texts[offsets[2] + 1 :])
