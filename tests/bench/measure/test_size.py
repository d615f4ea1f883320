"""Bytes by part: what is named and what the files hold add up."""

from __future__ import annotations

import zipfile
from io import BytesIO
from pathlib import Path

import pytest
import torch

from ondevice.bench.measure.size import bundle_bytes, deflated_bytes
from ondevice.forms.mask import Mask
from ondevice.forms.sizes import Sizes
from ondevice.program.pte import inspect
from ondevice.recommender import Recommender, rebuild

from ..conftest import DIM, FIELD_SIZES

NUM_ROWS = sum(FIELD_SIZES)
# 5 fields x 8 -> 16 -> 1
WEIGHTS, BIASES = 40 * 16 + 16, 16 + 1


@pytest.mark.parametrize(
    ("name", "embeddings", "weights"),
    [
        ("fp32", NUM_ROWS * DIM * 4, 4 * (WEIGHTS + BIASES)),
        # a scale per row or channel is four bytes
        ("int8", NUM_ROWS * (DIM + 4), WEIGHTS + 4 * BIASES + 4 * BIASES),
        ("int4", NUM_ROWS * (DIM // 2 + 4), WEIGHTS + 4 * BIASES + 4 * BIASES),
        ("int2", NUM_ROWS * (DIM // 4 + 4), WEIGHTS + 4 * BIASES + 4 * BIASES),
    ],
)
def test_parts_of_a_baseline_by_hand(
    programs: dict[str, Path], name: str, embeddings: int, weights: int
) -> None:
    result = inspect(programs[name].read_bytes())
    assert result.parts["embeddings"] == embeddings
    assert result.parts["first_order"] == NUM_ROWS * 4
    assert result.parts["catalog"] == 0
    # the recommender's bias and one zero are constants of the graph
    assert weights <= result.parts["other_weights"] <= weights + 8
    assert sum(result.parts.values()) == result.num_bytes == programs[name].stat().st_size
    assert 0 < result.parts["program_overhead"] < 20_000
    assert result.methods == ["forward"]
    assert 0 < result.delegated_fraction < 1


def compact(dense: Recommender, positions: bool) -> Recommender:
    """The dense recommender with a third of its values, sizes or positions, retrained nowhere."""
    sizes = torch.arange(NUM_ROWS) * 5 % 6
    kept = torch.rand(NUM_ROWS, DIM, generator=torch.Generator().manual_seed(3)) < 0.3
    forms = [
        Mask(kept) if positions else Sizes(sizes, DIM),
        Sizes((torch.arange(NUM_ROWS) % 3 > 0).long(), 1),
    ]
    model = {"model": "deepfm", "model_options": {"hidden": (16,)}}
    return rebuild(dense.info, forms=forms, initial=dense, **model).eval()


@pytest.mark.parametrize("layout", ["staircase", "csr"])
def test_parts_of_a_compact_program_are_what_its_tables_declare(
    dense: Recommender, tmp_path: Path, layout: str
) -> None:
    from ondevice.program.endpoints import make_endpoints
    from ondevice.program.lower import lower
    from ondevice.program.pack import pack
    from ondevice.program.quantize import quantize

    packed = quantize(pack(compact(dense, positions=layout == "csr"), layout))
    items = torch.stack([50 + torch.arange(25), 75 + torch.arange(25) * 7 % 10], 1)
    catalog = packed.order.rows(items).numpy()
    names = ["forward", "recommend"] if layout == "staircase" else ["forward"]
    methods = make_endpoints(
        packed,
        names,
        context_columns=[0, 1, 2],
        item_columns=[3, 4],
        catalog=catalog,
        max_batch=64,
        top_k=5,
    )
    path = tmp_path / "model.pte"
    path.write_bytes(lower(methods).data)
    result = inspect(path.read_bytes(), first_order_rows=packed.order.first_order_rows)
    assert sum(result.parts.values()) == result.num_bytes == path.stat().st_size
    table, first_order = packed.tables()
    assert result.parts["embeddings"] == table.stored_bytes()
    assert result.parts["first_order"] == first_order.stored_bytes()
    catalog_buffers = methods["recommend"].module.catalog.buffers() if "recommend" in methods else []
    assert result.parts["catalog"] == sum(buffer.nbytes for buffer in catalog_buffers)
    assert (result.parts["catalog"] > 0) == ("recommend" in methods)
    assert WEIGHTS // 4 < result.parts["other_weights"] < 2 * (WEIGHTS + 8 * BIASES)
    assert result.methods == names


def test_deflated_bytes_are_those_of_a_zip() -> None:
    content = {"b": b"x" * 10_000, "a": bytes(range(256))}
    size = deflated_bytes(content)
    assert size < 700
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name in ("a", "b"):
            archive.writestr(zipfile.ZipInfo(name), content[name], zipfile.ZIP_DEFLATED, 9)
    assert size == len(buffer.getvalue())


def test_a_bundle_counts_all_that_a_program_needs(tmp_path: Path) -> None:
    files = {
        "model.pte": 500,
        "vocabulary.bin": 70,
        "manifest.json": 30,
        "catalog.bin": 1000,
        "report.json": 9,
    }
    for name, size in files.items():
        (tmp_path / name).write_bytes(b"x" * size)
    result = bundle_bytes(tmp_path)
    assert {k: v for k, v in result.items() if k != "deflated_bundle"} == {
        "pte": 500,
        "vocabulary": 70,
        "manifest": 30,
        "bundle": 600,
        "catalog": 1000,
    }
    assert result["deflated_bundle"] < 600
