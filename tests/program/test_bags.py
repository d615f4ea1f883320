"""Fields of several values and numbers, from the eager model to a bundle that is asked with raw values."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from ondevice.bench.dense.baselines import DenseProgram
from ondevice.bundle.estimate import bundle_bytes
from ondevice.data import Dataset
from ondevice.data.slots import POOLINGS, Slots
from ondevice.errors import UserError
from ondevice.forms.pooling import Pooling
from ondevice.forms.table import EmbeddingTable
from ondevice.methods import METHODS
from ondevice.models import MODELS
from ondevice.program.endpoints import ENDPOINTS
from ondevice.program.export import Exported, ExportOptions, export_model
from ondevice.program.pack import pack
from ondevice.recommender import Recommender, rebuild

from . import bags


@pytest.fixture(scope="module")
def data() -> Dataset:
    return bags.dataset()


@pytest.fixture(scope="module")
def recommender(data: Dataset) -> Recommender:
    torch.manual_seed(0)
    made = rebuild(
        bags.info(data),
        model="deepfm",
        model_options={"hidden": (8,)},
        forms=bags.forms(data),
        init_std=0.3,
    )
    return made.eval()


@pytest.fixture(scope="module")
def exported(data: Dataset, recommender: Recommender) -> Exported:
    options = ExportOptions(methods=ENDPOINTS, catalog=True, top_k=5, max_batch=64)
    return export_model(recommender, data, name="bags", model="deepfm", method="pep", options=options)


@pytest.mark.parametrize("poolings", itertools.combinations(POOLINGS, 2))
def test_pooling_by_hand(poolings: tuple[str, str]) -> None:
    """Three slots, one, and two; the ids 0, 10 and 20 are what unknown values read."""
    slots = Slots((3, 1, 2), (poolings[0], None, poolings[1]))
    pooling = Pooling(slots)
    absent = pooling.absent(torch.tensor([0, 0, 0, 10, 20, 20]))
    read = torch.tensor([[1, 0, 2, 10, 20, 20], [0, 0, 3, 11, 21, 22]])
    values = read[..., None] * torch.tensor([1.0, -1.0])
    result = pooling(values, pooling.matrix(read, absent))
    norm = {"mean": 2.0, "sum": 1.0, "sqrt": 2.0**0.5}
    by_hand = [[3 / norm[poolings[0]], 10, 20], [3, 11, 43 / norm[poolings[1]]]]
    torch.testing.assert_close(result, torch.tensor(by_hand)[..., None] * torch.tensor([1.0, -1.0]))


def test_packed_and_dense_programs_equal_the_eager_model(data: Dataset, recommender: Recommender) -> None:
    ids = torch.from_numpy(np.array(data.train.ids, dtype=np.int64))
    packed = pack(recommender, keys=data.vocabulary.key_texts())
    with torch.no_grad():
        torch.testing.assert_close(packed(packed.order.rows(ids)), recommender(ids), atol=1e-5, rtol=1e-5)
    tables = EmbeddingTable(bags.info(data), 4), EmbeddingTable(bags.info(data), 1)
    dense = Recommender(*tables, MODELS["fm"](6, 4))
    with torch.no_grad():
        torch.testing.assert_close(DenseProgram(dense)(ids), torch.sigmoid(dense.eval()(ids)))


def test_composed_rows_are_found_slot_by_slot(data: Dataset) -> None:
    form = METHODS["quotient_remainder"](bags.info(data), 4).compact(200)
    compact = rebuild(bags.info(data), model="fm", model_options={}, forms=[form], init_std=0.3).eval()
    ids = torch.from_numpy(np.array(data.train.ids, dtype=np.int64))
    packed = pack(compact, keys=data.vocabulary.key_texts())
    with torch.no_grad():
        torch.testing.assert_close(packed(packed.order.rows(ids)), compact(ids), atol=1e-5, rtol=1e-5)


def test_the_program_equals_the_eager_model(exported: Exported) -> None:
    assert exported.parity["eager_vs_packed"] < 1e-5
    assert exported.parity["int8_vs_pte_max_abs"] < 1e-3
    assert exported.bundle.check_golden() < 1e-3


def test_raw_rows_take_lists_texts_and_numbers(exported: Exported, data: Dataset) -> None:
    bundle = exported.bundle
    row = {
        "user": 1,
        "tags": ["night", "loud"],
        "film": 7,
        "genres": ["Drama", "Comedy"],
        "year": 1950,
        "moods": 1,
    }
    score = bundle.score(row)
    same = {
        "tags": "loud , unheard-of,night",
        "genres": "Comedy|?|Drama",
        "year": "1950.0",
        "moods": [1, 1, None],
    }
    assert bundle.score({**row, **same}) == pytest.approx(score, abs=1e-6)
    assert bundle.score({**row, "genres": None}) == bundle.score({**row, "genres": ["never seen"]})
    assert bundle.encode(row).shape == (11,)
    with pytest.raises(UserError, match="'moods' takes numbers, not 'glad'"):
        bundle.score({**row, "moods": "glad"})
    with pytest.raises(UserError, match="'year' takes numbers, not 'long ago'"):
        bundle.score({**row, "year": "long ago"})


def test_ranking_recommending_and_the_catalog_agree(exported: Exported, data: Dataset) -> None:
    bundle = exported.bundle
    context = {"user": 1, "tags": ["night"]}
    best = bundle.recommend(context, 5)
    scores = bundle.rank(context, [each["item"] for each in best])
    assert scores == pytest.approx([each["score"] for each in best], abs=1e-5)
    assert bundle.catalog is not None
    assert bundle.catalog[bundle.item_keys.index(7)]["genres"] == ["Drama", "Comedy"]
    assert bundle.rank(context, [{"film": 7, "genres": "Drama|Comedy", "year": 1950, "moods": [1]}]) == (
        pytest.approx(bundle.rank(context, [7]), abs=1e-6)
    )


def test_the_estimate_counts_pooling(exported: Exported, data: Dataset, recommender: Recommender) -> None:
    sizes = exported.bundle.file_bytes()
    sizes.pop("catalog.bin")
    estimate = bundle_bytes(recommender.forms(), recommender.model, data, ENDPOINTS)
    assert estimate == pytest.approx(sum(sizes.values()), rel=0.02)
