"""Global AUC and log loss: over a whole split, never averaged per batch."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ondevice.errors import UserError


def auc(
    labels: ArrayLike | Tensor, scores: ArrayLike | Tensor, weights: ArrayLike | Tensor | None = None
) -> float:
    """Area under the ROC curve, ties counted half (the Mann-Whitney statistic).

    With weights it is Σ wᵢwⱼ[sᵢ > sⱼ] over pairs of a positive i and a negative j, through Σ wᵢwⱼ.

    Shape: labels (n,) in {0, 1}, scores (n,), weights (n,).

    Raises: UserError: when only one class is present or a score is not finite.
    """
    y = torch.as_tensor(labels).reshape(-1).bool()
    x = torch.as_tensor(scores).reshape(-1).double()
    positives = int(y.sum())
    negatives = y.numel() - positives
    if not positives or not negatives:
        raise UserError(f"AUC needs both classes, got {positives} positive and {negatives} negative labels")
    if not bool(torch.isfinite(x).all()):
        raise UserError(
            "the training has diverged: scores are not finite; lower the learning rate (train.learning_rate, "
            "compact.train.learning_rate, compact.sizes.learning_rate)"
        )
    _, inverse, counts = torch.unique(x, return_inverse=True, return_counts=True)
    ranks = counts.cumsum(0).double() - (counts.double() - 1) / 2  # mean rank, from 1, of each distinct score
    if weights is not None:
        w = torch.as_tensor(weights).reshape(-1).double()
        ones = torch.zeros(len(counts), dtype=torch.float64)
        up, down = ones.index_add(0, inverse[y], w[y]), ones.index_add(0, inverse[~y], w[~y])
        return float((up * (down.cumsum(0) - down / 2)).sum() / (up.sum() * down.sum()))
    total = ranks[inverse[y]].sum()
    return float((total - positives * (positives + 1) / 2) / (positives * negatives))


def log_loss(
    labels: ArrayLike | Tensor, scores: ArrayLike | Tensor, weights: ArrayLike | Tensor | None = None
) -> float:
    """Mean (by weight) negative log-likelihood of probabilities ``scores`` (after the sigmoid), in nats.

    Shape: labels (n,) in {0, 1}, scores (n,) in [0, 1], weights (n,).
    """
    y = np.asarray(labels, dtype=np.float64).reshape(-1)
    p = np.clip(np.asarray(scores, dtype=np.float64).reshape(-1), 1e-7, 1 - 1e-7)
    each = y * np.log(p) + (1 - y) * np.log1p(-p)
    return float(-np.mean(each)) if weights is None else float(-np.average(each, weights=np.asarray(weights)))
