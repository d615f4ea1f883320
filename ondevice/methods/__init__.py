"""Methods: how sizes and shared rows are found. One paper, one file; importing the package registers them all."""

from ondevice.methods import sharing, sizes
from ondevice.methods.base import METHODS

__all__ = ["METHODS", "sharing", "sizes"]
