"""Preparations without processes of their own, as `tests/data/large` has them."""

from ..data.large.conftest import inline

__all__ = ["inline"]
