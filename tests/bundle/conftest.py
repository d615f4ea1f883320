"""The shop's exports, which those of `tests/program` are, too."""

from ..program.conftest import bundle, data, export, exported

__all__ = ["bundle", "data", "export", "exported"]
