"""Budgets in bytes: what training estimates of a bundle against what is exported.

So do the tests of programs (`tests/program/test_lower.py`), for every model and for codes, with what they export.
"""

from __future__ import annotations

import pytest

from ondevice.data import Dataset
from ondevice.data.value_names import VALUE_NAMES
from ondevice.forms.codes import Codes
from ondevice.forms.sizes import Sizes
from ondevice.program.endpoints import ENDPOINTS
from ondevice.program.export import Exported, ExportOptions, export_model
from ondevice.recommender import Recommender

from ..program import shop
from ..program.estimates import assert_close, estimated

NAME = "shop-deepfm"


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


@pytest.mark.parametrize("width", [2, 8])
def test_no_first_order_weights_and_one_column(data: Dataset, width: int) -> None:
    sizes = shop.forms(data, "staircase")[0].row_sizes().clamp(max=1) * width
    recommender = shop.recommender("deepfm", "staircase", data, table_forms=[Sizes(sizes, width)])
    assert_close(made(recommender, data, ENDPOINTS[:1]), data, ENDPOINTS[:1])


def test_cells_that_do_not_divide_the_dimension(data: Dataset) -> None:
    sizes = shop.forms(data, "staircase")[0].row_sizes() // 2
    sizes = sizes.new_tensor([0, 3, 8, 13])[sizes]
    recommender = shop.recommender(
        "deepfm", "staircase", data, table_forms=[Sizes(sizes, 13)], projected=True
    )
    assert_close(made(recommender, data, ENDPOINTS[:1]), data, ENDPOINTS[:1])


def test_names_of_values_that_go_with_a_catalog(data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """They stand in the manifest, which a budget counts."""
    names = {"genre": {f"genre {number}": "a name of a genre" * 3 for number in range(20)}}
    monkeypatch.setitem(VALUE_NAMES, data.schema.name, names)
    recommender, options = (
        shop.recommender("fm", "staircase", data),
        ExportOptions(methods=ENDPOINTS[:1], catalog=True),
    )
    exported = export_model(
        recommender, data, name=NAME, model="fm", method="pep", metrics={}, options=options, check=False
    )
    assert exported.bundle.manifest["labels"] == names
    assert_close(exported, data, ENDPOINTS[:1])


def test_fingerprints_in_place_of_keys(data: Dataset) -> None:
    recommender, endpoints = shop.coded_recommender("fm", data), ENDPOINTS[:1]
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
    recommender = shop.recommender("deepfm", "staircase", data, table_forms=[Codes(sizes, 12, 4)])
    recommender.embedding.begin_codes()  # type: ignore[operator]
    assert_close(made(recommender.train().eval(), data, ENDPOINTS[:1]), data, ENDPOINTS[:1])
