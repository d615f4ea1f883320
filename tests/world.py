"""Interactions of a few users and items, whose labels follow tastes that a small model can learn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ondevice.forms.codes import Codes
from ondevice.forms.table import TableInfo
from ondevice.methods.build import build
from ondevice.recommender import Recommender, rebuild
from ondevice.training.batches import Batches

NUM_USERS, NUM_ITEMS = 40, 30
CPU = torch.device("cpu")


@dataclass
class Split:
    """What `Batches` reads."""

    ids: np.ndarray
    labels: np.ndarray


@dataclass
class World:
    """Three fields (user, age, item), each with an unknown id."""

    info: TableInfo
    train: Split
    valid: Split
    test: Split

    def batches(self, split: str = "train", batch_size: int = 128) -> Batches:
        return Batches(getattr(self, split), batch_size, CPU)

    def recommender(self, method: str = "uniform", seed: int = 0, **options: Any) -> Recommender:
        """A DeepFM of dimension 4 with batch norm and dropout; ``options`` are the method's."""
        torch.manual_seed(seed)
        return build(
            self.info,
            model="deepfm",
            model_options={"hidden": (8,), "dropout": 0.1},
            method=method,
            method_options=options,
            embedding_dim=4,
        )

    def coded(self, seed: int = 0) -> Recommender:
        """A compact DeepFM of one or two cells a row, all of which become codes, with projected first order."""
        torch.manual_seed(seed)
        count = self.info.num_embeddings
        return rebuild(
            self.info,
            model="deepfm",
            model_options={"hidden": (8,), "dropout": 0.1},
            forms=[Codes(2 + torch.arange(count) % 2 * 2, 4, 2)],
            projected=True,
        )


def tastes(num_rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """User, age and item numbers from 1, and labels that two hidden tastes decide."""
    random = np.random.default_rng(seed)
    likes, is_like = random.normal(size=(NUM_USERS, 2)), random.normal(size=(NUM_ITEMS, 2))
    user, item = random.integers(0, NUM_USERS, num_rows), random.integers(0, NUM_ITEMS, num_rows)
    noise = random.logistic(size=num_rows) / 3
    labels = (likes[user] * is_like[item]).sum(1) + noise > 0
    return user + 1, user % 5 + 1, item + 1, labels.astype(np.uint8)


def make_world() -> World:
    """1,600 training rows, 200 of validation, 200 of test."""
    user, age, item, labels = tastes(2000)
    offsets = np.cumsum([0, NUM_USERS + 1, 6, NUM_ITEMS + 1])
    ids = (np.stack([user, age, item], axis=1) + offsets[:3]).astype(np.int32)
    counts = np.bincount(ids[:1600].ravel(), minlength=offsets[-1])
    parts = [Split(ids[a:b], labels[a:b]) for a, b in ((0, 1600), (1600, 1800), (1800, 2000))]
    return World(TableInfo(torch.tensor(offsets), torch.tensor(counts)), *parts)
