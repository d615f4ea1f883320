"""ondevice: recommenders that learn how many dimensions each feature deserves, and ship to phones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from ondevice.program.bundle import Bundle


def load_bundle(path: Any) -> Bundle:
    """Open and verify an exported bundle: see `ondevice.program.bundle.load_bundle`."""
    from ondevice.program.bundle import load_bundle as load  # needs ExecuTorch, training does not

    return load(path)
