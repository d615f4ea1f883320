"""The hash of a key's canonical text: the same in training, in a bundle's reader here and in the one on the phone."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

_BASIS, _PRIME, _MASK = 0x811C9DC5, 0x01000193, 0xFFFFFFFF


def key_hash(text: str) -> int:
    """32-bit FNV-1a of the UTF-8 bytes (Fowler, Noll and Vo): h = (h ⊕ byte)·16777619 mod 2^32 from h = 2166136261.

    Raises: UnicodeEncodeError: for a text with half of a surrogate pair.
    """
    value = _BASIS
    for byte in text.encode():
        value = (value ^ byte) * _PRIME & _MASK
    return value


def key_hashes(texts: Iterable[str]) -> np.ndarray:
    """`key_hash` of each text, (n,) int64."""
    return np.fromiter((key_hash(text) for text in texts), dtype=np.int64)
