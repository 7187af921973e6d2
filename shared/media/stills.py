"""What a still picture's header says, read without a decoder: its size, its EXIF tags, its quantisation tables.

Bytes are hostile: every walk is bounded, and what does not fit is as if it were not there.
"""

import re
import struct
from collections.abc import Iterator
from io import BufferedReader

ORIENTATION, MAKE, MODEL, SOFTWARE = 0x112, 0x10F, 0x110, 0x131
_JPEG_SIZED = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_MOST_JPEG_SEGMENTS = 1000
_MOST_ENTRIES = 200
_LONGEST_TEXT = 200
_SHORT, _TEXT = 3, 2
_END_OF_JPEG = re.compile(b"\xff\xd9")
_END_OF_PNG = re.compile(b"IEND")


def claimed_size(stream: BufferedReader, demuxer: str) -> tuple[int, int]:
    """Width and height in pixels, (0, 0) if the header does not tell; leaves the stream anywhere."""
    stream.seek(0)
    if demuxer == "jpeg_pipe":
        return _jpeg(stream)
    head = stream.read(32).ljust(32, b"\0")
    if demuxer == "png_pipe":
        return int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")
    if demuxer == "bmp_pipe":
        width, height = (int.from_bytes(head[at : at + 4], "little", signed=True) for at in (18, 22))
        return abs(width), abs(height)
    return _webp(head) if demuxer == "webp_pipe" else (0, 0)


def _jpeg(stream: BufferedReader) -> tuple[int, int]:
    """From the first frame header; segments before it are skipped by their lengths."""
    stream.seek(2)
    for _ in range(_MOST_JPEG_SEGMENTS):
        marker = stream.read(4)
        if len(marker) < 4 or marker[0] != 0xFF:
            break
        if marker[1] in _JPEG_SIZED:
            size = stream.read(5)
            return int.from_bytes(size[3:5], "big"), int.from_bytes(size[1:3], "big")
        stream.seek(max(int.from_bytes(marker[2:4], "big") - 2, 0), 1)
    return 0, 0


def _webp(head: bytes) -> tuple[int, int]:
    if head[12:16] == b"VP8X":
        return 1 + int.from_bytes(head[24:27], "little"), 1 + int.from_bytes(head[27:30], "little")
    if head[12:16] == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    return int.from_bytes(head[26:28], "little") & 0x3FFF, int.from_bytes(head[28:30], "little") & 0x3FFF


def exif_tags(content: memoryview) -> dict[int, int | str]:
    """The numbers and texts of the first EXIF directory of a JPEG, PNG or WebP file, by tag."""
    for block in _exif_blocks(content):
        try:
            return _directory(block)
        except (struct.error, IndexError):
            continue
    return {}


def quantisation(content: memoryview) -> tuple[tuple[int, ...], ...]:
    """The tables of a baseline JPEG in zigzag order, by their number; none of any other file."""
    tables: dict[int, tuple[int, ...]] = {}
    for body in (body for marker, body in _segments(content) if marker == 0xDB):
        for at in range(0, len(body) - 64, 65):
            if body[at] > 3:  # two bytes per entry, or no such table
                return ()
            tables[body[at]] = tuple(body[at + 1 : at + 65])
    return tuple(tables[number] for number in sorted(tables))


def comment(content: memoryview) -> str:
    """The comment of a JPEG, where encoders leave their name."""
    return next(
        (bytes(body[:_LONGEST_TEXT]).decode("utf-8", "replace") for mark, body in _segments(content) if mark == 0xFE),
        "",
    )


def is_cut(content: memoryview) -> bool:
    """Whether a JPEG or PNG ends before its end mark."""
    if _opens(content, b"\xff\xd8"):
        return _END_OF_JPEG.search(content, _scan_at(content)) is None
    return _opens(content, b"\x89PNG") and _END_OF_PNG.search(content) is None


def _opens(content: memoryview, magic: bytes) -> bool:
    return bytes(content[: len(magic)]) == magic


def _scan_at(content: memoryview) -> int:
    """Where the first scan of a JPEG begins; thumbnails, with end marks of their own, lie before it."""
    return 2 + sum(4 + len(body) for _, body in _segments(content))


def _exif_blocks(content: memoryview) -> Iterator[memoryview]:
    if _opens(content, b"\xff\xd8"):
        yield from (body[6:] for marker, body in _segments(content) if marker == 0xE1 and _opens(body, b"Exif\0\0"))
    elif _opens(content, b"\x89PNG\r\n\x1a\n"):
        yield from (body for name, body in _chunks(content, 8, png=True) if name == b"eXIf")
    elif _opens(content, b"RIFF") and _opens(content[8:], b"WEBP"):
        for name, body in _chunks(content, 12, png=False):
            if name == b"EXIF":
                yield body[6:] if _opens(body, b"Exif\0\0") else body


def _segments(content: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Marker and content of the segments of a JPEG before its first scan."""
    at = 2
    for _ in range(_MOST_JPEG_SEGMENTS):
        if not _opens(content, b"\xff\xd8") or len(content) < at + 4 or content[at] != 0xFF or content[at + 1] == 0xDA:
            return
        size = int.from_bytes(content[at + 2 : at + 4], "big")
        yield content[at + 1], content[at + 4 : at + 2 + size]
        at += 2 + max(size, 2)


def _chunks(content: memoryview, at: int, png: bool) -> Iterator[tuple[bytes, memoryview]]:
    """Name and content of the chunks of a PNG or RIFF file."""
    for _ in range(_MOST_JPEG_SEGMENTS):
        head = bytes(content[at : at + 8])
        if len(head) < 8:
            return
        size = int.from_bytes(head[:4], "big") if png else int.from_bytes(head[4:], "little")
        yield head[4:] if png else head[:4], content[at + 8 : at + 8 + size]
        at += 12 + size if png else 8 + size + size % 2


def _directory(block: memoryview) -> dict[int, int | str]:
    """Tags of the first directory of a TIFF structure; struct.error where it does not fit."""
    order = {b"II": "<", b"MM": ">"}.get(bytes(block[:2]))
    if order is None:
        return {}
    (start,) = struct.unpack_from(order + "I", block, 4)
    (count,) = struct.unpack_from(order + "H", block, start)
    found: dict[int, int | str] = {}
    for i in range(min(count, _MOST_ENTRIES)):
        at = start + 2 + 12 * i
        tag, form, length = struct.unpack_from(order + "HHI", block, at)
        if form == _SHORT and length == 1:
            found[tag] = struct.unpack_from(order + "H", block, at + 8)[0]
        elif form == _TEXT:
            place = at + 8 if length <= 4 else struct.unpack_from(order + "I", block, at + 8)[0]
            text = bytes(block[place : place + min(length, _LONGEST_TEXT)])
            found[tag] = text.partition(b"\0")[0].decode("utf-8", "replace").strip()
    return found
