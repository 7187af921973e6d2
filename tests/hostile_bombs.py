"""Small files that ask for much: pixels, memory, time, rows of a table, depth."""

import struct
from functools import cache, partial

from clipwarden.shared.codes import RejectCode
from tests.containers import (
    FTYP,
    MOST,
    block,
    box,
    chunk,
    element,
    jpeg,
    matroska,
    mp4,
    number,
    parameter_set,
    png,
    riff,
    sizes,
    squeezed,
    table,
    tagged,
    track,
    wave,
)
from tests.hostile_kit import ANALYSED, BROKEN, FINE, Case, Kit, cases

MEBIBYTE = 1 << 20
PICTURE = jpeg()
FILM = [block(PICTURE, 40 * i) for i in range(9)]
LARGE = (RejectCode.TOO_MANY_PIXELS,)
LIMITS = (*BROKEN, RejectCode.DECODE_LIMIT, RejectCode.TOO_LONG, RejectCode.TOO_MANY_FRAMES)
BOUNDED = (ANALYSED, *LIMITS)
INFLATED = (ANALYSED, RejectCode.DECODE_LIMIT, *BROKEN)


def bombs() -> dict[str, Case]:
    return _pixels() | _squeezed() | _counts() | _edits() | _boxes() | _elements() | _sound()


def _pixels() -> dict[str, Case]:
    return cases({
        "PNG of 16,384 pixels a side": (LARGE, lambda _: png(16_384, 16_384, depth=1)),
        "PNG at the limit": (INFLATED, lambda _: png(8192, 8192)),
        "JPEG of 16,384 pixels a side": (LARGE, lambda kit: _patched(kit, "jpg", b"\xff\xc0", 5, ">HH", 16_384)),
        "WebP of 16,384 pixels a side": (LARGE, lambda _: riff(b"WEBP", chunk(b"VP8L", b"\x2f" + b"\xff" * 40))),
        "WebP of 16 million pixels a side": (LARGE, lambda _: riff(b"WEBP", chunk(b"VP8X", bytes(4) + b"\xff" * 6))),
        "BMP of two thousand million pixels a side": (
            LARGE,
            lambda kit: _patched(kit, "bmp", b"BM", 18, "<ii", 0x7FFF_FFFF),
        ),
        "H.264 of 16,384 pixels a side": ((*LARGE, RejectCode.DECODE_FAILED), _huge_h264),
        "MP4 of 65,535 pixels a side": ((*LARGE, ANALYSED), lambda _: mp4(PICTURE, side_px=65_535)),
        "AVI of 16,384 pixels a side": (BOUNDED, lambda kit: _patched(kit, "avi", b"strf", 12, "<ii", 16_384)),
        "Matroska of four thousand million pixels a side": (
            (*LARGE, ANALYSED),
            lambda _: matroska(FILM, [track("V_MJPEG", side_px=MOST)]),
        ),
        "raw video of 16,384 pixels a side": (
            (*LARGE, *BROKEN),
            lambda _: matroska([block(b"RGB")], [track("V_UNCOMPRESSED", side_px=16_384)]),
        ),
        "pictures that grow beyond the limit": (BOUNDED, _growing),
    })  # fmt: skip


def _squeezed() -> dict[str, Case]:
    zeros = cache(lambda: squeezed(64 * MEBIBYTE))
    return cases(
        {
            "PNG with much text": (INFLATED, lambda _: png(32, 32, (b"zTXt", b"k\0\0" + zeros()))),
            "PNG with much colour profile": (INFLATED, lambda _: png(32, 32, (b"iCCP", b"k\0\0" + zeros()))),
            "Matroska with compressed blocks": (LIMITS, lambda _: _compressed(zeros())),
            "MP4 with a compressed index": (LIMITS, lambda _: _compressed_index(zeros())),
        }
    )


