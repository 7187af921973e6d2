"""Containers built byte by byte, so that each field of theirs can lie: MP4, Matroska, RIFF, PNG, ID3, H.264.

What is built without a lie is a valid file of JPEG pictures or silence.
"""

import struct
import zlib
from collections.abc import Iterable, Sequence

import cv2
import numpy as np

MOST = 0xFFFFFFFF
FIRST = 28
"""Where the first sample of `mp4` lies."""
FTYP = struct.pack(">I8s8s", 20, b"ftypisom", b"\0\0\2\0isom")
STRAIGHT = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
ITSELF = b"\0\0\0\x0curl \0\0\0\1"


def jpeg(width: int = 32, height: int = 32) -> bytes:
    """A grey slope as JPEG."""
    slope = np.tile(np.linspace(0, 255, width).astype(np.uint8), (height, 1))
    return cv2.imencode(".jpg", slope)[1].tobytes()


def box(name: bytes, *parts: bytes, size: int | None = None) -> bytes:
    """An MP4 box; `size` is what it says of its length, if not the truth."""
    body = b"".join(parts)
    return struct.pack(">I", len(body) + 8 if size is None else size) + name + body


def table(name: bytes, *rows: Sequence[int], count: int | None = None) -> bytes:
    """A box of a version, a count of rows, and the rows; `count` is the count it claims."""
    cells = b"".join(struct.pack(f">{len(row)}I", *(n & MOST for n in row)) for row in rows)
    return box(name, bytes(4), struct.pack(">I", len(rows) if count is None else count), cells)


def sizes(each: int, count: int) -> bytes:
    """The `stsz` of samples of equal size."""
    return box(b"stsz", bytes(4), struct.pack(">II", each, count))


def tables(sample: bytes, count: int, **lies: bytes) -> bytes:
    """The sample tables of `mp4`, all samples at one place; some tables replaced or added."""
    truth = {
        "stts": table(b"stts", (count, 1)),
        "stsc": table(b"stsc", (1, 1, 1)),
        "stsz": sizes(len(sample), count),
        "stco": box(b"stco", bytes(4), struct.pack(">I", count), struct.pack(">I", FIRST) * count),
    }
    return b"".join((truth | lies).values())


def mp4(
    sample: bytes,
    count: int = 10,
    *,
    side_px: int = 32,
    timescale: int = 25,
    edits: bytes = b"",
    entry: bytes | None = None,
    reference: bytes = ITSELF,
    matrix: bytes = STRAIGHT,
    **lies: bytes,
) -> bytes:
    """One picture track of `count` samples; `lies` replace or add sample tables by their names."""
    shape = struct.pack(">HH", side_px, side_px)
    looks = entry or box(b"jpeg", bytes(6) + b"\0\1" + bytes(16), shape, bytes(50))
    samples = box(b"stbl", box(b"stsd", bytes(4), b"\0\0\0\1", looks), tables(sample, count, **lies))
    places = box(b"dinf", box(b"dref", bytes(4), b"\0\0\0\1", reference))
    info = box(b"minf", box(b"vmhd", b"\0\0\0\1" + bytes(8)), places, samples)
    times = struct.pack(">IIII", 0, 0, timescale & MOST, count)
    media = box(b"mdia", box(b"mdhd", bytes(4), times, bytes(4)), box(b"hdlr", bytes(8), b"vide", bytes(13)), info)
    shown = (
        struct.pack(">IIIII", 0, 0, 1, 0, count),
        bytes(16),
        matrix,
        struct.pack(">II", side_px << 16, side_px << 16),
    )
    header = box(b"tkhd", b"\0\0\0\7", *shown)
    movie = box(b"mvhd", bytes(4), times, b"\0\1\0\0\1\0", bytes(10), STRAIGHT, bytes(24), b"\0\0\0\2")
    return FTYP + box(b"mdat", sample) + box(b"moov", movie, box(b"trak", header, edits and box(b"edts", edits), media))


def element(name: str, *parts: bytes, size: int | None = None) -> bytes:
    """A Matroska element by its id in hexadecimal; the length takes eight bytes."""
    body = b"".join(parts)
    length = len(body) if size is None else size
    return bytes.fromhex(name) + ((1 << 56) | length).to_bytes(8, "big") + body


