"""A compact model of the next item as a program: the packed model, within its budget."""

from __future__ import annotations

import pytest
import torch

from ondevice import next_item
from ondevice.bundle.item_rows import next_item_bytes
from ondevice.data import Dataset, load_dataset
from ondevice.forms.codes import CodedEmbedding, Codes
from ondevice.program.next_item_export import (
    ExportedNextItem,
    _check_parity,
    check_recommended,
    export_model,
    parity,
)
from ondevice.run.next_item import item_info
from ondevice.training.windows import Log

from ..conftest import write_movielens


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("compact_next")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ONDEVICE_CACHE", str(folder / "cache"))
        return load_dataset(
            "movielens_1m", folder=write_movielens(folder / "ml"), fields="next_item", split="leave_last_out"
        )


@pytest.fixture(scope="module")
def exported(data: Dataset) -> ExportedNextItem:
    """Items of one to four codes in two levels, no biases, linear layers of 4 bits, a width of its own."""
    torch.manual_seed(0)
    info, generator = item_info(data), torch.Generator().manual_seed(0)
    sizes = (1 + torch.arange(info.num_embeddings) % 4) * 2
    sizes[0] = 0
    options = {"width": 12, "hidden": 16}
    made = next_item.rebuild(info, [Codes(sizes, 4, 2)], model="decayed_pooling", model_options=options)
    table = made.embedding
    assert isinstance(table, CodedEmbedding)
    drawn = torch.randint(1, 256, table.codes.shape, generator=generator) * table.cells
    entries = torch.cat([torch.zeros(1, 2), torch.randn(255, 2, generator=generator)])
    table.set_codes(drawn.to(torch.uint8), entries)
    made.model.linear_bits = 4
    with torch.no_grad():
        made.model.nobody.normal_(generator=generator)
    name, metrics = "decayed_pooling", {"valid_ndcg@10": 0.12345, "test_ndcg@10": 0.12345}
    return export_model(made.eval(), data, "next", name, metrics, top_k=12, method="code_saliency")


def test_the_program_is_the_packed_model(exported: ExportedNextItem, data: Dataset) -> None:
    assert exported.bundle.manifest["method"] == "code_saliency"
    assert check_recommended(exported, Log.of(data))[:2] == [0, 1]
    measured = parity(exported, Log.of(data))
    assert measured["eager_vs_packed"] < 1e-4
    assert measured["packed_vs_int8_sqnr_db"] > 10
    assert measured["int8_vs_pte_max_abs"] < 0.02 * measured["score_std"]
    assert measured["int8_vs_pte_rms"] <= measured["int8_vs_pte_max_abs"]


def test_its_bytes_are_those_that_were_estimated(exported: ExportedNextItem, data: Dataset) -> None:
    forms = [form.without(torch.arange(len(form.row_sizes())) == 0) for form in exported.recommender.forms()]
    made = exported.recommender
    estimate = next_item_bytes(forms, made.info, made.model, data)
    assert estimate == pytest.approx(exported.bundle.needed_bytes, abs=900)  # 2 % of 45 kB


def test_few_histories_may_be_rounded_the_other_way() -> None:
    """The export of a right program ended, since one of 64 histories was off by 3 % of a standard deviation."""
    right = {"eager_vs_packed": 0.0, "int8_vs_pte_max_abs": 0.06, "int8_vs_pte_rms": 0.003, "score_std": 2.0}
    _check_parity(right)
    for wrong in (
        {"int8_vs_pte_rms": 0.017},
        {"int8_vs_pte_rms": float("nan")},
        {"int8_vs_pte_max_abs": 0.17},
        {"eager_vs_packed": 0.01},
    ):
        with pytest.raises(RuntimeError, match=f"the exported program is wrong: {next(iter(wrong))}"):
            _check_parity({**right, **wrong})
