"""What a benchmark measures, and how often."""

from __future__ import annotations

from dataclasses import dataclass

from ondevice.bench.dense.baselines import FORMATS
from ondevice.errors import ConfigError, nearest

CANDIDATES = (1, 100, 1000)
CAREFUL_DIMS = (2, 4, 8, 16, 32)


@dataclass(frozen=True)
class Settings:
    """How much is measured."""

    rounds: int = 15
    """Rounds in which every program is timed."""
    cold_starts: int = 3
    """Fresh processes per program, for memory and load time."""
    candidates: tuple[int, ...] = CANDIDATES
    """Rows or items of one call."""
    threads: tuple[int, ...] = (1, 2)
    """Numbers of threads."""
    baselines: tuple[str, ...] = tuple(FORMATS)
    """Dense programs to compare with, fp32 first."""
    careful_dims: tuple[int, ...] = ()
    """Dimensions of the careful programs, each trained as long as a compact model; none for no such comparison."""
    careful_bits: tuple[int, ...] = (8, 4, 2)
    """Bits of their values."""
    careful_min_counts: tuple[int, ...] = (1,)
    """Occurrences in training below which they store no value."""
    taught: bool = True
    """Whether a dense model that learns from the same teachers stands beside the careful programs."""

    def __post_init__(self) -> None:
        for name, values in (
            ("rounds", (self.rounds,)),
            ("cold starts", (self.cold_starts,)),
            ("candidates", self.candidates),
            ("threads", self.threads),
        ):
            if not values or min(values) < 1:
                raise ConfigError(f"{name}: at least 1, got {', '.join(map(str, values)) or 'nothing'}")
        for name, values in (("dims", self.careful_dims), ("min counts", self.careful_min_counts)):
            if any(value < 1 for value in values):
                raise ConfigError(f"careful {name}: at least 1, got {', '.join(map(str, values))}")
        if not set(self.careful_bits) <= {8, 4, 2}:
            raise ConfigError(f"careful bits: 8, 4 or 2, got {', '.join(map(str, self.careful_bits))}")
        for name in self.baselines:
            if name not in FORMATS:
                raise ConfigError(f"unknown baseline '{name}' {nearest(name, FORMATS)}")
        if "fp32" not in self.baselines:
            raise ConfigError("baselines: fp32 is what every ratio is taken of; add it")
