"""forward, rank and recommend say the same of the same rows."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from ondevice.bundle.catalog import CatalogRows, catalog_items
from ondevice.data import Dataset
from ondevice.errors import UserError
from ondevice.program.endpoints import Rank, Recommend, make_endpoints
from ondevice.program.export import Exported, default_endpoints
from ondevice.program.pack import PackedRecommender, pack

from . import shop


@pytest.fixture(scope="module", params=[False, True], ids=["context first", "sides mixed"])
def mixed(request: pytest.FixtureRequest) -> tuple[Dataset, PackedRecommender]:
    data = shop.dataset(item_first=request.param)
    return data, pack(shop.recommender("deepfm", "staircase", data), "staircase", data.vocabulary.key_texts())


def test_rank_is_forward_of_whole_rows(mixed: tuple[Dataset, PackedRecommender]) -> None:
    data, packed = mixed
    schema = data.schema
    rows = packed.order.rows(shop.all_ids(data, 120))
    rank = Rank(packed, schema.context_fields, schema.item_fields)
    context, items = rows[:1, list(schema.context_fields)], rows[:, list(schema.item_fields)]
    whole = rows.clone()
    whole[:, list(schema.context_fields)] = context
    with torch.no_grad():
        torch.testing.assert_close(rank(context, items), torch.sigmoid(packed(whole)))


def test_recommend_is_the_best_of_rank(mixed: tuple[Dataset, PackedRecommender]) -> None:
    data, packed = mixed
    schema = data.schema
    items = catalog_items(data, packed.order)
    rank = Rank(packed, schema.context_fields, schema.item_fields)
    context = packed.order.rows(shop.all_ids(data, 100))[5:6, list(schema.context_fields)]
    with torch.no_grad():
        scores, index = Recommend(rank, CatalogRows(items.rows), len(items.rows), 7)(context)
        every = rank(context, torch.from_numpy(items.rows))
    best = torch.argsort(every, descending=True)[:7]
    assert torch.equal(index, best)
    assert torch.equal(scores, every[best])


def test_an_item_of_the_catalog_is_the_key_of_its_row(mixed: tuple[Dataset, PackedRecommender]) -> None:
    data, packed = mixed
    items = catalog_items(data, packed.order)
    field = data.schema.names.index("film")
    keys = [key for group in packed.order.field_keys[field].groups for key in group.keys]
    rows = [g.base_row + i for g in packed.order.field_keys[field].groups for i in range(len(g.keys))]
    assert [item["film"] for item in items.described] == keys
    assert items.rows[:, data.schema.item_fields.index(field)].tolist() == rows == sorted(rows)
    assert 10 < len(keys) < shop.NUM_FILMS  # some films keep nothing


@pytest.mark.parametrize(
    ("column", "stored"),
    [
        (np.arange(700, 1200), 0),  # a run: nothing is stored
        (np.concatenate([np.arange(9, 309), np.arange(500, 701)]), 0),  # two runs
        (np.tile([3, 900, 7], 200), 600 + 6),  # a byte each, and three rows of two bytes
        (np.random.default_rng(0).permutation(400), 800),  # more than 256 rows: two bytes each
        (np.random.default_rng(0).permutation(400) * 100, 1600),  # rows above 32,767: four
    ],
)
def test_catalog_columns_take_few_bytes(column: np.ndarray, stored: int) -> None:
    rows = CatalogRows(np.stack([column, column], 1))
    assert torch.equal(rows(), torch.from_numpy(np.stack([column, column], 1)))
    assert rows.stored_bytes() == 2 * stored


def test_methods_are_described_for_the_manifest(exported: Exported) -> None:
    methods = exported.bundle.manifest["methods"]
    assert methods["forward"] == {
        "inputs": [{"name": "ids", "dtype": "int64", "shape": ["batch", 5]}],
        "outputs": [{"name": "scores", "dtype": "float32", "shape": ["batch"]}],
        "max_batch": 64,
    }
    assert methods["rank"]["inputs"][0]["shape"] == ["1", 3]
    assert methods["rank"]["inputs"][1]["shape"] == ["items", 2]
    assert methods["recommend"]["outputs"][1] == {"name": "item_index", "dtype": "int64", "shape": [5]}
    assert methods["recommend"]["k"] == 5


def test_what_the_schema_cannot_serve_is_refused(data: Dataset) -> None:
    packed = pack(shop.recommender("fm", "staircase", data))
    make: Callable[..., object] = make_endpoints
    with pytest.raises(UserError, match=r"unknown endpoint 'forwards' \(did you mean 'forward'"):
        make(packed, ["forwards"], context_columns=(0, 1, 2), item_columns=(3, 4))
    with pytest.raises(UserError, match="needs fields of both sides"):
        make(packed, ["rank"], context_columns=(0, 1, 2, 3, 4), item_columns=())
    with pytest.raises(UserError, match="needs a catalog"):
        make(packed, ["recommend"], context_columns=(0, 1, 2), item_columns=(3, 4))
    assert default_endpoints(data) == ("forward", "rank", "recommend")
