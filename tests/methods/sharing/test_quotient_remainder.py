"""Quotient and remainder: rows of two small tables, of which no two values share both."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ondevice.data import Dataset
from ondevice.errors import UserError
from ondevice.forms.composed import Composed
from ondevice.forms.table import TableInfo
from ondevice.methods import METHODS
from ondevice.recommender import Recommender, rebuild
from ondevice.training.checkpoint import load_recommender, save_recommender

from ...program import shop
from ...runs import Make, laid_over, run

counts_of_fields = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=40), min_size=1, max_size=4)


def info_of(fields: list[list[int]]) -> TableInfo:
    sizes = torch.tensor([0, *(len(field) for field in fields)])
    return TableInfo(sizes.cumsum(0), torch.tensor([count for field in fields for count in field]))


def composed(info: TableInfo, target: int | None = None, **options: object) -> Composed:
    form = METHODS["quotient_remainder"](info, 16, **options).compact(target)
    assert isinstance(form, Composed)
    return form


@given(counts_of_fields, st.integers(1, 200))
def test_no_two_values_of_a_field_share_both_rows(fields: list[list[int]], target: int) -> None:
    info = info_of(fields)
    if not int(info.counts.sum()):
        return
    try:
        form = composed(info, target, dim=4)
    except UserError:
        return
    assert form.num_kept() <= target
    quotient, remainder = form.parts()
    assert int(quotient[form.stored].max()) < form.num_quotients()
    assert int(remainder.max()) <= form.num_remainders()
    for begin, end in pairwise(info.field_offsets.tolist()):
        stored = torch.arange(begin, end)[form.stored[begin:end]]
        pairs = {(int(quotient[i]), int(remainder[i])) for i in stored}
        assert len(pairs) == len(stored)


def test_rows_and_values_by_hand() -> None:
    """100 values and m = 4: 25 + 4 rows; 3 values stay as they are."""
    info = TableInfo(torch.tensor([0, 100, 103]), torch.ones(103, dtype=torch.int64))
    form = composed(info, (25 + 4 + 3) * 2, dim=2)
    assert form.modulus.tolist() == [4, 1]
    assert form.num_kept() == 64
    quotient, remainder = form.parts()
    assert (quotient[:6].tolist(), remainder[:6].tolist()) == ([0, 0, 0, 0, 1, 1], [1, 2, 3, 4, 1, 2])
    assert (quotient[100:].tolist(), remainder[100:].tolist()) == ([25, 26, 27], [0, 0, 0])
    assert composed(info, 21 * 2, dim=2).num_kept() == 23 * 1 <= 42  # 10 + 10 rows and 3, of one dimension


@pytest.mark.parametrize("operation", ["mult", "add"])
def test_values_of_equal_remainder_differ_and_each_table_learns(operation: str) -> None:
    torch.manual_seed(0)
    info = TableInfo(torch.tensor([0, 30]), torch.tensor([0, *[1] * 29]))
    table = composed(info, 4 * 11, dim=4, operation=operation).table(info, init_std=1.0)
    embeddings = table(torch.arange(30)[:, None]).squeeze(1)
    assert embeddings[0].abs().sum() == 0  # the unknown value was never seen
    assert len(torch.unique(embeddings, dim=0)) == 30
    assert torch.equal(table.table(), embeddings)
    embeddings.square().sum().backward()
    parameters = dict(table.named_parameters())
    assert set(parameters) == {"weight", "remainder"}
    for parameter in parameters.values():
        assert parameter.grad is not None
        assert parameter.grad.abs().sum() > 0
    assert table.weight.grad[-1].abs().sum() == table.remainder.grad[0].abs().sum() == 0


def shop_model(data: Dataset, operation: str, target: int | None) -> Recommender:
    info = shop.info(data)
    torch.manual_seed(0)
    form = composed(info, target, dim=4, operation=operation)
    model = rebuild(info, model="fm", model_options={}, forms=[form], init_std=0.3)
    return model.eval()


@pytest.mark.parametrize(("operation", "target"), [("mult", None), ("add", 400)])
def test_a_program_equals_the_eager_model(operation: str, target: int | None, tmp_path: Path) -> None:
    pytest.importorskip("executorch", reason="programs are made with ExecuTorch")
    from ondevice.program.export import ExportOptions, export_model

    data = shop.dataset()
    model = shop_model(data, operation, target)
    exported = export_model(
        model,
        data,
        name="shop",
        model="fm",
        method="quotient_remainder",
        options=ExportOptions(max_batch=64, methods=("forward",)),
    )
    assert exported.parity["eager_vs_packed"] < 1e-5
    assert exported.parity["int8_vs_pte_max_abs"] < 1e-3
    assert exported.parity["packed_vs_int8_sqnr_db"] > 30
    bundle = exported.bundle.write(tmp_path / "bundle")
    bundle.check_golden()
    save_recommender(tmp_path / "model", model, "fm", {})
    again = load_recommender(tmp_path / "model", shop.info(data))
    ids = shop.all_ids(data)
    assert torch.equal(model(ids), again(ids))


def test_it_trains_within_its_budgets(tiny_config: Make, tmp_path: Path) -> None:
    values = tiny_config(
        compact={
            "sizes": {"name": "quotient_remainder"},
            "budgets": ["60%", "45%"],
            "store": {"first_order": "projection"},
        }
    )
    metrics = run(values, tmp_path / "run")
    kept = [metrics["budgets"][label]["kept_parameters"] for label in ("60pct", "45pct")]
    assert 0 < kept[1] <= kept[0] <= 0.6 * 390
    for label in ("60pct", "45pct"):
        losses = [entry["train_loss"] for entry in metrics["history"][label]]
        assert losses[-1] < losses[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"compact": {"train": {"elastic": True}}}, r"compact\.train\.elastic: method 'quotient_remainder'"),
        (
            {"compact": {"store": {"name": "codes", "code_dims": 2, "max_size": 4}}},
            r"compact\.store\.name: got 'codes', but method 'quotient_remainder'",
        ),
        ({"compact": {"budgets": ["64KB"]}}, r"compact\.budgets: 64KB is in bytes"),
        (
            {"compact": {"sizes": {"name": "quotient_remainder", "operation": "concat"}}},
            r"compact\.sizes\.operation: unknown 'concat'",
        ),
    ],
)
def test_what_does_not_suit_it_is_refused(
    tiny_config: Make, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    values = laid_over(tiny_config(compact={"sizes": {"name": "quotient_remainder"}}), change)
    with pytest.raises(UserError, match=message):
        run(values, tmp_path / "run")