def _counts() -> dict[str, Case]:
    """Sample tables that promise more rows than there are, or more samples than there is file."""
    names = ("stts", "stsc", "stco", "ctts", "stss", "sdtp", "sgpd")
    promises = {
        f"{name} of {count:,} rows": (BOUNDED, partial(_promise, name, count))
        for name in names
        for count in (0x0FFF_FFFF, MOST)
    }
    many = 1 << 30
    at_once = {"stts": table(b"stts", (many, 1)), "stsc": table(b"stsc", (1, many, 1))}
    return cases(promises) | cases(
        {
            "a thousand million samples of no size": (LIMITS, lambda _: mp4(PICTURE, stsz=sizes(0, many), **at_once)),
            "a thousand million samples of one byte": (LIMITS, lambda _: mp4(PICTURE, stsz=sizes(1, many), **at_once)),
            "two million samples at one place": (LIMITS, lambda _: mp4(PICTURE, 2_000_000, timescale=90_000)),
            "a sample of four gigabytes": (BOUNDED, lambda _: mp4(PICTURE, stsz=sizes(MOST, 10))),
            "a sample that lasts for ever": (BOUNDED, lambda _: mp4(PICTURE, stts=table(b"stts", (10, 0x7FFF_FFFF)))),
            "a clock without ticks": (BOUNDED, lambda _: mp4(PICTURE, timescale=0)),
            "an AVI index of four gigabytes": (BOUNDED, lambda kit: _patched(kit, "avi", b"idx1", 4, "<I", MOST)),
        }
    )


def _edits() -> dict[str, Case]:
    again, late = (200, 0, 1 << 16), (1, 199, 1 << 16)
    return cases({
        "edits that repeat everything": (
            (ANALYSED,),
            lambda _: mp4(PICTURE, 200, edits=table(b"elst", *[again] * 20_000)),
        ),
        "edits that each need all before": (
            (ANALYSED,),
            lambda _: mp4(PICTURE, 200, edits=table(b"elst", *[late] * 50_000), stss=table(b"stss", (1,))),
        ),
        "edits without end": (BOUNDED, lambda _: mp4(PICTURE, edits=table(b"elst", (MOST, 0, 1 << 16), count=MOST))),
        "edits before the beginning": (
            BOUNDED,
            lambda _: mp4(PICTURE, edits=table(b"elst", (10, -2, 1 << 16), (MOST, 0x8000_0000, 0))),
        ),
    })  # fmt: skip


def _boxes() -> dict[str, Case]:
    return cases(
        {
            "boxes 10,000 deep": (LIMITS, lambda _: FTYP + _nested(10_000)),
            "boxes of no length": (LIMITS, lambda _: FTYP + box(b"free") * 100_000 + box(b"moov", size=0) * 1000),
            "boxes that contain themselves": (LIMITS, lambda _: FTYP + box(b"moov", bytes(8), size=1) * 1000),
            "a box of sixteen exbibytes": (LIMITS, lambda _: FTYP + box(b"moov", b"\xff" * 8, bytes(99), size=1)),
        }
    )


def _elements() -> dict[str, Case]:
    nan, infinite = (element("4489", struct.pack(">d", float(n))) for n in ("nan", "inf"))
    return cases({
        "elements 10,000 deep": (BOUNDED, lambda _: matroska(FILM, more=element("1043a770", _deep(10_000)))),
        "elements without end": (LIMITS, lambda _: matroska([element("a3", bytes(9), size=(1 << 56) - 2)])),
        "a clock of a hundred years a tick": (LIMITS, lambda _: matroska(FILM, scale=1 << 62)),
        "a duration that is no number": (BOUNDED, lambda _: matroska(FILM, info=nan)),
        "an infinite duration": (BOUNDED, lambda _: matroska(FILM, info=infinite)),
        "50,000 chapters": (BOUNDED, lambda _: matroska(FILM, more=_chapters(50_000))),
        "5,000 tracks": (BOUNDED, lambda _: matroska(FILM, [track("V_MJPEG", index=i) for i in range(1, 5000)])),
        "a megabyte of title": (FINE, lambda _: matroska(FILM, info=element("7ba9", b"\x1b[2J\xff\0" * 170_000))),
        "100,000 frames of a byte": (
            LIMITS,
            lambda _: matroska(block(b"\xff" + bytes(256), i, 0x84) for i in range(400)),
        ),
    })  # fmt: skip


