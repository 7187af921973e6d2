"""Files made to hurt whoever decodes them: each has a name, what may become of it, and how it is made from a seed."""

import gzip
import io
import random
import struct
import zipfile
from collections.abc import Callable
from functools import partial

import av

from clipwarden.shared.codes import RejectCode
from tests.containers import FTYP, block, box, jpeg, matroska, mp4, png, table, tagged, track
from tests.hostile_bombs import bombs
from tests.hostile_kit import ANALYSED, BROKEN, FINE, Case, Kit, cases
from tests.hostile_lures import lures

MOVING = ("mp4", "index first", "webm", "avi", "ts")
PARTS = {"header": (0, 0.004), "payload": (0.1, 0.9), "index": (0.97, 1)}
PICTURE = jpeg()
ANYTHING = (ANALYSED, *RejectCode)


def damaged() -> dict[str, Case]:
    """Real files, cut off or with bits turned over."""
    cuts = {f"{n} cut at {q} of 4": ((ANALYSED, *BROKEN), partial(_cut, n, q)) for n in MOVING for q in (1, 2, 3)}
    halves = {f"half a {n}": ((ANALYSED, *BROKEN), partial(_cut, n, 2)) for n in ("flac", "ogg", "mp3", "wav", "jpg")}
    stills = {f"half a {n}": (BROKEN, partial(_cut, n, 2)) for n in ("png", "webp")}
    flips = {f"{n}, {part} flipped": (ANYTHING, partial(_flipped, n, part)) for n in MOVING for part in PARTS}
    return cases(cuts) | cases(halves) | cases(stills) | cases(flips)


def odd() -> dict[str, Case]:
    """Correct files of a kind that is seldom met."""
    return cases({
        "one pixel": (FINE, lambda _: png(1, 1)),
        "one pixel that moves": (FINE, lambda _: matroska([block(jpeg(1, 1), 40 * i) for i in range(9)])),
        "one frame": (FINE, lambda _: mp4(PICTURE, 1)),
        "1,000 frames a second": (FINE, lambda _: mp4(PICTURE, 3000, timescale=1000)),
        "no duration": (FINE, lambda _: mp4(PICTURE, stts=table(b"stts", (10, 0)))),
        "no key frame": (BROKEN, lambda kit: kit.remux("mp4", "mkv", _no_key_frame)),
        "sound alone": (FINE, lambda kit: kit.whole["ogg"]),
        "cover art and sound": (FINE, lambda kit: tagged(_cover(kit)) + kit.whole["mp3"]),
        "cover art and sound in MP4": (FINE, _covered_mp4),
        "cover art alone": (BROKEN, lambda kit: tagged(_cover(kit))),
        "subtitles alone": ((RejectCode.NO_STREAMS,), lambda _: _subtitled()),
        "negative time stamps": (FINE, lambda _: matroska([block(PICTURE, i) for i in range(-30_000, 300, 1000)])),
        "time stamps out of order": (
            (ANALYSED, RejectCode.DECODE_FAILED),
            lambda _: matroska([block(PICTURE, 7919 * i % 1000) for i in range(50)]),
        ),
        "time stamps all alike": (FINE, lambda _: matroska([block(PICTURE)] * 50)),
        "a clock that wraps": (FINE, lambda kit: kit.remux("mp4", "ts", shift_s=95_443, mpegts_copyts="1")),
        "size changes": (FINE, lambda _: matroska([block(jpeg(16 * (1 + i % 5)), 40 * i) for i in range(40)])),
        "sample rate changes": (FINE, lambda kit: b"".join(kit.tone("ts", "aac", r) for r in (8000, 44_100, 22_050))),
        "sample rate changes in MP3": (FINE, lambda kit: kit.whole["mp3"] + kit.tone("mp3", "libmp3lame", 44_100)),
        "fifty streams in a chain": ((ANALYSED, *BROKEN), lambda kit: kit.whole["ogg"] * 50),
        "two clips in one": (FINE, lambda kit: kit.whole["ts"] + kit.whole["mkv"]),
        "a name that lies": (FINE, lambda kit: kit.whole["webm"]),
        "turned by nonsense": (FINE, lambda _: mp4(PICTURE, matrix=b"\x7f" * 36)),
    })  # fmt: skip


