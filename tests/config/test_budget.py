"""Budgets as they are written: values, shares, bytes, and what is none of these."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ondevice.config.budget import budget_label, parse_budget
from ondevice.errors import UserError


@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        (20000, ("values", 20000)),
        ("20000", ("values", 20000)),
        ("5%", ("share", 0.05)),
        ("2.5 %", ("share", 0.025)),
        ("100%", ("share", 1.0)),
        ("800B", ("bytes", 800)),
        ("64KB", ("bytes", 64_000)),
        ("64kB", ("bytes", 64_000)),
        ("1.5MB", ("bytes", 1_500_000)),
    ],
)
def test_budgets(budget: int | str, expected: tuple[str, float]) -> None:
    assert parse_budget(budget) == pytest.approx(expected)


@pytest.mark.parametrize(
    "budget", ["", "0", "0%", "-5", "101%", "1.5", "64KiB", "64 K", "GB", "1e4", "nan", "٣"]
)
def test_what_is_no_budget(budget: str) -> None:
    with pytest.raises(UserError, match="allowed are kept values"):
        parse_budget(budget)


@given(st.integers(1, 10**9), st.sampled_from(["", "%", "B", "KB", "kB", "MB"]), st.sampled_from(["", " "]))
def test_a_budget_is_its_number_times_its_unit(number: int, unit: str, space: str) -> None:
    scale = {"": 1, "%": 0.01, "B": 1, "KB": 1000, "kB": 1000, "MB": 10**6}[unit]
    text = f"{number}{space if unit else ''}{unit}"
    if unit == "%" and number > 100:
        with pytest.raises(UserError):
            parse_budget(text)
        return
    kind, amount = parse_budget(text)
    assert amount == pytest.approx(number * scale)
    assert kind == {"": "values", "%": "share"}.get(unit, "bytes")
    label = budget_label(text)
    assert not set(label) & set(" %/\\.")


@given(st.text(max_size=8))
def test_any_text_is_a_budget_or_a_user_error(text: str) -> None:
    try:
        _, amount = parse_budget(text)
    except UserError:
        return
    assert amount > 0


def test_budgets_have_names_that_are_folders() -> None:
    assert [budget_label(b) for b in (20000, "5 %", "64KB", "1.5MB")] == ["20000", "5pct", "64KB", "1.5MB"]
