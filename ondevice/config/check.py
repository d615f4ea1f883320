"""Checks of single values."""

from __future__ import annotations

from typing import Any

from ondevice.errors import ConfigError


def check(where: str, got: Any, holds: bool, allowed: str) -> None:
    """Raise ConfigError, which says what is allowed, where a value does not hold."""
    if not holds:
        raise ConfigError(f"{where}: got {got!r}; it must be {allowed}")