def foreign() -> dict[str, Case]:
    """Files that are no media, whatever their name, or only by their first bytes."""
    rng = random.Random(4)
    kinds = {
        "one byte": b"\0", "zeros": bytes(100_000), "noise": rng.randbytes(100_000), "text": b"Not a film.\n" * 50,
        "HTML": b"<!DOCTYPE html><html><script>alert(1)</script></html>", "zip": _zipped(),
        "gzip": gzip.compress(bytes(100_000), mtime=0), "ELF": b"\x7fELF\2\1\1" + bytes(9) + rng.randbytes(4000),
        "script": b"#!/bin/sh\nexit 1\n", "PDF": b"%PDF-1.7\n%\xe2\xe3\n1 0 obj\n",
        "pickle": b"\x80\x04cos\nsystem\n(S'true'\ntR.",
    }  # fmt: skip
    magics = {
        "MP4": FTYP, "Matroska": b"\x1aE\xdf\xa3", "Ogg": b"OggS", "FLAC": b"fLaC", "MP3": b"ID3",
        "AVI": b"RIFF\0\0\0\0AVI ", "WAV": b"RIFF\0\0\0\0WAVE", "WebP": b"RIFF\0\0\0\0WEBP", "MPEG": b"\0\0\1\xba",
        "JPEG": b"\xff\xd8\xff", "PNG": b"\x89PNG\r\n\x1a\n", "BMP": b"BM" + bytes(30), "TS": (b"G" + bytes(187)) * 9,
    }  # fmt: skip
    endings = {"nothing": b"", "noise": rng.randbytes(50_000)}
    beginnings = {
        f"{name}, then {ending}": ((*BROKEN, RejectCode.TOO_MANY_PIXELS, RejectCode.DECODE_LIMIT), _constant(m + rest))
        for name, m in magics.items()
        for ending, rest in endings.items()
    }
    known = {
        "empty": ((RejectCode.EMPTY_FILE,), _constant(b"")),
        "GIF": ((RejectCode.UNSUPPORTED_FORMAT,), _constant(b"GIF89a" + bytes(100))),
    }
    return cases({n: ((RejectCode.NOT_MEDIA,), _constant(c)) for n, c in kinds.items()} | known | beginnings)


def _constant(content: bytes) -> Callable[[Kit], bytes]:
    return lambda _: content


def _cut(name: str, quarters: int, kit: Kit) -> bytes:
    whole = kit.whole[name]
    return whole[: len(whole) * quarters // 4]


def _flipped(name: str, part: str, kit: Kit) -> bytes:
    """Forty bits turned over in one part of a file."""
    content, rng = bytearray(kit.whole[name]), random.Random(f"{name} {part}")
    low, high = (int(share * len(content)) for share in PARTS[part])
    for _ in range(40):
        content[rng.randrange(low, high)] ^= 1 << rng.randrange(8)
    return bytes(content)


def _no_key_frame(packet: av.Packet) -> bool:
    return packet.stream.type == "video" and not packet.is_keyframe


def _cover(kit: Kit) -> bytes:
    """An ID3 frame that holds a picture."""
    body = b"\0image/jpeg\0\3\0" + kit.whole["jpg"]
    return b"APIC" + struct.pack(">I", len(body)) + b"\0\0" + body


def _covered_mp4(kit: Kit) -> bytes:
    """Sound whose index, the last box of the file, holds a picture as well."""
    whole = kit.tone("mp4", "aac", 16_000)
    at = whole.rindex(b"moov") - 4
    data = box(b"data", struct.pack(">II", 13, 0), kit.whole["jpg"])
    handler = box(b"hdlr", bytes(8), b"mdirappl", bytes(9))
    meta = box(b"meta", bytes(4), handler, box(b"ilst", box(b"covr", data)))
    return whole[:at] + box(b"moov", whole[at + 8 :], box(b"udta", meta))


def _subtitled() -> bytes:
    return matroska([block(b"hello", 40 * i) for i in range(9)], [track("S_TEXT/UTF8", 17)])


def _zipped() -> bytes:
    with io.BytesIO() as content:
        with zipfile.ZipFile(content, "w") as archive:
            archive.writestr(zipfile.ZipInfo("clip.mp4"), b"not a film")
        return content.getvalue()


CASES: dict[str, Case] = damaged() | odd() | bombs() | lures() | foreign()
