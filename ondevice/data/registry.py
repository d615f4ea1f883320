"""The registry of data sets: a builder takes keyword-only options and returns a `Dataset`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ondevice.registry import Registry

if TYPE_CHECKING:
    from ondevice.data.dataset import Dataset

DATASETS: Registry[Callable[..., Dataset]] = Registry("data set")


def load_dataset(name: str, **options: Any) -> Dataset:
    """The data set of this name, encoded: prepared on the first call, opened from the cache later.

    Raises: UserError: for an unknown name or option, and for data that cannot be had or read.
    """
    DATASETS.check_options(name, options, "data")
    return DATASETS[name](**options)
