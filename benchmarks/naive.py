"""PEP as it is usually written, to be measured against: nothing here is used to train.

The soft threshold is taken of the whole table at every step, and rows come one by one from a data set whose
items are collated, as in the code released with the paper and in most that follow it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset


class RowDataset(Dataset[tuple[Any, Any]]):
    """Rows one at a time. Shape: ids (n, F), labels (n,)."""

    def __init__(self, ids: np.ndarray, labels: np.ndarray) -> None:
        self.ids = np.asarray(ids, dtype=np.int64)
        self.labels = np.asarray(labels, dtype=np.float32)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, row: int) -> tuple[Any, Any]:
        return self.ids[row], self.labels[row]


class WholeTablePEP(nn.Module):
    """A factorization machine whose table is thresholded as a whole: ids (B, F) -> logits (B,)."""

    def __init__(self, num_embeddings: int, embedding_dim: int, threshold_init: float = -15.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(num_embeddings, embedding_dim)))
        self.s = nn.Parameter(torch.full((num_embeddings, embedding_dim), threshold_init))
        self.first_order = nn.Parameter(nn.init.xavier_uniform_(torch.empty(num_embeddings, 1)))
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, ids: Tensor) -> Tensor:
        table = torch.sign(self.weight) * torch.relu(self.weight.abs() - torch.sigmoid(self.s))
        e = F.embedding(ids, table)
        pairs = 0.5 * (e.sum(1).square() - e.square().sum(1)).sum(1)
        return self.bias + F.embedding(ids, self.first_order).sum((1, 2)) + pairs


def naive_batches(ids: np.ndarray, labels: np.ndarray, batch_size: int) -> DataLoader[tuple[Any, Any]]:
    """Shuffled batches made row by row."""
    return DataLoader(RowDataset(ids, labels), batch_size=batch_size, shuffle=True)


def naive_step(model: WholeTablePEP, optimizer: torch.optim.Optimizer, ids: Tensor, labels: Tensor) -> None:
    """One step as in `WholeTablePEP`."""
    optimizer.zero_grad()
    F.binary_cross_entropy_with_logits(model(ids), labels).backward()
    optimizer.step()
