"""Keys that are looked up, not named: a place for each by a perfect hash, and a few bits that tell it from other keys.

A perfect hash gives each of n keys a place of its own without storing the keys, and any other text one, too; the
fingerprint at that place tells most of those apart. One in 2^bits is taken for a stored key.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ondevice.bundle.subset import Reader

MIN_BITS, MAX_BITS = 1, 32
MAX_LEVELS = 64
CHUNK = 16_384  # texts that are hashed at a time, for memory

_BASIS, _PRIME = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)


def text_hashes(texts: Sequence[str]) -> np.ndarray:
    """64-bit FNV-1a of the UTF-8 bytes of each text, (n,) uint64 (Fowler, Noll and Vo).

    Raises: UnicodeEncodeError: for a text with half of a surrogate pair.
    """
    parts = [_text_hashes(texts[at : at + CHUNK]) for at in range(0, len(texts), CHUNK)]
    return np.concatenate(parts) if parts else np.empty(0, dtype=np.uint64)


def _text_hashes(texts: Sequence[str]) -> np.ndarray:
    encoded = [text.encode() for text in texts]
    data = np.frombuffer(b"".join(encoded) + b"\0", dtype=np.uint8)
    lengths = np.array([len(each) for each in encoded])
    starts = np.cumsum(lengths) - lengths
    hashes = np.full(len(encoded), _BASIS)
    for place in range(int(lengths.max())):
        longer = np.flatnonzero(lengths > place)
        hashes[longer] = (hashes[longer] ^ data[starts[longer] + place]) * _PRIME
    return hashes


def mixed(hashes: np.ndarray, seed: int) -> np.ndarray:
    """Another hash of each hash, (n,) uint64: the ``seed``-th number of splitmix64 (Steele et al. 2014) from there."""
    x = hashes + np.array([seed + 1], dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(x ^ (x >> np.uint64(31)))


def _bits(hashes: np.ndarray, level: int, size: int) -> np.ndarray:
    """The bit of a level of ``size`` bits that each hash belongs to."""
    return ((mixed(hashes, level) >> np.uint64(32)) * np.uint64(size) >> np.uint64(32)).astype(np.int64)


class Fingerprints:
    """n keys by BBHash (arXiv 1702.03154, with γ = 1, where it is smallest: e bits a key) and fingerprints.

    A level has as many bits as keys are left. A bit that one of them alone hashes to is set, and that key's; the
    others go on to the next level. A key's place is the number of bits that are set before its own.

    Args:
        levels: bits of each, (keys left,) bool.
        prints: of the key at each place, (n,) uint64.
        bits: of a fingerprint.
    """

    def __init__(self, levels: Sequence[np.ndarray], prints: np.ndarray, bits: int) -> None:
        self.levels, self.prints, self.bits = list(levels), prints, bits
        self._ranks = []
        before = 0
        for level in self.levels:
            self._ranks.append(before - 1 + np.cumsum(level))
            before += int(level.sum())

    @classmethod
    def of(cls, hashes: np.ndarray, bits: int) -> Fingerprints | None:
        """Those of keys with these hashes, (n,) uint64, of which there is at least one; None when two are equal."""
        levels: list[np.ndarray] = []
        left = hashes
        while len(left) and len(levels) < MAX_LEVELS:
            bit_places = _bits(left, len(levels), len(left))
            alone = np.bincount(bit_places, minlength=len(left)) == 1
            levels.append(alone)
            left = left[~alone[bit_places]]
        if len(left):
            return None
        made = cls(levels, np.zeros(len(hashes), dtype=np.uint64), bits)
        made.prints[made._places(hashes)] = made._print(hashes)
        return made

    def _print(self, hashes: np.ndarray) -> np.ndarray:
        return mixed(hashes, MAX_LEVELS) & np.uint64((1 << self.bits) - 1)

    def _places(self, hashes: np.ndarray) -> np.ndarray:
        places = np.full(len(hashes), -1, dtype=np.int64)
        for number, (level, ranks) in enumerate(zip(self.levels, self._ranks, strict=True)):
            left = np.flatnonzero(places < 0)
            if not len(left):
                break
            bits = _bits(hashes[left], number, len(level))
            places[left[level[bits]]] = ranks[bits[level[bits]]]
        return places

    def places(self, hashes: np.ndarray) -> np.ndarray:
        """The place of each hash, (m,) int64; -1, or by mistake a place, of one that is not there."""
        places = self._places(hashes)
        same = (places >= 0) & (self.prints[places] == self._print(hashes))
        return np.where(same, places, -1)

    def encode(self) -> bytes:
        """The bits of a fingerprint in a byte, levels, fingerprints: each a whole number of bytes."""
        shifts = np.arange(self.bits - 1, -1, -1, dtype=np.uint64)
        prints = (self.prints[:, None] >> shifts & np.uint64(1)).astype(bool)
        parts = [np.packbits(level).tobytes() for level in [*self.levels, prints.ravel()]]
        return bytes([self.bits]) + b"".join(parts)


def decode(reader: Reader, num_keys: int) -> Fingerprints:
    """What `Fingerprints.encode` wrote of so many keys.

    Raises: UserError: when it is damaged.
    """
    bits = reader.byte()
    if not MIN_BITS <= bits <= MAX_BITS:
        raise reader.wrong(f"fingerprints of {bits} bits")
    levels: list[np.ndarray] = []
    left = num_keys
    while left:
        if len(levels) == MAX_LEVELS:
            raise reader.wrong(f"{left} keys are left after {MAX_LEVELS} levels")
        levels.append(_read_bits(reader, left))
        left -= int(levels[-1].sum())
    columns = _read_bits(reader, num_keys * bits).reshape(num_keys, bits)
    prints = np.zeros(num_keys, dtype=np.uint64)
    for column in columns.T:
        prints = prints << np.uint64(1) | column
    return Fingerprints(levels, prints, bits)


def _read_bits(reader: Reader, count: int) -> np.ndarray:
    unpacked = np.unpackbits(np.frombuffer(reader.take(-(-count // 8)), dtype=np.uint8)).astype(bool)
    if unpacked[count:].any():
        raise reader.wrong("bits follow the last of a level or fingerprint")
    return np.asarray(unpacked[:count])
