"""The size a still picture claims in its header, read before any decoder sees the file."""

from io import BufferedReader

_JPEG_SIZED = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_MOST_JPEG_SEGMENTS = 1000


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
