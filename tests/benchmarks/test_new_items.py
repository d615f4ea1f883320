"""Items held out of training, and where their attributes put them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.new_items import HeldOut, by_chance, compacted, fitted, measured
from ondevice import next_item
from ondevice.data import load_dataset
from ondevice.data.splits import SPLITS
from ondevice.forms.table import table_info
from ondevice.training.windows import Log, Windows

from ..models.test_item_attributes import genre_films


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> HeldOut:
    folder = tmp_path_factory.mktemp("held")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ONDEVICE_CACHE", str(folder / "cache"))
        data = load_dataset(
            "movielens_1m",
            folder=genre_films(folder / "ml"),
            fields="next_item_attributes",
            split="leave_last_out",
        )
    return HeldOut(data, seed=0)


def test_training_sees_nothing_of_new_items(held: HeldOut) -> None:
    whole = Log.of(held.dataset)
    assert (held.num_new, held.num_known) == (3, 27)
    new = set(held.order[1 + held.num_known :].tolist())
    assert np.array_equal(held.log.items == 0, [item in new or item == 0 for item in whole.items])
    windows = Windows(held.log, 6, 2, 16, torch.device("cpu"))
    assert max(int(items.max()) for _, items, _ in windows.epoch(0)) <= held.num_known


def test_the_moments_of_new_items_are_all_there(held: HeldOut) -> None:
    whole = Log.of(held.dataset)
    new = set(held.order[1 + held.num_known :].tolist())
    torch.manual_seed(0)
    recommender = next_item.build(
        table_info([0, 1 + held.num_known], held.log.counts()),
        model="two_tower",
        model_options={"last": 6},
        dim=4,
        attributes=held.attributes(4),
    ).eval()
    assert recommender.attributes is not None
    result = measured(held, recommender, recommender.attributes)
    later = whole.items[whole.division != SPLITS.index("train")]
    assert result["new items"]["moments"] == sum(item in new for item in later.tolist())
    tests = whole.items[whole.division == SPLITS.index("test")]
    assert result["known items"]["moments"] == sum(item not in new and item != 0 for item in tests.tolist())
    assert 0 <= result["new items"]["ndcg@10"] <= 1


def test_a_compact_model_has_attributes_fitted_to_its_codes(held: HeldOut) -> None:
    torch.manual_seed(0)
    dense = next_item.build(
        table_info([0, 1 + held.num_known], held.log.counts()),
        model="two_tower",
        model_options={"last": 50, "hidden": [128]},
        dim=64,
        attributes=held.attributes(64),
    ).eval()
    made = compacted(held, dense, 0)
    attributes = fitted(held, made)
    assert made.embedding.learns_codes
    sizes = made.forms()[0].row_sizes()
    assert 0.8 * 32 * held.num_known < int(sizes.sum()) <= 32 * held.num_known
    assert not sizes[0]
    assert bool(sizes[1:].all())
    shares = attributes.shares[1 : 1 + held.num_known]
    known = attributes.ids[1 : 1 + held.num_known][shares > 0].unique()
    assert torch.equal(attributes.weight.any(1).nonzero()[:, 0], known)
    assert measured(held, made, attributes)["new items"]["mrr"] > 0


def test_by_chance_by_hand() -> None:
    """Of four items the first two places: (1 + 1 / log₂ 3) / 4."""
    assert by_chance(4, 2) == pytest.approx(
        {"hr@2": 0.5, "ndcg@2": (1 + 1 / np.log2(3)) / 4, "mrr": (1 + 1 / 2 + 1 / 3 + 1 / 4) / 4}
    )
