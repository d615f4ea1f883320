"""Every model in every layout: packed equals eager, and stores what it says."""

from __future__ import annotations

import pytest
import torch

from ondevice.data import Dataset
from ondevice.errors import UserError
from ondevice.forms.blocks import Blocks
from ondevice.forms.coded_staircase import CodedStaircase
from ondevice.forms.mask import JaggedEmbedding, Mask
from ondevice.forms.sizes import Sizes
from ondevice.forms.staircase import StaircaseEmbedding
from ondevice.forms.table import TableInfo
from ondevice.methods.build import build
from ondevice.models import MODELS
from ondevice.program.pack import LAYOUTS, compacted_model, pack
from ondevice.program.quantize import quantize
from ondevice.recommender import rebuild

from . import shop


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("model", MODELS)
def test_packed_equals_eager(model: str, layout: str, data: Dataset) -> None:
    for seed in range(3):
        recommender = shop.recommender(model, layout, data, seed)
        packed = pack(recommender, layout, data.vocabulary.key_texts())
        ids = shop.all_ids(data)
        with torch.no_grad():
            eager, result = recommender(ids), packed(packed.order.rows(ids))
        assert float(eager.abs().max()) > 0.5  # a model that says something
        torch.testing.assert_close(result, eager, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("levels", [1, 2])
@pytest.mark.parametrize("code_dims", [1, 2, 4])
@pytest.mark.parametrize("model", MODELS)
def test_packed_codes_equal_eager_ones(model: str, code_dims: int, levels: int, data: Dataset) -> None:
    recommender = shop.coded_recommender(model, data, code_dims, levels)
    packed = pack(recommender, "staircase", data.vocabulary.key_texts())
    ids = shop.all_ids(data)
    with torch.no_grad():
        eager, result = recommender(ids), packed(packed.order.rows(ids))
    torch.testing.assert_close(result, eager, atol=1e-5, rtol=1e-5)
    table = packed.table
    assert isinstance(table, CodedStaircase)
    assert table.codes.numel() == sum(height + 1 for height in table.column_heights)
    # a byte a cell, an int8 codebook, and where the columns begin and end: three, or the four of two levels of two
    columns = 3 if levels == 1 else 4
    assert table.columns == columns
    stored = table.codes.numel() + 256 * code_dims + 2 * columns * 8
    assert quantize(packed).table.stored_bytes() == stored


def test_codes_are_packed_without_the_values_of_all_rows(
    data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    # at 292,000 rows of which 60,000 are stored, decoding all of them took more memory than the dense table
    recommender = shop.coded_recommender("fm", data, 2, 1)
    monkeypatch.setattr(type(recommender.embedding), "decoded", None)
    assert isinstance(pack(recommender, "staircase").table, CodedStaircase)


def test_stored_values_are_the_kept_ones_and_a_row_of_zeros(data: Dataset) -> None:
    recommender = shop.recommender("fm", "csr", data)
    packed = pack(recommender, "csr")
    assert isinstance(packed.table, JaggedEmbedding)
    assert packed.table.num_values() == recommender.embedding.num_kept() + len(packed.table.heights)
    assert packed.first_order is not None
    assert packed.first_order.num_values() == packed.order.first_order_rows + 1
    assert packed.table.stored_bytes() == packed.table.num_values() * 5 + len(packed.table.heights) * 16


def test_a_staircase_stores_at_most_a_tenth_more_than_is_kept() -> None:
    generator = torch.Generator().manual_seed(0)
    table_forms = [
        Sizes(torch.randint(0, 5, (20_000,), generator=generator) * 2, 8),
        Sizes(torch.ones(20_000, dtype=torch.int64), 1),
    ]
    offsets = torch.tensor([0, 12_000, 20_000])
    recommender = rebuild(
        TableInfo(offsets, torch.ones(20_000, dtype=torch.int64)),
        model="fm",
        model_options={},
        forms=table_forms,  # type: ignore[arg-type]
    )
    quantized = quantize(pack(recommender.eval()))
    assert isinstance(quantized.table, StaircaseEmbedding)
    assert table_forms[0].num_kept() <= quantized.table.stored_bytes() <= 1.10 * table_forms[0].num_kept()


def test_a_dense_model_is_packed_whole(data: Dataset) -> None:
    dense = build(
        shop.info(data), model="fm", model_options={}, method="uniform", method_options={}, embedding_dim=4
    ).eval()
    packed = pack(dense)
    ids = shop.all_ids(data)
    assert packed.order.num_rows == dense.info.num_embeddings
    with torch.no_grad():
        torch.testing.assert_close(packed(packed.order.rows(ids)), dense(ids), atol=1e-5, rtol=1e-5)


def test_a_staircase_by_hand() -> None:
    table = torch.tensor([[1.0, 2, 3], [4, 5, 6], [7, 0, 0], [0, 0, 0]])
    staircase = StaircaseEmbedding(table, Blocks(1, (1, 3), 3), [3, 2, 2])
    assert staircase.values.flatten().tolist() == [1, 4, 7, 0, 2, 5, 0, 3, 6, 0]
    rows = torch.tensor([[0, 1, 2], [3, 4, 99]])
    expected = torch.cat([table, torch.zeros(1, 3)])[rows.clamp(max=4)]
    assert torch.equal(staircase(rows), expected)
    # cells that do not divide the dimension
    wide = StaircaseEmbedding(table, Blocks(2, (2, 3), 3), [3, 2])
    assert torch.equal(wide(rows), expected)


def test_positions_by_hand() -> None:
    table = torch.tensor([[1.0, 0, 3], [0, 5, 0], [0, 0, 0]])
    jagged = JaggedEmbedding(table, table != 0)
    assert jagged.values.flatten().tolist() == [1, 5, 0, 3, 0]
    assert jagged.columns.flatten().tolist() == [0, 1, 0, 2, 0]
    expected = torch.stack([table[:2], torch.zeros(2, 3)])
    assert torch.equal(jagged(torch.tensor([[0, 1], [2, 50]])), expected)


def test_columns_of_the_first_layer_that_meet_only_zeros_are_dropped_when_it_pays(data: Dataset) -> None:
    recommender = shop.recommender("deepfm", "staircase", data)
    bounds = data.vocabulary.field_offsets
    sizes = torch.full((int(bounds[-1]),), 6)
    sizes[bounds[1] :] = 2  # only the first field uses more than two dimensions
    form = Sizes(sizes, 6)
    same = compacted_model(recommender.model, form, torch.from_numpy(bounds))
    assert same.dnn.layers[0].in_features == 5 * 6  # type: ignore[union-attr, index]
    wide = build(
        shop.info(data),
        model="deepfm",
        model_options={"hidden": (200,)},
        method="uniform",
        method_options={},
        embedding_dim=6,
    ).eval()
    narrow = compacted_model(wide.model, form, torch.from_numpy(bounds))
    assert narrow.dnn.layers[0].in_features == 6 + 4 * 2  # type: ignore[union-attr, index]


def test_what_cannot_be_packed_is_refused(data: Dataset) -> None:
    count = int(data.vocabulary.num_embeddings)
    nothing = [
        Sizes(torch.zeros(count, dtype=torch.int64), 4),
        Sizes(torch.zeros(count, dtype=torch.int64), 1),
    ]
    with pytest.raises(UserError, match="packing stored nothing"):
        pack(shop.recommender("fm", "staircase", data, table_forms=nothing))
    with pytest.raises(UserError, match=r"cannot hold the positions .*export with --layout csr"):
        pack(shop.recommender("fm", "csr", data), "staircase")
    with pytest.raises(UserError, match=r"unknown layout 'stairs' \(did you mean 'staircase'"):
        pack(shop.recommender("fm", "staircase", data), "stairs")
    wide = [Mask(torch.ones(count, 300, dtype=torch.bool)), nothing[1]]
    with pytest.raises(UserError, match="dimension 300 is above 256"):
        pack(shop.recommender("fm", "csr", data, table_forms=wide), "csr")  # type: ignore[arg-type]


def test_first_order_weights_alone_are_a_model(data: Dataset) -> None:
    count = int(data.vocabulary.num_embeddings)
    forms = [Sizes(torch.zeros(count, dtype=torch.int64), 4), Sizes(torch.ones(count, dtype=torch.int64), 1)]
    recommender = shop.recommender("fm", "staircase", data, table_forms=forms)  # type: ignore[arg-type]
    packed = pack(recommender)
    ids = shop.all_ids(data)
    with torch.no_grad():
        torch.testing.assert_close(packed(packed.order.rows(ids)), recommender(ids), atol=1e-5, rtol=1e-5)
