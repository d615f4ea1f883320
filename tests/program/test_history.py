"""A history from the eager model to a bundle that is asked with lists of raw keys."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ondevice.bench.dense.baselines import DenseProgram
from ondevice.config.sections import ENDPOINTS
from ondevice.data import Dataset
from ondevice.errors import UserError
from ondevice.forms.sizes import Sizes
from ondevice.forms.table import EmbeddingTable, TableInfo, table_info
from ondevice.methods import METHODS
from ondevice.models import MODELS
from ondevice.program.endpoints import Rank
from ondevice.program.export import Exported, ExportOptions, export_model
from ondevice.program.pack import pack
from ondevice.recommender import Recommender, rebuild

from ..data.log import log, read
from .estimates import assert_close

pytest.importorskip("duckdb", reason="tables are read with duckdb")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("history")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ONDEVICE_CACHE", str(folder / "cache"))
        return read(folder, log())


def info(data: Dataset) -> TableInfo:
    return table_info(
        data.vocabulary.field_offsets, data.counts, data.vocabulary.key_texts, data.schema.slots
    )


def compact(data: Dataset, model: str, projected: bool = False) -> Recommender:
    """Half of the values of a row or all, but nothing of one thing and of what the history would own."""
    torch.manual_seed(0)
    sizes = torch.tensor([3, 6]).repeat(data.vocabulary.num_embeddings)[: data.vocabulary.num_embeddings]
    begin = int(data.vocabulary.field_offsets[2])
    sizes[begin + 2] = 0
    sizes[data.counts == 0] = 0
    first = (sizes > 0).long()
    options = {"hidden": (8,)} if model == "deepfm" else {}
    made = rebuild(
        info(data),
        model=model,
        model_options=options,
        forms=[Sizes(sizes, 6), Sizes(first, 1)][: 1 if projected else 2],
        init_std=0.3,
        projected=projected,
    )
    if made.projection is not None:
        torch.nn.init.normal_(made.projection)
    return made.eval()


@pytest.fixture(scope="module")
def recommender(data: Dataset) -> Recommender:
    return compact(data, "deepfm")


@pytest.fixture(scope="module")
def exported(data: Dataset, recommender: Recommender) -> Exported:
    options = ExportOptions(methods=ENDPOINTS, top_k=5, max_batch=64)
    return export_model(recommender, data, name="log", model="deepfm", method="pep", options=options)


@pytest.mark.parametrize("name", ["fm", "deepfm"])
def test_a_history_pools_rows_of_its_items(data: Dataset, name: str) -> None:
    """Against the embeddings by hand, and the packed and the dense program against the eager model."""
    model = compact(data, name)
    ids = torch.from_numpy(np.array(data.train.ids, dtype=np.int64))
    unknown = int(data.vocabulary.field_offsets[2])
    dropped = unknown + 2  # it keeps nothing, so it is no value
    table = model.embedding.table()
    pooled = []
    for row in ids[:, 1:4].tolist():
        known = [i for i in row if i not in (unknown, dropped)]
        pooled.append(table[known].sum(0) / len(known) ** 0.5 if known else table[unknown])
    with torch.no_grad():
        torch.testing.assert_close(model.embed(ids)[:, 1], torch.stack(pooled))
        packed = pack(model, keys=data.vocabulary.key_texts())
        torch.testing.assert_close(packed(packed.order.rows(ids)), model(ids), atol=1e-5, rtol=1e-5)
        tables = EmbeddingTable(info(data), 4), EmbeddingTable(info(data), 1)
        dense = Recommender(*tables, MODELS[name](3, 4))
        torch.testing.assert_close(DenseProgram(dense)(ids), torch.sigmoid(dense.eval()(ids)))


@pytest.mark.parametrize("form", ["sizes", "composed", "projected"])
def test_a_history_is_read_once_for_all_items(data: Dataset, form: str) -> None:
    if form == "composed":
        composed = METHODS["quotient_remainder"](info(data), 6).compact(60)
        model = rebuild(info(data), model="fm", model_options={}, forms=[composed], init_std=0.3).eval()
    else:
        model = compact(data, "deepfm", projected=form == "projected")
    packed = pack(model, keys=data.vocabulary.key_texts())
    rank = Rank(packed, data.schema.context_columns, data.schema.item_columns)
    read: list[int] = []
    packed.table.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0].numel()))
    rows = packed.order.rows(torch.from_numpy(np.array(data.test.ids, dtype=np.int64)))
    context, items = rows[:1, :4], rows[:, 4:]
    with torch.no_grad():
        scores = rank(context, items)
        assert read == ([5 * len(rows)] if form == "composed" else [4, len(rows)])
        torch.testing.assert_close(
            scores, torch.sigmoid(packed(torch.cat([context.expand(len(rows), 4), items], 1)))
        )


def test_the_program_equals_the_eager_model(exported: Exported) -> None:
    assert exported.parity["eager_vs_packed"] < 1e-5
    assert exported.parity["int8_vs_pte_max_abs"] < 1e-3
    assert exported.bundle.check_golden() < 1e-3
    described = exported.bundle.manifest["schema"]["fields"][1]
    assert described == {"name": "seen", "kind": "history", "of": "thing", "last": 3, "pooling": "sqrt"}


def test_raw_histories(exported: Exported, data: Dataset, recommender: Recommender) -> None:
    bundle = exported.bundle
    keys = [str(key) for key in data.vocabulary.keys[2]]
    dropped = keys.pop(1)
    row = {"place": "p1", "thing": keys[0], "seen": keys[2:5]}
    score = bundle.score(row)
    with torch.no_grad():
        ids = torch.from_numpy(data.vocabulary.encode_row(row))[None]
        assert score == pytest.approx(torch.sigmoid(recommender(ids)).tolist(), abs=1e-2)
    for same in (tuple(keys[2:5]), [keys[0], *keys[2:5]], [keys[2], "?", None, dropped, *keys[3:5]]):
        assert bundle.score({**row, "seen": same}) == score
    nobody = bundle.score({**row, "seen": None})
    assert nobody != score
    assert bundle.score({**row, "seen": []}) == nobody
    assert bundle.score({**row, "seen": ["never heard of"]}) == nobody
    del row["seen"]
    assert bundle.score(row) == nobody
    with pytest.raises(UserError, match="'seen' is not a field of this side"):
        bundle.rank({"place": "p1"}, [{"thing": keys[0], "seen": []}])


@pytest.mark.parametrize("length", [0, 1, 3, 40])
def test_what_is_recommended_follows_the_history(exported: Exported, data: Dataset, length: int) -> None:
    bundle = exported.bundle
    keys = [str(key) for key in data.vocabulary.keys[2]]
    context = {"place": "p1", "seen": [keys[i * 3 % len(keys)] for i in range(length)]}
    best = bundle.recommend(context, 5)
    scores = bundle.rank(context, [{"thing": each["item"]} for each in best])
    assert scores == pytest.approx([each["score"] for each in best], abs=1e-5)
    assert scores == sorted(scores, reverse=True)
    nobody = bundle.recommend({"place": "p1"}, 5)
    assert (best == nobody) == (length == 0)


def test_the_estimate_counts_a_history(exported: Exported, data: Dataset) -> None:
    assert_close(exported, data, ENDPOINTS)
