"""Items by their attributes: a vector for each value, added to an item's own row and baked into it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ondevice import next_item
from ondevice.config.file import load
from ondevice.data import Dataset, load_dataset
from ondevice.errors import ConfigError
from ondevice.models.item_attributes import ItemAttributes
from ondevice.run.next_item import NextItemPipeline, item_info, without_attributes
from ondevice.training.next_item import NextItemFit

from ..conftest import write_movielens

CONFIG = Path(__file__).resolve().parents[2] / "train" / "configs" / "movielens_1m_next_item_attributes.yaml"
SMALL = ("embedding.dim=4", "train.epochs=2", "run.progress=false", "run.device=cpu", "model.last=6")


def genre_films(folder: Path) -> Path:
    """MovieLens in small, with films of one genre or of two."""
    write_movielens(folder)
    films = (folder / "movies.dat").read_text().splitlines()
    genres = ("Drama", "Comedy|Drama", "Western")
    lines = [f"{film.rsplit('::', 1)[0]}::{genres[at % 3]}\n" for at, film in enumerate(films)]
    (folder / "movies.dat").write_text("".join(lines))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return genre_films(tmp_path_factory.mktemp("attributes") / "ml")


@pytest.fixture(scope="module")
def data(folder: Path) -> Dataset:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ONDEVICE_CACHE", str(folder / "cache"))
        return load_dataset(
            "movielens_1m", folder=folder, fields="next_item_attributes", split="leave_last_out"
        )


def made(data: Dataset, model: str = "two_tower") -> next_item.NextItemRecommender:
    torch.manual_seed(0)
    attributes = ItemAttributes.of(data, 4)
    made = next_item.build(
        item_info(data), model=model, model_options={"last": 6}, dim=4, init_std=0.3, attributes=attributes
    )
    assert attributes is not None
    torch.nn.init.normal_(attributes.weight)
    torch.nn.init.normal_(made.first_order.weight)
    return made.eval()


def test_an_item_is_its_row_and_the_mean_of_those_of_its_genres(data: Dataset) -> None:
    recommender, attributes = made(data), ItemAttributes.of(data, 4)
    assert attributes is not None
    attributes = recommender.attributes
    assert attributes is not None
    years, genres = attributes.keys
    assert genres == ["Comedy", "Drama", "Western"]
    begin = 1 + len(years)
    vectors, biases = recommender.item_vectors()
    key_of = [str(key) for key in data.vocabulary.keys[data.schema.names.index("item")]]
    for place in range(recommender.num_items):
        number = int(key_of[place]) - 1  # of the film in the file
        mine = {0: [1], 1: [0, 1], 2: [2]}[number % 3]
        year = data.vocabulary.encode_column(data.schema.names.index("year"), [1980 + number + 1])[0]
        row = year - int(data.vocabulary.field_offsets[data.schema.names.index("year")])
        expected = attributes.weight[row] + attributes.weight[[begin + g for g in mine]].mean(0)
        torch.testing.assert_close(vectors[place], recommender.embedding.weight[place + 1] + expected[:-1])
        torch.testing.assert_close(biases[place], recommender.first_order.weight[place + 1, 0] + expected[-1])


def test_a_baked_recommender_is_equal_and_has_no_attributes(data: Dataset) -> None:
    recommender = made(data)
    baked = recommender.baked()
    assert baked.attributes is None
    histories = torch.tensor([[0, 0, 0, 0, 1, 5], [3, 2, 1, 7, 8, 9], [0, 0, 0, 0, 0, 0]])
    with torch.no_grad():
        torch.testing.assert_close(baked(histories), recommender(histories))


def test_values_are_fitted_to_vectors_of_items_by_how_often_they_occur(data: Dataset) -> None:
    """Vectors that are sums of values' rows are found again where every item occurs often, and others do not count."""
    attributes = made(data).attributes
    assert attributes is not None
    items = torch.arange(1, len(attributes.ids))
    wanted = attributes(items).detach()
    vectors, counts = wanted.clone(), torch.full((len(items),), 9)
    vectors[0], counts[0] = 1e3, 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ondevice.models.item_attributes.PULL", 1e-4)
        attributes.fit(items, vectors, counts)
    torch.testing.assert_close(attributes(items)[1:], wanted[1:], rtol=1e-2, atol=1e-2)
    assert not attributes.weight[0].any()


def test_an_item_without_its_row_is_its_attributes(data: Dataset) -> None:
    recommender = made(data)
    assert recommender.attributes is not None
    recommender.kept = torch.ones(1 + recommender.num_items)
    recommender.kept[2] = 0.0
    ids = torch.tensor([[1, 2]])
    with torch.no_grad():
        expected = recommender.attributes(ids)[0]
        torch.testing.assert_close(recommender.embed(ids)[0, 1], expected[1, :-1])
        torch.testing.assert_close(recommender.biases(ids)[0, 1], expected[1, -1])
        assert not torch.allclose(recommender.embed(ids)[0, 0], expected[0, :-1])


def test_a_data_set_without_attributes_is_the_one_that_has_none(data: Dataset, folder: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ONDEVICE_CACHE", str(folder / "cache"))
        plain = load_dataset("movielens_1m", folder=folder, fields="next_item", split="leave_last_out")
    kept = without_attributes(data)
    assert kept.schema == plain.schema
    assert kept.vocabulary == plain.vocabulary
    assert np.array_equal(kept.counts, plain.counts)
    for split in ("train", "valid", "test"):
        assert np.array_equal(np.asarray(kept.split(split).ids), np.asarray(plain.split(split).ids))
    assert kept.catalog is not None
    assert plain.catalog is not None
    assert kept.catalog.raw == plain.catalog.raw
    assert np.array_equal(kept.catalog.ids, plain.catalog.ids)
    assert kept.sequences is not None
    assert plain.sequences is not None
    assert np.array_equal(kept.sequences.items, plain.sequences.items)
    assert without_attributes(plain) is plain


@pytest.mark.parametrize("loss", ["softmax", "sampled_softmax"])
def test_item_dropout_leaves_rows_out_of_steps(
    folder: Path, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, loss: str
) -> None:
    shares = []
    original = NextItemFit._users

    def counted(self: NextItemFit, *arguments: torch.Tensor) -> torch.Tensor:
        assert self.recommender.kept is not None
        shares.append(float(self.recommender.kept.mean()))
        return original(self, *arguments)

    monkeypatch.setattr(NextItemFit, "_users", counted)
    overrides = [f"data.folder={folder}", *SMALL, "train.item_dropout=0.4", f"train.loss={loss}"]
    metrics = NextItemPipeline(load(CONFIG, overrides), tmp_path / "run").run()
    assert 0.5 < sum(shares) / len(shares) < 0.7
    assert metrics["dense"]["test"]["all"]["ndcg@10"] > 0


def test_item_dropout_needs_attributes(folder: Path, tmp_path: Path, cache: Path) -> None:
    overrides = [f"data.folder={folder}", *SMALL, "data.fields=next_item", "train.item_dropout=0.5"]
    with pytest.raises(ConfigError, match=r"train\.item_dropout: got 0\.5, but items of schema"):
        NextItemPipeline(load(CONFIG, overrides), tmp_path / "run").run()
