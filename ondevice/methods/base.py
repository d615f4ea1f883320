"""The registry that methods name themselves in."""

from __future__ import annotations

from ondevice.forms.table import EmbeddingMethod
from ondevice.registry import Registry

METHODS: Registry[type[EmbeddingMethod]] = Registry("method")
