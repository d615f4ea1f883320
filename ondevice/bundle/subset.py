"""Which m of n things, in few bytes: gaps between those that are in, gaps between those that are not, or a bit each.

A subset of m of n things, by ascending places 0 … n − 1, is nothing where m = n, else a byte c and

    c = 0 … 63:    varint bytes; Rice codes with parameter c of the m places' gaps
    c = 64 … 127:  varint bytes; Rice codes with parameter c − 64 of the gaps of the n − m places that are not in it
    c = 128:       n bits, one for each place

most significant bit first. A place's gap is the number of places between it and the one before (for the first, before
it); its Rice code with parameter k is gap >> k one-bits, a zero-bit and the k low bits. A subset of density p takes at
least log₂ of the binomial coefficient: bits come near that for p about one half, Rice codes for all others.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np

from ondevice.errors import DamagedFile, UserError

COMPLEMENT, BITS = 64, 128
_PLACES = np.arange(64)
_POWERS = np.uint64(1) << np.arange(63, -1, -1, dtype=np.uint64)
DENSE = 16  # a subset of fewer than one in so many is given by its own gaps


def varint(value: int) -> bytes:
    """Unsigned LEB128."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def encode_subset(places: np.ndarray, count: int) -> bytes:
    """The bytes of a subset.

    Args:
        places: ascending, at least one, in [0, count).
        count: n, up to 2⁶⁴.

    Shape: places (m,) uint64.
    """
    if len(places) == count:
        return b""
    forms = [_encode_gaps(places, 0)]
    if count <= DENSE * len(places) + 64:
        mask = np.zeros(count, dtype=bool)
        mask[places.astype(np.int64)] = True
        forms.append(_encode_gaps(np.flatnonzero(~mask).astype(np.uint64), COMPLEMENT))
        forms.append(bytes([BITS]) + np.packbits(mask).tobytes())
    return min(forms, key=len)


def _encode_gaps(places: np.ndarray, base: int) -> bytes:
    gaps = np.empty_like(places)
    gaps[:1] = places[:1]
    np.subtract(places[1:], places[:-1] + np.uint64(1), out=gaps[1:])
    k = _rice_parameter(gaps)
    payload = _rice_encode(gaps, k)
    return bytes([base + k]) + varint(len(payload)) + payload


def _rice_parameter(gaps: np.ndarray) -> int:
    """The parameter with the fewest bits."""
    middle = max(float(gaps.astype(np.float64).mean()), 1.0)
    near = int(np.log2(middle))
    candidates = range(max(0, near - 3), min(63, near + 3) + 1)
    return min(candidates, key=lambda k: _rice_bits(gaps, k))


def _rice_bits(gaps: np.ndarray, k: int) -> int:
    return int((gaps >> np.uint64(k)).sum(dtype=np.uint64)) + len(gaps) * (k + 1)


def _rice_encode(gaps: np.ndarray, k: int) -> bytes:
    quotients = (gaps >> np.uint64(k)).astype(np.int64)
    ends = np.cumsum(quotients + k + 1)
    bits = np.zeros(int(ends[-1]), dtype=np.uint8)
    starts = ends - quotients - k - 1
    # ones from each start up to its zero-bit: +1 at the start, -1 at the zero-bit, summed
    steps = np.zeros(len(bits) + 1, dtype=np.int64)
    np.add.at(steps, starts, 1)
    np.add.at(steps, starts + quotients, -1)
    bits[:] = np.cumsum(steps)[:-1]
    for j in range(k):
        bits[ends - 1 - j] = (gaps >> np.uint64(j)) & np.uint64(1)
    return np.packbits(bits).tobytes()


