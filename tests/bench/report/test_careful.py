"""The two numbers, by hand."""

from __future__ import annotations

import pytest

from ondevice.bench.report.careful import against_careful, as_good_text, as_small_text

CAREFUL = [
    {"name": "d2-int4", "bytes": 20_000, "valid_auc": 0.88, "test_auc": 0.87},
    {"name": "d4-int4", "bytes": 30_000, "valid_auc": 0.90, "test_auc": 0.89},
    {"name": "d4-int8", "bytes": 50_000, "valid_auc": 0.89, "test_auc": 0.92},
    {"name": "d8-int8", "bytes": 90_000, "valid_auc": 0.91, "test_auc": 0.90},
]


def test_the_choice_is_made_on_validation_and_the_test_auc_reported() -> None:
    comparison = against_careful({"bytes": 45_000, "valid_auc": 0.905, "test_auc": 0.91}, CAREFUL)
    assert comparison["as_good"]["name"] == "d8-int8"  # d4-int8 is better on test, which nothing is chosen by
    assert comparison["as_good"]["times_smaller"] == pytest.approx(2.0)
    assert comparison["as_small"]["name"] == "d4-int4"
    assert comparison["as_small"]["auc_gain"] == pytest.approx(0.02)
    assert as_good_text(comparison) == (
        "2.00× smaller than the smallest careful program at least as good on validation "
        "(d8-int8, 90.0 kB, test AUC 0.9000)"
    )
    assert as_small_text(comparison).startswith(
        "test AUC +0.0200 over the best careful program at most as large"
    )


def test_where_there_is_none_the_text_says_so() -> None:
    comparison = against_careful({"bytes": 10_000, "valid_auc": 0.95, "test_auc": 0.95}, CAREFUL)
    assert comparison == {"as_good": None, "as_small": None}
    assert as_good_text(comparison) == "no careful program is as good on validation"
    assert as_small_text(comparison) == "no careful program is as small"


def test_a_careful_program_may_be_the_better_one() -> None:
    comparison = against_careful({"bytes": 45_000, "valid_auc": 0.885, "test_auc": 0.88}, CAREFUL)
    assert comparison["as_good"]["name"] == "d4-int4"
    assert comparison["as_good"]["times_smaller"] == pytest.approx(2 / 3)
    assert "test AUC −0.0100 over" in as_small_text(comparison)
    assert as_good_text(comparison).startswith(
        "1.50× larger than the smallest careful program at least as good"
    )
