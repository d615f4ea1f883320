"""Global AUC and log loss: over a whole split, never averaged per batch."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor


def auc(labels: ArrayLike | Tensor, scores: ArrayLike | Tensor) -> float:
    """Area under the ROC curve, ties counted half (the Mann-Whitney statistic).

    Shape: labels (n,) in {0, 1}, scores (n,).

    Raises: ValueError: when only one class is present or a score is not finite.
    """
    y = torch.as_tensor(labels).reshape(-1).bool()
    x = torch.as_tensor(scores).reshape(-1).double()
    positives = int(y.sum())
    negatives = y.numel() - positives
    if not positives or not negatives:
        raise ValueError(f"AUC needs both classes, got {positives} positive and {negatives} negative labels")
    if not bool(torch.isfinite(x).all()):
        raise ValueError("AUC of scores that are not finite: the training has diverged")
    _, inverse, counts = torch.unique(x, return_inverse=True, return_counts=True)
    ranks = counts.cumsum(0).double() - (counts.double() - 1) / 2  # mean rank, from 1, of each distinct score
    total = ranks[inverse[y]].sum()
    return float((total - positives * (positives + 1) / 2) / (positives * negatives))


def log_loss(labels: ArrayLike | Tensor, scores: ArrayLike | Tensor) -> float:
    """Mean negative log-likelihood of probabilities ``scores`` (after the sigmoid), in nats.

    Shape: labels (n,) in {0, 1}, scores (n,) in [0, 1].
    """
    y = np.asarray(labels, dtype=np.float64).reshape(-1)
    p = np.clip(np.asarray(scores, dtype=np.float64).reshape(-1), 1e-7, 1 - 1e-7)
    return float(-np.mean(y * np.log(p) + (1 - y) * np.log1p(-p)))
