"""The boxes of an MP4 file, walked without a demuxer, for what must be known before one is started.

At most `_MOST_BOXES` of them are looked at, whatever they claim. Runs inside the fence's child only.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedReader
from typing import Final

_MOST_BOXES: Final = 10_000
_ON_THE_WAY: Final = {b"moov", b"trak", b"edts"}


@dataclass(frozen=True, slots=True)
class Box:
    """A box by its name, where its content begins and where it claims to end, in bytes from the start of the file."""

    name: bytes
    start: int
    end: int


def boxes(stream: BufferedReader, start: int, end: int) -> Iterator[Box]:
    """The boxes from `start` on, one after the other, until the next would begin at `end` or later."""
    offset = start
    for _ in range(_MOST_BOXES):
        stream.seek(offset)
        header = stream.read(16)
        if len(header) < 8 or offset >= end:
            return
        length, head = int.from_bytes(header[:4], "big"), 8
        if length == 1:
            length, head = int.from_bytes(header[8:16], "big"), 16
        last = end if length == 0 else offset + max(length, 8)
        yield Box(header[4:8], offset + head, last)
        offset = last


def is_cut(stream: BufferedReader, size_bytes: int) -> bool:
    """Whether the top-level boxes run past the end of the file, or end without an index."""
    names = set()
    for box in boxes(stream, 0, size_bytes):
        names.add(box.name)
        if box.end > size_bytes:
            return True
    return b"moov" not in names


def most_edits(stream: BufferedReader, size_bytes: int) -> int:
    """How many edits the longest edit list of the file claims."""
    found, left, looked = 0, [(0, size_bytes)], 0
    while left and looked < _MOST_BOXES:
        for box in boxes(stream, *left.pop()):
            looked += 1
            if box.name == b"elst":
                stream.seek(box.start + 4)
                found = max(found, int.from_bytes(stream.read(4), "big"))
            elif box.name in _ON_THE_WAY:
                left.append((box.start, min(box.end, size_bytes)))
            if looked >= _MOST_BOXES:
                break
    return found
