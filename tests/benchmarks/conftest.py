"""Preparations without processes of their own, as `tests/data/preparation` has them."""

from ..data.preparation.conftest import inline

__all__ = ["inline"]
