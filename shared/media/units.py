"""How a packet of coded video is cut into units, and the bit fields at their beginning. Fence's child only.

Bytes are hostile: every function is bounded, and raises EOFError where lengths do not fit.
"""

import re
from collections.abc import Iterator

MOST_UNITS = 64
_START = re.compile(b"\0\0\1")
_HEADER_BYTES = 48


class Bits:
    """Big-endian bit fields of the beginning of a buffer. EOFError past the end of what was kept."""

    __slots__ = ("_left", "_value")

    def __init__(self, head: memoryview | bytes, escaped: bool = False) -> None:
        kept = bytes(head[:_HEADER_BYTES])
        if escaped:
            kept = kept.replace(b"\0\0\3", b"\0\0")
        self._value, self._left = int.from_bytes(kept, "big"), 8 * len(kept)

    def take(self, count: int) -> int:
        self._left -= count
        if self._left < 0:
            raise EOFError
        return self._value >> self._left & ((1 << count) - 1)

    def golomb(self) -> int:
        """Unsigned exponential Golomb code of at most 32 bits."""
        zeros = 0
        while not self.take(1):
            zeros += 1
            if zeros > 31:
                raise EOFError
        return (1 << zeros) - 1 + self.take(zeros)


def units(packet: memoryview, nal_length_size: int | None) -> Iterator[memoryview]:
    """The NAL units of a packet, none empty, at most 64. EOFError where the lengths do not fit or there are more."""
    return _by_start_code(packet) if nal_length_size is None else _by_length(packet, nal_length_size)


def _by_length(packet: memoryview, size: int) -> Iterator[memoryview]:
    at = 0
    for _ in range(MOST_UNITS):
        if at == len(packet):
            return
        end = at + size + int.from_bytes(packet[at : at + size], "big")
        if end > len(packet) or at + size > len(packet):
            raise EOFError
        if end > at + size:
            yield packet[at + size : end]
        at = end
    raise EOFError


def _by_start_code(packet: memoryview) -> Iterator[memoryview]:
    begin = None
    for count, found in enumerate(_START.finditer(packet)):
        if count > MOST_UNITS:
            raise EOFError
        if begin is not None and found.start() > begin:
            yield packet[begin : found.start()]
        begin = found.end()
    if begin is not None and begin < len(packet):
        yield packet[begin:]


def vp9_frames(packet: memoryview) -> list[memoryview]:
    """The frames of a superframe, or the packet itself."""
    marker = packet[-1]
    count, size = (marker & 7) + 1, (marker >> 3 & 3) + 1
    index = len(packet) - 2 - count * size
    if marker >> 5 != 6 or index < 0 or packet[index] != marker:
        return [packet]
    frames, at = [], 0
    for place in range(index + 1, index + 1 + count * size, size):
        length = int.from_bytes(packet[place : place + size], "little")
        if length:
            frames.append(packet[at : at + length])
        at += length
    if at > index or not frames:
        raise EOFError
    return frames


def obus(packet: memoryview) -> Iterator[tuple[int, int, memoryview]]:
    """Type, temporal layer and content of each unit of AV1. EOFError where sizes do not fit or there are too many."""
    at = 0
    for _ in range(MOST_UNITS):
        if at >= len(packet):
            return
        header = packet[at]
        at += 1
        level = 0
        if header & 4:
            level, at = packet[at] >> 5, at + 1
        size = len(packet) - at
        if header & 2:
            size, at = _leb128(packet, at)
        if size > len(packet) - at:
            raise EOFError
        yield header >> 3 & 15, level, packet[at : at + size]
        at += size
    raise EOFError


def _leb128(packet: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for i in range(8):
        value |= (packet[at + i] & 127) << 7 * i
        if packet[at + i] < 128:
            return value, at + i + 1
    raise EOFError
