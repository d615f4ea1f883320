"""Programs on the runtime: every model and layout gives what the quantized model gives in PyTorch."""

from __future__ import annotations

import os
import sys
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from ondevice.bundle.manifest import PROGRAM
from ondevice.data import Dataset
from ondevice.errors import UserError
from ondevice.forms.coded_staircase import CodedStaircase
from ondevice.models import MODELS
from ondevice.program import lower as module
from ondevice.program import stock
from ondevice.program.endpoints import ENDPOINTS, Endpoint, make_endpoints
from ondevice.program.export import Exported, ExportOptions, export_model
from ondevice.program.lower import lower
from ondevice.program.pte import program_requirements
from ondevice.program.slim import ProgramFile, parse_graph
from ondevice.quiet import quiet

from . import shop
from .conftest import Export, shop_data
from .estimates import assert_close

# XNNPACK may round an activation the other way: one of 255 steps of one layer's input.
TOLERANCE = 0.01
DELEGATES = {"dlrm": 2}
"""Of a method's scoring part, where it is not one. DLRM takes half of a matrix of inner products, and XNNPACK looks up
no columns; a first layer over the whole matrix would be one delegate, and twice as many bytes."""


def methods_of(model: str, layout: str) -> tuple[str, ...]:
    """All methods for one model, the fewest for the others: an export takes seconds. Models that read histories have
    ``rank`` in `test_places.py`, and a table without first-order weights has all methods below."""
    return ENDPOINTS if layout == "staircase" and model == "deepfm" else ("forward",)


@cache
def coded(model: str, code_dims: int, levels: int) -> Exported:
    """All methods where rows have two levels."""
    return export_model(
        shop.coded_recommender(model, shop_data(), code_dims, levels),
        shop_data(),
        name="shop",
        model=model,
        method="pep",
        options=ExportOptions(methods=coded_methods(levels), top_k=5, max_batch=64),
    )


def coded_methods(levels: int) -> tuple[str, ...]:
    return ENDPOINTS if levels > 1 else ("forward",)


@pytest.mark.parametrize(
    ("model", "layout"), [*((model, "staircase") for model in MODELS), ("deepfm", "csr"), ("fm", "csr")]
)
def test_the_program_scores_like_the_quantized_model(
    model: str, layout: str, export: Export, data: Dataset
) -> None:
    made = export(model, layout, "int8", methods_of(model, layout))
    rows = made.packed.order.rows(shop.all_ids(data))
    with torch.no_grad():
        expected = torch.sigmoid(made.quantized(rows)).numpy()
    assert expected.std() > 0.05
    for count in (1, 7, 100, 1000):
        scores = made.bundle.score_rows(rows[:count].numpy())
        assert scores.shape == (count,)
        np.testing.assert_allclose(scores, expected[:count], atol=TOLERANCE)
        assert np.median(np.abs(scores - expected[:count])) < 1e-5
    assert made.num_delegated > made.num_portable > 0
    assert_close(made, data, methods_of(model, layout))
    assert made.bundle.manifest["backends"] == ["XnnpackBackend"]
    assert set(made.bundle.manifest["ops"]) <= stock.stock_names()


@pytest.mark.parametrize(("model", "code_dims", "levels"), [("deepfm", 4, 1), ("fm", 3, 1), ("fm", 2, 2)])
def test_a_program_of_codes_scores_like_the_quantized_model(
    model: str, code_dims: int, levels: int, data: Dataset
) -> None:
    made = coded(model, code_dims, levels)
    rows = made.packed.order.rows(shop.all_ids(data))
    with torch.no_grad():
        expected = torch.sigmoid(made.quantized(rows)).numpy()
    assert expected.std() > 0.05
    np.testing.assert_allclose(made.bundle.score_rows(rows.numpy()), expected, atol=TOLERANCE)
    table = made.quantized.table
    assert isinstance(table, CodedStaircase)
    assert made.bundle.contents[PROGRAM].count(table.codes.numpy().tobytes()) == 1
    assert set(made.bundle.manifest["ops"]) <= stock.stock_names()
    assert_close(made, data, coded_methods(levels))
    # codes become integers by the quick operator, which is a third of the time of 1000 candidates
    assert "aten::_to_copy.out" in made.bundle.manifest["ops"]
    assert not any(op.startswith("dim_order_ops") for op in made.bundle.manifest["ops"])


@pytest.mark.parametrize(("code_dims", "levels"), [(3, 1), (2, 2)])
def test_a_factorization_machine_of_codes_has_no_needless_node(code_dims: int, levels: int) -> None:
    made = coded("fm", code_dims, levels)
    program = ProgramFile.parse(made.bundle.contents[PROGRAM])
    (delegate,) = program.root["execution_plan"][0]["delegates"]
    nodes = parse_graph(program.segments[delegate["processed"].get("index", 0)])["xnodes"]
    # integers to floats; the sum over the fields, its shape and square; rows of values and their squares; both and the
    # projection in one product; sigmoid and shape. No scale of the codebook, no reshape before the sum. Two levels are
    # added up by one product.
    assert [node["xnode_union"].kind for node in nodes] == [
        "_XNNNode1x1",
        *(["XNNStaticReshape", "XNNFullyConnected"] if levels > 1 else []),
        "XNNStaticTranspose",
        "XNNFullyConnected",
        "XNNStaticReshape",
        "_XNNNode2x1",
        "XNNStaticReshape",
        "_XNNNode2x1",
        "_XNNCat",
        "XNNFullyConnected",
        "_XNNNode1x1",
        "XNNStaticReshape",
    ]


