"""The catalogue ranked by a model of ratings, against a plain loop over what people did."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ondevice.cli.train import table_lines
from ondevice.config.file import from_dict
from ondevice.data import Dataset, load_dataset
from ondevice.errors import ConfigError
from ondevice.forms.table import EmbeddingTable, table_info
from ondevice.models.fm import FM
from ondevice.recommender import Recommender
from ondevice.run.pipeline import Pipeline
from ondevice.training import rank_rows as module
from ondevice.training.rank_rows import Contexts, rank_rows
from ondevice.training.ranking import UNRANKED

from ..conftest import write_movielens
from ..runs import Make


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_movielens(tmp_path_factory.mktemp("ranked") / "ml")


def movielens(folder: Path, fields: str) -> Dataset:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ONDEVICE_CACHE", str(folder / "cache"))
        return load_dataset("movielens_1m", folder=folder, fields=fields, split="temporal")


def model(data: Dataset) -> Recommender:
    torch.manual_seed(0)
    offsets, slots = data.vocabulary.field_offsets, data.schema.slots
    info = table_info(offsets, data.counts, data.vocabulary.key_texts, slots)
    tables = EmbeddingTable(info, 4, init_std=0.5), EmbeddingTable(info, 1, init_std=0.5)
    return Recommender(*tables, FM(len(slots.widths), 4)).eval()


def best(data: Dataset, made: Recommender, row: np.ndarray, seen: set[int]) -> list[int]:
    """Ids of the known items that nobody has seen, the best first."""
    columns = list(data.schema.item_columns)
    catalog = np.asarray(data.catalog.ids).astype(np.int64)  # type: ignore[union-attr]
    unknown = int(data.vocabulary.field_offsets[data.schema.names.index("item")])
    catalog = catalog[catalog[:, 0] != unknown]
    rows = np.repeat(np.asarray(row).astype(np.int64)[None], len(catalog), 0)
    rows[:, columns] = catalog
    with torch.no_grad():
        scores = made(torch.from_numpy(rows)).numpy()
    order = np.argsort(-scores, kind="stable")
    return [int(catalog[i, 0]) for i in order if int(catalog[i, 0]) not in seen]


def test_people_are_ranked_as_by_a_plain_loop(folder: Path) -> None:
    data = movielens(folder, "full")
    made, contexts = model(data), Contexts.of(data, "test")
    ranking = rank_rows(made, contexts)
    column = data.schema.item_columns[0]
    test = np.asarray(data.test.ids)
    people = sorted({int(user) for user in test[data.test.labels == 1, 0]})
    assert len(contexts.rows) == len(people)
    assert contexts.rows[:, 0].tolist() == people
    ranks = iter(ranking.ranks.tolist())
    for user in people:
        mine = np.flatnonzero((test[:, 0] == user) & (data.test.labels == 1))
        seen = {
            int(ids[column])
            for split in (data.train, data.valid)
            for ids in np.asarray(split.ids)
            if ids[0] == user
        }
        order = best(data, made, test[mine[0]], seen)
        for at in mine:
            item = int(test[at, column])
            expected = order.index(item) + 1 if item in order else UNRANKED
            assert next(ranks) == expected


def test_each_moment_of_a_history_is_ranked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = movielens(folder, "history")
    made = model(data)
    positive = np.flatnonzero(data.test.labels == 1)
    monkeypatch.setattr(module, "MOST_MOMENTS", 5)
    contexts = Contexts.of(data, "test")
    chosen = positive[[0, *(int(x) for x in np.linspace(0, len(positive) - 1, 5)[1:])]]
    assert contexts.num_positive == len(positive)
    test, column = np.asarray(data.test.ids), data.schema.item_columns[0]
    assert torch.equal(contexts.rows, torch.from_numpy(test[chosen].astype(np.int64)))
    for at, rank in zip(chosen, rank_rows(made, contexts).ranks.tolist(), strict=True):
        order = best(data, made, test[at], {int(i) for i in test[at, :100]})
        item = int(test[at, column])
        assert rank == (order.index(item) + 1 if item in order else UNRANKED)


def test_a_finished_run_is_ranked_on_request(tiny_config: Make, tmp_path: Path) -> None:
    values = tiny_config(
        train={"epochs": 1},
        compact={"budgets": ["50%"], "sizes": {"name": "uniform"}, "train": {"epochs": 1}},
    )
    first = Pipeline(from_dict(values), tmp_path / "run").run()
    assert "ranking" not in first["dense"]
    values["run"]["rank"] = True
    metrics = Pipeline(from_dict(values), tmp_path / "run", resume=True).run()
    assert metrics["dense"]["test_auc"] == first["dense"]["test_auc"]
    for entry in (metrics["dense"], *metrics["budgets"].values()):
        assert 0 < entry["ranking"]["ndcg@10"] < 1
        assert entry["ranking"]["contexts"] == metrics["dense"]["ranking"]["contexts"] > 10
    assert "ranking" in "\n".join(table_lines(metrics))


def test_data_without_an_item_cannot_be_ranked(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"schema 'movielens_1m' names no item \(item_key\)"):
        Contexts.of(movielens(folder, "paper"), "test")
