"""Data sets: read from their source, encoded, and opened from a store that is prepared once."""

from ondevice.data.dataset import Catalog, Dataset, EncodedSplit
from ondevice.data.registry import DATASETS, load_dataset
from ondevice.data.schema import Field, Label, Schema
from ondevice.data.vocabulary import Vocabulary
from ondevice.registry import import_siblings

import_siblings(__name__, __path__)

__all__ = [
    "DATASETS",
    "Catalog",
    "Dataset",
    "EncodedSplit",
    "Field",
    "Label",
    "Schema",
    "Vocabulary",
    "load_dataset",
]
