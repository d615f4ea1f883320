"""Models of a history: one architecture, one file. Importing the package registers them all."""

from ondevice.models.sequences.base import SEQUENCE_MODELS, SequenceModel
from ondevice.registry import import_siblings

import_siblings(__name__, list(__path__))

__all__ = ["SEQUENCE_MODELS", "SequenceModel"]
