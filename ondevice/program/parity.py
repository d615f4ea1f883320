"""Whether a program computes what was trained, link by link from the eager model to the .pte."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ondevice.data.dataset import EncodedSplit
from ondevice.program.bundle import Bundle
from ondevice.program.pack import PackedRecommender
from ondevice.program.quantize import sqnr_db
from ondevice.recommender import Recommender
from ondevice.training.metrics import auc, log_loss

SAMPLE = 4096
BATCH = 8192


def parity(
    recommender: Recommender,
    packed: PackedRecommender,
    quantized: PackedRecommender,
    bundle: Bundle,
    split: EncodedSplit,
    *,
    sample: int = SAMPLE,
) -> dict[str, Any]:
    """The differences along the way, and the AUC at both ends.

    Args:
        recommender: the eager model on training ids, in evaluation mode.
        packed: the same with float values in program order.
        quantized: what was lowered.
        bundle: what was written.
        split: real rows with labels.
        sample: rows for the first three links; evenly spaced.

    Returns: ``eager_vs_packed`` and ``int8_vs_pte_max_abs`` (largest difference of a logit and of a score),
        ``packed_vs_int8_sqnr_db`` (logits), ``test_auc_eager``, ``test_auc_pte``, ``test_logloss_eager``,
        ``test_logloss_pte`` and ``rows``.
    """
    order = packed.order
    chosen = np.linspace(0, len(split) - 1, min(sample, len(split))).astype(np.int64)
    ids = torch.from_numpy(np.array(split.ids[chosen], dtype=np.int64))
    rows = order.rows(ids)
    with torch.no_grad():
        eager, exact, rounded = recommender(order.read_ids(ids)), packed(rows), quantized(rows)
    scores = bundle.score_rows(rows.numpy())
    labels = np.array(split.labels)
    weights = None if split.weights is None else np.array(split.weights)
    eager_scores, program_scores = eager_and_program_scores(recommender, packed, bundle, split)
    return {
        "eager_vs_packed": float((eager - exact).abs().max()),
        "packed_vs_int8_sqnr_db": sqnr_db(exact, rounded),
        "int8_vs_pte_max_abs": float(np.abs(torch.sigmoid(rounded).numpy() - scores).max()),
        "test_auc_eager": auc(labels, eager_scores, weights),
        "test_auc_pte": auc(labels, program_scores, weights),
        "test_logloss_eager": log_loss(labels, eager_scores, weights),
        "test_logloss_pte": log_loss(labels, program_scores, weights),
        "rows": len(labels),
    }


def eager_and_program_scores(
    recommender: Recommender, packed: PackedRecommender, bundle: Bundle, split: EncodedSplit
) -> tuple[np.ndarray, np.ndarray]:
    """Scores of a whole split by the eager model and by the .pte."""
    eager, program = [], []
    for begin in range(0, len(split), BATCH):
        ids = torch.from_numpy(np.array(split.ids[begin : begin + BATCH], dtype=np.int64))
        with torch.no_grad():
            eager.append(torch.sigmoid(recommender(packed.order.read_ids(ids))).numpy())
        program.append(bundle.score_rows(packed.order.rows(ids).numpy()))
    return np.concatenate(eager), np.concatenate(program)