def number(name: str, value: int) -> bytes:
    """An element that holds an unsigned number."""
    return element(name, value.to_bytes(8, "big"))


def block(content: bytes, time: int = 0, flags: int = 0x80) -> bytes:
    """A SimpleBlock of track 1, a key frame by its flags."""
    return element("a3", b"\x81", struct.pack(">hB", time, flags), content)


def track(codec: str, kind: int = 1, *parts: bytes, index: int = 1, side_px: int = 32) -> bytes:
    """A TrackEntry; kind 1 is video, 2 sound, 17 subtitles."""
    shape = element("e0", number("b0", side_px), number("ba", side_px)) if kind == 1 else b""
    ids = number("d7", index) + number("73c5", index)
    return element("ae", ids, number("83", kind), element("86", codec.encode()), shape, *parts)


def matroska(
    blocks: Iterable[bytes],
    tracks: Sequence[bytes] = (track("V_MJPEG"),),
    *,
    info: bytes = b"",
    more: bytes = b"",
    scale: int = 1_000_000,
) -> bytes:
    """A file of one cluster; `info` is added to the segment's header, `more` follows the tracks."""
    head = element("1a45dfa3", element("4282", b"matroska"), number("4287", 4), number("4285", 2))
    about = element("1549a966", number("2ad7b1", scale), info)
    cluster = element("1f43b675", number("e7", 0), *blocks)
    return head + element("18538067", about, element("1654ae6b", *tracks), more, cluster)


def riff(kind: bytes, *chunks: bytes, size: int | None = None) -> bytes:
    """A RIFF file, or with the name cut off a list of one."""
    body = b"".join(chunks)
    return struct.pack("<4sI", b"RIFF", len(body) + 4 if size is None else size) + kind + body


def chunk(name: bytes, content: bytes, size: int | None = None) -> bytes:
    """A chunk of RIFF; `size` is what it says of its length, if not the truth."""
    return struct.pack("<4sI", name, len(content) if size is None else size) + content + b"\0" * (len(content) % 2)


def wave(content: bytes, *before: bytes, rate_hz: int = 16_000, channels: int = 1, size: int | None = None) -> bytes:
    """16-bit sound; chunks may come before it, and it may lie of its size."""
    frame = 2 * channels
    form = struct.pack("<HHIIHH", 1, channels, rate_hz, rate_hz * frame & MOST, frame & 0xFFFF, 16)
    return riff(b"WAVE", *before, chunk(b"fmt ", form), chunk(b"data", content, size), size=size)


def png(width: int, height: int, *extra: tuple[bytes, bytes], depth: int = 8, colour: int = 0) -> bytes:
    """A black PNG, in grey (colour 0) or in red, green and blue (2)."""
    line = 1 + (width * (3 if colour == 2 else 1) * depth + 7) // 8
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = [(b"IHDR", header), *extra, (b"IDAT", squeezed(line * height)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )


def squeezed(size: int) -> bytes:
    """That many zeros, as zlib has them."""
    squeeze, piece = zlib.compressobj(), bytes(1 << 20)
    parts = [squeeze.compress(piece) for _ in range(size >> 20)]
    return b"".join([*parts, squeeze.compress(bytes(size % (1 << 20))), squeeze.flush()])


def tagged(frames: bytes, size: int | None = None) -> bytes:
    """An ID3v2.3 tag; its length has seven bits a byte."""
    length = len(frames) if size is None else size
    return b"ID3\3\0\0" + bytes(length >> shift & 0x7F for shift in (21, 14, 7, 0)) + frames


def parameter_set(width: int, height: int) -> bytes:
    """An H.264 sequence parameter set (baseline, level 5.1) for a picture of this size, a multiple of 16."""
    bits = f"{66:08b}{0:08b}{51:08b}" + "".join(map(_golomb, (0, 0, 2, 1)))
    bits += "0" + _golomb(width // 16 - 1) + _golomb(height // 16 - 1) + "1100" + "1"
    bits += "0" * (-len(bits) % 8)
    return b"\x67" + int(bits, 2).to_bytes(len(bits) // 8, "big")


def _golomb(value: int) -> str:
    """Exponential-Golomb code."""
    digits = f"{value + 1:b}"
    return "0" * (len(digits) - 1) + digits
