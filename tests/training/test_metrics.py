"""Global AUC and log loss against the plain definitions."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ondevice.training.metrics import auc, log_loss

# few distinct scores, so that most examples have ties
ROWS = st.lists(st.tuples(st.booleans(), st.integers(0, 6)), min_size=2, max_size=40).filter(
    lambda rows: len({label for label, _ in rows}) == 2
)


def by_pairs(labels: list[bool], scores: list[float]) -> float:
    """The share of (positive, negative) pairs in the right order, ties counted half."""
    pairs = [
        (scores[i] > scores[j]) + 0.5 * (scores[i] == scores[j])
        for i in range(len(labels))
        for j in range(len(labels))
        if labels[i] and not labels[j]
    ]
    return sum(pairs) / len(pairs)


@given(ROWS)
def test_auc_is_the_share_of_ordered_pairs(rows: list[tuple[bool, int]]) -> None:
    labels, scores = [label for label, _ in rows], [score / 7 for _, score in rows]
    assert auc(labels, scores) == pytest.approx(by_pairs(labels, scores), abs=1e-12)
    assert auc([not label for label in labels], scores) == pytest.approx(1 - auc(labels, scores))


def test_auc_by_hand() -> None:
    """Positives 0.8 and 0.5 against negatives 0.5 and 0.1: 1 + 1 + ½ + 1 of four pairs."""
    assert auc([1, 0, 1, 0], [0.8, 0.5, 0.5, 0.1]) == 3.5 / 4
    assert auc(torch.tensor([1.0, 0.0]), torch.tensor([3e-8, 2e-8])) == 1.0


def test_auc_is_global_and_no_mean_over_batches() -> None:
    """Each half is in perfect order, the whole is not: the released code of PEP would report 1."""
    labels, scores = [1, 0, 1, 0], [0.9, 0.8, 0.2, 0.1]
    per_batch = (auc(labels[:2], scores[:2]) + auc(labels[2:], scores[2:])) / 2
    assert per_batch == 1.0
    assert auc(labels, scores) == 0.75


@pytest.mark.parametrize("labels", [[1, 1], [0, 0]])
def test_auc_of_one_class_is_refused(labels: list[int]) -> None:
    with pytest.raises(ValueError, match=r"needs both classes, got \d positive and \d negative"):
        auc(labels, [0.1, 0.2])


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_auc_of_a_diverged_training_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="the training has diverged"):
        auc([1, 0], [0.1, bad])


def test_log_loss_by_hand() -> None:
    """−(ln 0.8 + ln(1 − 0.4)) / 2."""
    assert log_loss([1, 0], [0.8, 0.4]) == pytest.approx(-(math.log(0.8) + math.log(0.6)) / 2)
    assert log_loss(torch.tensor([1.0]), torch.tensor([0.5])) == pytest.approx(math.log(2))


def test_log_loss_of_a_sure_mistake_is_finite() -> None:
    assert log_loss([1, 0], [0.0, 1.0]) == pytest.approx(-math.log(1e-7), rel=1e-6)


@given(ROWS, st.data())
def test_a_weight_is_a_number_of_rows(rows: list[tuple[bool, int]], data: st.DataObject) -> None:
    labels, scores = [label for label, _ in rows], [(score + 1) / 8 for _, score in rows]
    counts = data.draw(st.lists(st.integers(1, 4), min_size=len(rows), max_size=len(rows)))
    repeated = [value for value, count in zip(labels, counts, strict=True) for _ in range(count)]
    again = [value for value, count in zip(scores, counts, strict=True) for _ in range(count)]
    assert auc(labels, scores, counts) == pytest.approx(auc(repeated, again), abs=1e-12)
    assert log_loss(labels, scores, counts) == pytest.approx(log_loss(repeated, again), abs=1e-12)
