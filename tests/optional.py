"""What is not installed with training alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

import pytest

from ondevice.errors import MissingPackage


@contextmanager
def torchao_or_skip() -> Iterator[None]:
    """Skip, and say why, where layers of few bits need torchao and it is not installed."""
    try:
        yield
    except MissingPackage as error:
        if find_spec("torchao") is not None:
            raise
        pytest.skip(str(error))
