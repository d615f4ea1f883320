"""A budget in bytes is kept and used to within 5 %, or a report says what is in the way."""

from __future__ import annotations

import pytest
import torch

from ondevice.run.budgets import shortfall


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
