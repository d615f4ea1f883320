"""Embedding methods: one paper, one file. Importing the package registers them all."""

from ondevice.embeddings import sizes
from ondevice.embeddings.base import METHODS, EmbeddingMethod, TableInfo
from ondevice.embeddings.coded import CodedEmbedding
from ondevice.embeddings.forms import Codes, Form, Mask, Ranking, Sizes
from ondevice.embeddings.retrained import RetrainedEmbedding

__all__ = [
    "METHODS",
    "CodedEmbedding",
    "Codes",
    "EmbeddingMethod",
    "Form",
    "Mask",
    "Ranking",
    "RetrainedEmbedding",
    "Sizes",
    "TableInfo",
    "sizes",
]