class Reader:
    """Bounds-checked reading; what is wrong becomes one sentence with the file's name."""

    def __init__(self, data: bytes, name: str) -> None:
        self.data, self.name, self.at = data, name, 0

    def wrong(self, what: str) -> UserError:
        return DamagedFile(f"{self.name}: {what} (byte {self.at}); the file is damaged, export it again")

    @property
    def left(self) -> int:
        """Bytes that were not read yet."""
        return len(self.data) - self.at

    def take(self, count: int) -> bytes:
        if count > self.left:
            raise self.wrong(f"ends {count - self.left} bytes early")
        self.at += count
        return self.data[self.at - count : self.at]

    def byte(self) -> int:
        if self.at == len(self.data):
            raise self.wrong("ends 1 bytes early")
        self.at += 1
        return self.data[self.at - 1]

    def varint(self, what: str) -> int:
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                if value >= 2**64:
                    raise self.wrong(f"the {what} is beyond 64 bits")
                return value
            if shift > 63:
                raise self.wrong(f"the {what} is beyond 64 bits")

    def varints(self, count: int, what: str) -> Sequence[int]:
        """So many of them, one after the other."""
        head = self.data[self.at : self.at + count]
        if len(head) == count and head.isascii():  # the usual case: a byte each
            self.at += count
            return head
        return [self.varint(what) for _ in range(count)]

    def inflated(self, limit: int) -> bytes:
        """What a varint and the raw deflate (RFC 1951) of so many bytes, which end the data, unpack to.

        Args:
            limit: bytes; data that says more is not unpacked.
        """
        size = self.varint("size of the content")
        if size > limit:
            raise self.wrong(f"says that it unpacks to {size} bytes")
        unpacker = zlib.decompressobj(-15)
        try:
            content = unpacker.decompress(self.data[self.at :], size + 1)
        except zlib.error as error:
            raise self.wrong(f"cannot be unpacked ({error})") from None
        if len(content) != size or not unpacker.eof or unpacker.unused_data:
            raise self.wrong(f"does not unpack to {size} bytes")
        return content

    def subset(self, size: int, count: int) -> np.ndarray:
        """The places (m,) uint64 of a subset.

        Args:
            size: m, at least 1; bounded by the caller, since it may take no bytes.
            count: n, up to 2⁶⁴.
        """
        if size > count:
            raise self.wrong(f"{size} of {count} keys")
        if size == count:
            return np.arange(count, dtype=np.uint64)
        code = self.byte()
        if code == BITS:
            return self._bits(size, count)
        if code > BITS:
            raise self.wrong(f"no form {code} of a subset")
        if code < COMPLEMENT:
            return self._gaps(size, count, code)
        out = self._gaps(count - size, count, code - COMPLEMENT)
        is_in = np.ones(count, dtype=bool)
        is_in[out.view(np.int64)] = False
        return is_in.nonzero()[0].view(np.uint64)

    def _bits(self, size: int, count: int) -> np.ndarray:
        bits = np.unpackbits(np.frombuffer(self.take((count + 7) // 8), dtype=np.uint8))
        (places,) = bits.nonzero()
        if len(places) != size or places[-1] >= count:
            raise self.wrong(f"{len(places)} of {count} keys, not {size}")
        return places.view(np.uint64)

    def _gaps(self, size: int, count: int, k: int) -> np.ndarray:
        """The places (m,) uint64 of Rice codes."""
        payload = self.take(self.varint("size of a group's keys"))
        if size > 8 * len(payload):
            raise self.wrong(f"{size} keys in {len(payload)} bytes")
        bits = np.unpackbits(np.frombuffer(payload, dtype=np.uint8))
        is_zero = bits == 0
        (zeros,) = is_zero.nonzero()
        if size > len(zeros):
            raise self.wrong("a group's keys end early")
        stops = zeros[:size]
        if k:
            # the low bits follow the zero-bit that ends the ones; the next zero-bit after those ends the next code
            chain = _chain(is_zero.cumsum().take(zeros + k, mode="clip"), size)
            stops = zeros.take(chain, mode="clip")
            if chain[-1] == len(zeros) or stops[-1] + k >= len(bits):
                raise self.wrong("a group's keys end early")
        numbers = np.arange(size, dtype=np.uint64)
        ones = stops.view(np.uint64) - numbers * (k + 1)  # those of a code and of all before it
        low = bits[stops[:, None] + _PLACES[1 : k + 1]] @ _POWERS[64 - k :]
        sums = low.cumsum()
        last = (int(ones[-1]) << k) + (int(sums[-1]) if size << k < 2**64 else sum(low.tolist())) + size - 1
        if last >= count:
            raise self.wrong(f"a place of {last} among {count}")
        end = int(stops[-1]) + k + 1
        if (end + 7) // 8 != len(payload) or payload[-1] & (1 << -end % 8) - 1:
            raise self.wrong("bits follow a group's last key")
        return np.asarray((ones << k) + sums + numbers)


def _chain(after: np.ndarray, size: int) -> np.ndarray:
    """The first of 0, after[0], after[after[0]], ..., (size,) int64: twice as many in each step.

    Shape: after (n,) int64; the last of it is n, which is thus followed by itself.
    """
    chain = np.zeros(size, dtype=np.int64)
    done = 1
    while done < size:
        more = chain[done : 2 * done]
        after.take(chain[: len(more)], out=more, mode="clip")
        after = after.take(after, mode="clip")
        done *= 2
    return chain
