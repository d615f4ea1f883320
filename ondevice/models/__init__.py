"""Base models: one architecture, one file. Importing the package registers them all."""

from ondevice.models.base import MODELS, BaseModel
from ondevice.registry import import_siblings

import_siblings(__name__, list(__path__))

__all__ = ["MODELS", "BaseModel"]
