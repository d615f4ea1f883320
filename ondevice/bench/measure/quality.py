"""AUC and log loss of a program: the file itself over a whole split, through the runtime."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ondevice.bench.measure.runtime import Program
from ondevice.data.dataset import EncodedSplit
from ondevice.training.metrics import auc, log_loss


def score(
    program: Program,
    ids: np.ndarray,
    *,
    max_batch: int,
    row_of: Tensor | None = None,
    on_batch: Callable[[int], object] = lambda rows: None,
) -> np.ndarray:
    """Scores (n,) float32 of rows of training ids.

    Args:
        program: a program with a method ``forward``.
        ids: (n, F) training ids.
        max_batch: most rows of one call.
        row_of: what the program calls each training id; None where it takes them as they are.
        on_batch: called with the number of rows after each batch.
    """
    forward = program.method("forward")
    scores = np.empty(len(ids), dtype=np.float32)
    for start in range(0, len(ids), max_batch):
        batch = torch.from_numpy(np.asarray(ids[start : start + max_batch], dtype=np.int64))
        (out,) = forward((batch if row_of is None else row_of[batch],))
        scores[start : start + len(batch)] = out.numpy()
        on_batch(len(batch))
    return scores


def quality(split: EncodedSplit, scores: np.ndarray) -> dict[str, float]:
    """``test_auc`` and ``test_logloss`` of a split's scores, by the weights of its rows where it has them."""
    labels = np.array(split.labels)  # a memory-mapped split is read-only, which PyTorch warns of
    weights = None if split.weights is None else np.array(split.weights)
    return {"test_auc": auc(labels, scores, weights), "test_logloss": log_loss(labels, scores, weights)}
