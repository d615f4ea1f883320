"""Models that read histories place by place: packed, as a dense program, and exported."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ondevice.bench.dense.baselines import DenseProgram
from ondevice.data import Dataset
from ondevice.forms.base import Form
from ondevice.forms.sizes import Sizes
from ondevice.forms.table import EmbeddingTable, TableInfo, table_info
from ondevice.methods import METHODS
from ondevice.models import MODELS
from ondevice.models.base import make_model
from ondevice.program.export import ExportOptions, export_model
from ondevice.program.pack import pack
from ondevice.recommender import Recommender, rebuild

from ..data.log import log, read
from .estimates import assert_close

pytest.importorskip("duckdb", reason="tables are read with duckdb")
READING = [name for name in MODELS if MODELS[name].reads_histories]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("places")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ONDEVICE_CACHE", str(folder / "cache"))
        return read(folder, log())


def info(data: Dataset) -> TableInfo:
    return table_info(
        data.vocabulary.field_offsets, data.counts, data.vocabulary.key_texts, data.schema.slots
    )


def sizes(data: Dataset) -> Form:
    """Half of the values of a row or all, but nothing of one thing and of what the history would own."""
    kept = torch.tensor([3, 6]).repeat(data.vocabulary.num_embeddings)[: data.vocabulary.num_embeddings]
    kept[int(data.vocabulary.field_offsets[2]) + 2] = 0
    kept[data.counts == 0] = 0
    return Sizes(kept, 6)


def model(data: Dataset, name: str, form: Form) -> Recommender:
    torch.manual_seed(0)
    return rebuild(info(data), model=name, model_options={}, forms=[form], init_std=0.3).eval()


def rows_of(data: Dataset) -> torch.Tensor:
    return torch.from_numpy(np.array(data.train.ids, dtype=np.int64))


@pytest.mark.parametrize("form", ["sizes", "composed"])
@pytest.mark.parametrize("name", READING)
def test_packed_is_eager(data: Dataset, name: str, form: str) -> None:
    if form == "sizes":
        made = model(data, name, sizes(data))
    else:
        made = model(data, name, METHODS["quotient_remainder"](info(data), 6).compact(60))
    packed, ids = pack(made, keys=data.vocabulary.key_texts()), rows_of(data)
    with torch.no_grad():
        torch.testing.assert_close(packed(packed.order.rows(ids)), made(ids), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", READING)
def test_a_dense_program_is_eager(data: Dataset, name: str) -> None:
    dense = Recommender(EmbeddingTable(info(data), 4), None, make_model(name, data.schema.slots, 4, {}))
    ids = rows_of(data)
    with torch.no_grad():
        torch.testing.assert_close(DenseProgram(dense)(ids), torch.sigmoid(dense.eval()(ids)))


@pytest.mark.parametrize("name", READING)
def test_what_a_value_is_worth_to_the_loss_is_known(data: Dataset, name: str) -> None:
    """Gradients reach each place of a history, and none an absent one: what searches measure."""
    made, ids = model(data, name, sizes(data)), rows_of(data)
    read_values = made.read(ids).detach().requires_grad_()
    made.logits_of(made.pooled(read_values, ids), ids).sum().backward()
    assert read_values.grad is not None
    unknown = int(data.vocabulary.field_offsets[2])
    places = made.mapped(ids)[:, 1:4]
    gradients = read_values.grad[:, 1:4].abs().sum(2)
    assert not bool(gradients[places == unknown].any())
    assert float((gradients[places != unknown] > 0).float().mean()) > 0.9


@pytest.mark.parametrize("name", READING)
def test_a_program_is_eager(data: Dataset, name: str) -> None:
    made, methods = model(data, name, sizes(data)), ("forward", "rank")
    options = ExportOptions(methods=methods, max_batch=64)
    exported = export_model(made, data, name="log", model=name, method="pep", options=options)
    assert exported.parity["eager_vs_packed"] < 1e-5
    assert exported.parity["int8_vs_pte_max_abs"] < 1e-3
    bundle = exported.bundle
    assert bundle.check_golden() < 1e-3
    keys = [str(key) for key in data.vocabulary.keys[2]]
    for seen in ([], keys[2:3], keys[2:9]):
        ranked = bundle.rank({"place": "p1", "seen": seen}, [{"thing": keys[0]}, {"thing": keys[4]}])
        whole = bundle.score([{"place": "p1", "seen": seen, "thing": keys[at]} for at in (0, 4)])
        assert ranked == pytest.approx(whole, abs=1e-5)
    assert_close(exported, data, methods)
