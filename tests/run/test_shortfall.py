"""A budget in bytes is kept and used to within 5 %, or a report says what is in the way."""

from __future__ import annotations

import pytest
import torch

from ondevice.config.file import from_dict
from ondevice.data import load_dataset
from ondevice.forms.base import Form
from ondevice.forms.table import table_info
from ondevice.methods.ranking import Ranking
from ondevice.run.budgets import Budgets, final_forms, shortfall

from ..runs import Make


@pytest.mark.parametrize(
    ("budget", "num_bytes", "sizes", "said"),
    [
        (
            "128KB",
            120_712,
            [0, 8, 8, 8],
            "5.7 % below: all 3 rows that the search kept have 8 values, and max_size allows no more",
        ),
        ("128KB", 120_712, [0, 8, 6], "5.7 % below: the next larger sizes do not fit"),
        ("128KB", 127_000, [0, 8, 8], None),
        (
            "32KB",
            32_229,
            [0, 8, 6],
            "229 bytes above: its size was estimated too low; ask for 31542B and train again",
        ),
        ("5%", 10, [8], None),
        (20_000, 10, [8], None),
    ],
)
def test_what_a_bundle_is_from_its_budget_is_explained(
    budget: int | str, num_bytes: int, sizes: list[int], said: str | None
) -> None:
    assert shortfall(budget, num_bytes, torch.tensor(sizes)) == said


@pytest.mark.parametrize(("step", "largest"), [(2, 12), (4, None)])
def test_a_budget_is_not_filled_with_zeros(
    tiny_config: Make, monkeypatch: pytest.MonkeyPatch, step: int, largest: int | None
) -> None:
    """Steps of two up to 16 are cells of four, a tenth of which says nothing; up to 12 all is kept."""
    store = {"max_size": 16, "size_step": step, "first_order": "none"}
    config = from_dict(tiny_config(embedding={"dim": 16}, compact={"store": store}))
    dataset = load_dataset(config.data.name, **config.data.options)
    budgets = Budgets(config, dataset, table_info(dataset.vocabulary.field_offsets, dataset.counts))
    budgets.num_values = 10_000 * 16
    torch.manual_seed(0)
    gains = torch.rand(10_000, 1) * 10 ** (-torch.rand(10_000, 1) * torch.arange(16))

    def forms_at(target: int, max_size: int | None) -> list[Form]:
        return final_forms([Ranking(gains, 16)], target, config.compact.store, max_size)

    monkeypatch.setattr(budgets, "estimated_bytes", lambda forms: forms[0].estimate(3, ["forward"]))
    target, chosen = budgets.target("85KB", 0, forms_at)
    assert chosen == largest
    (form,) = forms_at(target, chosen)
    assert 0.97 * 85_000 <= form.num_kept() <= 85_000
    assert form.padding(3) < 0.01 * form.num_kept()
