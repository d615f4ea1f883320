"""Budgets in bytes: what training estimates of a bundle against what is exported."""

from __future__ import annotations

import pytest

from ondevice.bundle.estimate import bundle_bytes
from ondevice.data import Dataset
from ondevice.forms.codes import Codes
from ondevice.forms.sizes import Sizes
from ondevice.models import MODELS
from ondevice.program.endpoints import ENDPOINTS
from ondevice.program.export import Exported, ExportOptions, export_model
from ondevice.recommender import Recommender

from ..program import shop
from ..program.conftest import Export

NAME = "shop-deepfm"
SMALLEST = 24_000
"""The smallest budget that is to be used to within 5 %; these programs are smaller, their constant part is not."""


def estimated(
    recommender: Recommender, data: Dataset, endpoints: tuple[str, ...], fingerprint_bits: int | None = None
) -> int:
    forms = recommender.forms()
    projected = recommender.projection is not None
    return bundle_bytes(forms, recommender.model, data, endpoints, projected, fingerprint_bits)


def assert_close(exported: Exported, data: Dataset, endpoints: tuple[str, ...]) -> None:
    """Never below, so that a budget holds, and at most 5 % above, so that it is used."""
    catalog = exported.bundle.file_bytes().get("catalog.bin", 0)  # budgets are of bundles without
    real = exported.bundle.total_bytes - catalog
    above = estimated(exported.recommender, data, endpoints) - real
    assert 0 <= above <= 0.05 * max(real, SMALLEST), (exported.byte_parts(), above)


@pytest.mark.parametrize("model", sorted(MODELS))
@pytest.mark.parametrize("endpoints", [ENDPOINTS[:1], ENDPOINTS])
def test_every_model_and_method(
    export: Export, data: Dataset, model: str, endpoints: tuple[str, ...]
) -> None:
    exported = export(model, "staircase", "int8", endpoints)
    assert "catalog.bin" in exported.bundle.file_bytes()
    assert_close(exported, data, endpoints)


def made(recommender: Recommender, data: Dataset, endpoints: tuple[str, ...]) -> Exported:
    options = ExportOptions(methods=endpoints, top_k=5)
    return export_model(
        recommender,
        data,
        name=NAME,
        model="deepfm",
        method="pep",
        metrics={"valid_auc": 0.90123, "test_auc": 0.90123},
        options=options,
        check=False,
    )


@pytest.mark.parametrize("levels", [1, 2])
@pytest.mark.parametrize("endpoints", [ENDPOINTS[:1], ENDPOINTS[:2], ENDPOINTS])
def test_codes_and_projections(data: Dataset, endpoints: tuple[str, ...], levels: int) -> None:
    assert_close(
        made(shop.coded_recommender("deepfm", data, levels=levels), data, endpoints), data, endpoints
    )


@pytest.mark.parametrize("width", [2, 4, 8])
def test_no_first_order_weights_and_one_column(data: Dataset, width: int) -> None:
    sizes = shop.forms(data, "staircase")[0].row_sizes().clamp(max=1) * width
    recommender = shop.recommender("deepfm", "staircase", data, own=[Sizes(sizes, width)])
    assert_close(made(recommender, data, ENDPOINTS[:2]), data, ENDPOINTS[:2])


def test_cells_that_do_not_divide_the_dimension(data: Dataset) -> None:
    sizes = shop.forms(data, "staircase")[0].row_sizes() // 2
    sizes = sizes.new_tensor([0, 3, 8, 13])[sizes]
    recommender = shop.recommender("deepfm", "staircase", data, own=[Sizes(sizes, 13)], projected=True)
    assert_close(made(recommender, data, ENDPOINTS[:2]), data, ENDPOINTS[:2])


def test_fingerprints_in_place_of_keys(data: Dataset) -> None:
    recommender, endpoints = shop.coded_recommender("fm", data), ENDPOINTS[:2]
    options = ExportOptions(methods=endpoints, top_k=5, fingerprint_bits=8)
    with_keys = made(recommender, data, endpoints)
    exported = export_model(
        recommender, data, name=NAME, model="deepfm", method="pep", metrics={}, options=options, check=False
    )
    saved = with_keys.bundle.file_bytes()["vocabulary.bin"] - exported.bundle.file_bytes()["vocabulary.bin"]
    assert saved > 0
    assert estimated(recommender, data, endpoints) - estimated(recommender, data, endpoints, 8) == saved


def test_wide_codes_without_first_order_weights(data: Dataset) -> None:
    sizes = shop.forms(data, "staircase")[0].row_sizes() // 2 * 4
    recommender = shop.recommender("deepfm", "staircase", data, own=[Codes(sizes, 12, 4)])
    recommender.embedding.begin_codes()  # type: ignore[operator]
    assert_close(made(recommender.train().eval(), data, ENDPOINTS[:1]), data, ENDPOINTS[:1])
