"""What a benchmark measures, and how often."""

from __future__ import annotations

from dataclasses import dataclass

from ondevice.bench.dense.baselines import FORMATS
from ondevice.errors import ConfigError, nearest

CANDIDATES = (1, 100, 1000)


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

    def __post_init__(self) -> None:
        for name, values in (
            ("rounds", (self.rounds,)),
            ("cold starts", (self.cold_starts,)),
            ("candidates", self.candidates),
            ("threads", self.threads),
        ):
            if not values or min(values) < 1:
                raise ConfigError(f"{name}: at least 1, got {', '.join(map(str, values)) or 'nothing'}")
        for name in self.baselines:
            if name not in FORMATS:
                raise ConfigError(f"unknown baseline '{name}' {nearest(name, FORMATS)}")
        if "fp32" not in self.baselines:
            raise ConfigError("baselines: fp32 is what every ratio is taken of; add it")
