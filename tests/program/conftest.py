"""Exports that several tests share: each takes seconds."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from ondevice.data import Dataset
from ondevice.program.bundle import Bundle
from ondevice.program.endpoints import ENDPOINTS
from ondevice.program.export import Exported, ExportOptions, export_model

from . import shop

Export = Callable[..., Exported]


@pytest.fixture(scope="session")
def data() -> Dataset:
    return shop.dataset()


@pytest.fixture(scope="session")
def export(data: Dataset) -> Export:
    """Export a model of the shop, once per model, layout, quantization and methods."""

    @cache
    def run(model: str, layout: str, quantization: str, methods: tuple[str, ...]) -> Exported:
        return export_model(
            shop.recommender(model, layout, data),
            data,
            name=f"shop-{model}",
            model=model,
            method="pep",
            metrics={"test_auc": 0.5},
            options=ExportOptions(layout, quantization, methods, catalog=True, top_k=5, max_batch=64),
        )

    return run


@pytest.fixture(scope="session")
def exported(export: Export) -> Exported:
    """A DeepFM with all methods."""
    return export("deepfm", "staircase", "int8", ENDPOINTS)


@pytest.fixture
def bundle(exported: Exported, tmp_path: Path) -> Bundle:
    """That model's bundle, written where the test may break it."""
    return exported.bundle.write(tmp_path / "bundle")