def _sound() -> dict[str, Case]:
    second = bytes(32_000)
    return cases(
        {
            "WAV of four gigabytes": (BOUNDED, lambda _: wave(second, size=MOST)),
            "WAV with a giant header": (LIMITS, lambda _: wave(second, chunk(b"fmt ", bytes(MEBIBYTE), 0x7FFF_FFFF))),
            "WAV of 50,000 chunks": (BOUNDED, lambda _: wave(second, chunk(b"junk", b"") * 50_000)),
            "WAV without a rate": (BOUNDED, lambda _: wave(second, rate_hz=0)),
            "WAV of four gigahertz": (BOUNDED, lambda _: wave(second, rate_hz=MOST)),
            "WAV of one hertz": (LIMITS, lambda _: wave(second, rate_hz=1)),
            "WAV of 65,535 channels": (BOUNDED, lambda _: wave(bytes(MEBIBYTE), channels=65_535)),
            "MP3 with a tag of 256 MB": (LIMITS, lambda kit: tagged(b"TIT2", 0x0FFF_FFFF) + kit.whole["mp3"]),
            "Ogg of a thousand streams": (BOUNDED, _many_streams),
            "FLAC with a giant picture": (BOUNDED, _giant_picture),
        }
    )


def _patched(kit: Kit, name: str, mark: bytes, at: int, form: str, value: int) -> bytes:
    """A real file with a number, or twice the same, written `at` bytes behind the first place of a mark."""
    content = bytearray(kit.whole[name])
    struct.pack_into(form, content, content.index(mark) + at, *[value] * (len(form) - 1))
    return bytes(content)


def _huge_h264(_: Kit) -> bytes:
    """An AVC track whose description holds a parameter set of 16,384 pixels a side, in an entry that says 32."""
    first, second = parameter_set(16_384, 16_384), b"\x68\xce\x38\x80"
    described = b"\1\x42\0\x33\xff\xe1" + struct.pack(">H", len(first)) + first + b"\1\0\4" + second
    entry = box(b"avc1", bytes(6) + b"\0\1" + bytes(16), b"\0\x20\0\x20", bytes(50), box(b"avcC", described))
    return mp4(struct.pack(">I", 100) + b"\x65\x88\x84" + bytes(97), entry=entry)


def _growing(_: Kit) -> bytes:
    at = PICTURE.index(b"\xff\xc0") + 5
    huge = PICTURE[:at] + struct.pack(">HH", 16_384, 16_384) + PICTURE[at + 4 :]
    return matroska([*FILM, *(block(huge, 360 + i) for i in range(9))])


def _promise(name: str, count: int, _: Kit) -> bytes:
    return mp4(PICTURE, **{name: table(name.encode(), (1, 1), count=count)})


def _compressed(content: bytes) -> bytes:
    zlib = element("5034", number("4254", 0))
    coding = element("6d80", element("6240", number("5031", 0), number("5032", 1), zlib))
    return matroska([block(content, i) for i in range(3)], [track("V_MJPEG", 1, coding)])


def _compressed_index(content: bytes) -> bytes:
    inner = box(b"cmov", box(b"dcom", b"zlib"), box(b"cmvd", struct.pack(">I", MOST), content))
    return FTYP + box(b"moov", inner)


def _nested(depth: int) -> bytes:
    """Built from the outside: each box knows how much follows."""
    return b"".join(struct.pack(">I4s", 8 * (depth - i), b"moov") for i in range(depth))


def _deep(depth: int) -> bytes:
    content = b""
    for _ in range(depth):
        content = element("b6", content)
    return element("45b9", content)


def _chapters(count: int) -> bytes:
    return element("1043a770", element("45b9", *(element("b6", number("73c4", i + 1)) for i in range(count))))


def _many_streams(kit: Kit) -> bytes:
    """The first page of a stream again and again, each with a serial number of its own and the checksum for it."""
    whole = kit.whole["ogg"]
    first = bytearray(whole[: whole.index(b"OggS", 4)])
    pages = []
    for serial in range(1000):
        struct.pack_into("<III", first, 14, serial, 0, 0)
        struct.pack_into("<I", first, 22, _ogg_sum(first))
        pages.append(bytes(first))
    return b"".join(pages) + whole


def _ogg_sum(page: bytearray) -> int:
    total = 0
    for byte in page:
        total ^= byte << 24
        for _ in range(8):
            total = (total << 1 ^ (0x04C11DB7 if total >> 31 else 0)) & MOST
    return total


def _giant_picture(kit: Kit) -> bytes:
    whole = kit.whole["flac"]
    return whole[:4] + b"\6\xff\xff\xff" + struct.pack(">II", 3, MOST) + whole[4:]
