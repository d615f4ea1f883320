"""Budgets in bytes: the most values whose bundle fits."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch

from ondevice.bundle.estimate import (
    FIRST_ORDER_BYTES,
    bundle_bytes,
    fixed_bytes,
    largest_target,
    shipped_endpoints,
)
from ondevice.data import Dataset, load_dataset
from ondevice.errors import UserError
from ondevice.forms.base import Form
from ondevice.forms.sizes import Sizes
from ondevice.methods.sizing import shipped_sizes
from ondevice.models import MODELS, BaseModel


@pytest.fixture
def dataset(tiny_config: Callable[..., dict[str, Any]]) -> Dataset:
    return load_dataset(**tiny_config()["data"])


ENDPOINTS = ("forward", "rank", "recommend")


def model_of(forms: list[Form]) -> BaseModel:
    return MODELS["deepfm"](3, max(1, int(forms[0].row_sizes().max())), hidden=(8,))


def forms_at(dataset: Dataset, target: int) -> list[Form]:
    """Rows of more occurrences keep more, of at most 16 values."""
    counts = torch.tensor(dataset.counts)
    sizes = (counts.float() / counts.max() * 16).ceil().long()
    return shipped_sizes([Sizes(sizes, 16), Sizes((counts > 0).long(), 1)], target, size_step=2)


def largest(dataset: Dataset, budget: int, limit: int = 78 * 17) -> int:
    return largest_target(
        budget,
        limit,
        lambda target: forms_at(dataset, target),
        lambda forms: bundle_bytes(forms, model_of(forms), dataset, ENDPOINTS),
    )


def needed(dataset: Dataset, target: int) -> int:
    forms = forms_at(dataset, target)
    return bundle_bytes(forms, model_of(forms), dataset, ENDPOINTS)


def test_linear_layers_count_a_byte_per_weight(dataset: Dataset) -> None:
    """A layer of 12 inputs instead of 4 has 8 more weights for each of 100 outputs; a scale and a bias are 8 bytes."""

    def deepfm(*hidden: int) -> int:
        return fixed_bytes(MODELS["deepfm"](3, 4, hidden=hidden), dataset, ("forward",))

    assert deepfm(100, 50) - deepfm(99, 50) == 12 + 50 + 8
    assert deepfm(100, 50) - deepfm(100) == pytest.approx(5000 + 50 - 100 + 8 * 50, abs=700)


@pytest.mark.parametrize("name", ENDPOINTS[1:])
def test_each_method_adds_bytes(dataset: Dataset, name: str) -> None:
    model, before = MODELS["fm"](3, 4), ENDPOINTS[: ENDPOINTS.index(name)]
    added = fixed_bytes(model, dataset, (*before, name)) - fixed_bytes(model, dataset, before)
    assert 1_000 < added < 4_000


def test_methods_that_ship_are_those_given_or_all_that_the_data_allow(dataset: Dataset) -> None:
    assert shipped_endpoints(None, dataset) == ENDPOINTS
    assert shipped_endpoints(["rank", "forward"], dataset) == ("forward", "rank")
    one_side = dataclasses.replace(dataset, catalog=None)
    assert shipped_endpoints(None, one_side) == ("forward", "rank")
    with pytest.raises(
        UserError, match=r"compact\.endpoints: got 'recommend', but tiny allows forward, rank alone"
    ):
        shipped_endpoints(["recommend"], one_side)


def test_tables_count_a_byte_per_value(dataset: Dataset) -> None:
    """75 rows and one of zeros, four values or two wide; first-order weights or none."""
    counts = torch.tensor(dataset.counts)
    seen = (counts > 0).long()

    def total(size: int, first_order: int) -> int:
        forms: list[Form] = [Sizes(seen * size, 4), Sizes(seen * first_order, 1)]
        return bundle_bytes(forms, MODELS["fm"](3, 4), dataset, ENDPOINTS)

    assert int(seen.sum()) == 75
    assert total(4, 1) - total(2, 1) == 2 * 76
    assert total(4, 1) - total(4, 0) == pytest.approx(76 + sum(FIRST_ORDER_BYTES.values()), abs=2)


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
        UserError, match=r"budget 6,000 bytes: the program.* take about (9|1\d),\d{3}; allow more"
    ):
        largest(dataset, 6_000)


def test_every_id_has_its_key(dataset: Dataset) -> None:
    texts = dataset.vocabulary.key_texts()
    assert len(texts) == len(dataset.counts)
    offsets = dataset.vocabulary.field_offsets
    assert [texts[i] for i in offsets[:-1]] == [None] * 3
    assert texts[1] == "1"
    assert all(text.startswith("film ") for text in texts[offsets[2] + 1 :])
