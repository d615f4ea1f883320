"""A budget in bytes is used to within 5 %, or a report says what is in the way."""

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
        ("5%", 10, [8], None),
        (20_000, 10, [8], None),
    ],
)
def test_what_is_left_of_a_budget_is_explained(
    budget: int | str, num_bytes: int, sizes: list[int], said: str | None
) -> None:
    assert shortfall(budget, num_bytes, torch.tensor(sizes)) == said