def test_a_float_program_is_nearly_exact(export: Export, data: Dataset) -> None:
    made = export("fm", "staircase", "none", ("forward",))
    rows = made.packed.order.rows(shop.all_ids(data))
    with torch.no_grad():
        expected = torch.sigmoid(made.packed(rows)).numpy()
    np.testing.assert_allclose(made.bundle.score_rows(rows.numpy()), expected, atol=1e-5)


def test_ids_beyond_the_rows_are_the_row_of_zeros(exported: Exported) -> None:
    rows = np.full((1, 5), exported.packed.order.num_rows, dtype=np.int64)
    scores = exported.bundle.score_rows(np.concatenate([rows, rows + 1, rows + 10**9]))
    assert scores[0] == scores[1] == scores[2]


def test_weights_are_stored_once_whatever_the_methods(export: Export, exported: Exported) -> None:
    alone = export("deepfm", "staircase", "int8", ("forward",)).bundle.contents[PROGRAM]
    # The second and third method cost their own calls, 1.0 and 2.4 kB, and the catalog.
    assert len(exported.bundle.contents[PROGRAM]) - len(alone) - exported.catalog_bytes < 3600
    contents = exported.bundle.contents[PROGRAM]
    for table in exported.quantized.tables():
        assert contents.count(table.values.numpy().tobytes()) == 1
    for layer in exported.quantized.model.modules():
        if isinstance(layer, nn.Linear):
            weight = next(v for v in layer.state_dict().values() if v.dtype == torch.int8)
            if weight.numel() > 16:
                assert contents.count(weight.numpy().tobytes()) == 1


def test_a_catalog_is_stored_as_rows_and_not_as_what_is_looked_up(export: Export) -> None:
    made = export("fm", "staircase", "int8", ("forward",))
    rows = np.random.default_rng(0).integers(0, made.packed.order.num_rows, (2000, 2))
    methods = make_endpoints(
        made.quantized, ("recommend",), context_columns=(0, 1, 2), item_columns=(3, 4), catalog=rows
    )
    # a byte per row, the tables of rows, and no more than the other method has; looked up it would be 24 kB more
    assert len(lower(methods).data) < len(made.bundle.contents[PROGRAM]) + 2 * 2000 + 2 * 2 * 256 + 2500


def test_constants_that_no_call_reads_are_not_stored(exported: Exported) -> None:
    for plan in ProgramFile.parse(exported.bundle.contents[PROGRAM]).root["execution_plan"]:
        read = {
            place
            for chain in plan["chains"]
            for i in chain["instructions"]
            for place in i["instr_args"]["args"]
        }
        for place, value in enumerate(plan["values"]):
            if value["val"].kind == "Tensor" and value["val"].get("data_buffer_idx"):
                assert place in read


def test_the_parts_add_up_to_the_program(exported: Exported) -> None:
    parts = exported.byte_parts()
    assert sum(parts.values()) == exported.bundle.total_bytes
    assert parts["embeddings"] == exported.quantized.table.stored_bytes()
    assert parts["linears"] == (30 + 8) * 16 + 8 + 8 * 25  # int8 weights, a scale and a bias per output
    assert 0 < parts["program"] < 13_000


class Times(nn.Module):
    """Whole numbers only: nothing here that XNNPACK takes."""

    def forward(self, ids: Tensor) -> Tensor:
        return ids * 2


def one_method(computes: nn.Module) -> dict[str, Endpoint]:
    batch = Dim("batch", min=1, max=8)
    example = (torch.ones(2, 3, dtype=torch.int64),)
    return {"forward": Endpoint(computes, example, ({0: batch},), 8, {})}


def test_delegation_that_takes_nothing_raises() -> None:
    with pytest.raises(UserError, match="took no operator"):
        lower(one_method(Times()))
    plain = lower(one_method(Times()), delegate=False)
    assert plain.ops in (("aten::mul.Scalar_out",), ("aten::mul.out",))
    assert plain.backends == ()


def test_operators_that_the_phone_lacks_are_named(
    monkeypatch: pytest.MonkeyPatch, exported: Exported
) -> None:
    ops, _ = program_requirements(exported.bundle.contents[PROGRAM])
    assert list(ops) == exported.bundle.manifest["ops"]
    assert "aten::embedding.out" in ops
    with pytest.raises(UserError, match=r"needs CoreMLBackend, aten::fft\.out, which the stock Android"):
        stock.check_stock([*ops, "CoreMLBackend", "aten::fft.out"])
    monkeypatch.setattr(module, "check_stock", lambda names: stock.check_stock([*names, "my::op.out"]))
    with pytest.raises(UserError, match=r"my::op\.out"):
        lower(one_method(Times()), delegate=False)


def test_the_committed_list_is_what_its_maker_makes() -> None:
    names = stock.stock_names()
    assert "XnnpackBackend" in names
    assert "quantized_decomposed::embedding_byte.out" in names
    assert not names & set(stock.RECENT)
    made = {line for line in stock.make_list().splitlines() if not line.startswith("#")}
    assert names == made


def test_the_scoring_part_is_one_delegate_per_method(export: Export) -> None:
    for model in MODELS:
        made = export(model, "staircase", "int8", methods_of(model, "staircase"))
        for plan in ProgramFile.parse(made.bundle.contents[PROGRAM]).root["execution_plan"]:
            assert len(plan["delegates"]) == DELEGATES.get(model, 1), model


def test_quiet_silences_native_code_and_lets_errors_through(capfd: pytest.CaptureFixture[str]) -> None:
    print("before", file=sys.stderr)

    def noisy() -> None:
        with quiet():
            os.write(2, b"native noise\n")
            print("python noise", file=sys.stderr)
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        noisy()
    print("after", file=sys.stderr)
    assert capfd.readouterr().err.split() == ["before", "after"]
