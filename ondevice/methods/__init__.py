"""Methods: how sizes and shared rows are found. One paper, one file; importing the package registers them all."""

from ondevice.methods import sharing, sizes
from ondevice.methods.base import METHODS, Method

__all__ = ["METHODS", "Method", "sharing", "sizes"]
