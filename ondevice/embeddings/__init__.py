"""Embedding methods: one paper, one file. Importing the package registers them all."""

from ondevice.embeddings import sharing, sizes
from ondevice.embeddings.base import METHODS, EmbeddingMethod, TableInfo
from ondevice.embeddings.coded import CodedEmbedding
from ondevice.embeddings.forms import Codes, Form, Mask, Ranking, SharedMap, Sizes
from ondevice.embeddings.retrained import RetrainedEmbedding, SharedEmbedding

__all__ = [
    "METHODS",
    "CodedEmbedding",
    "Codes",
    "EmbeddingMethod",
    "Form",
    "Mask",
    "Ranking",
    "RetrainedEmbedding",
    "SharedEmbedding",
    "SharedMap",
    "Sizes",
    "TableInfo",
    "sharing",
    "sizes",
]
