"""Which demuxer may read a file, decided by its first bytes; names and content types are never believed.

FFmpeg's own guessing is not used: it knows hundreds of formats, among them playlists and manifests (HLS,
DASH, concat, SDP) that make it open other files and addresses. Only the demuxers of this table are ever
reached.
"""

from clipwarden.shared.codes import RejectCode
from clipwarden.shared.errors import MediaError

HEAD_BYTES = 4096
STILLS = frozenset({"jpeg_pipe", "png_pipe", "webp_pipe", "bmp_pipe"})

_MOV_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot")
_RIFF = {b"WAVE": "wav", b"AVI ": "avi", b"AVIX": "avi", b"WEBP": "webp_pipe"}
_MAGIC = (
    (b"\x1aE\xdf\xa3", "matroska"),
    (b"OggS", "ogg"),
    (b"fLaC", "flac"),
    (b"ID3", "mp3"),
    (b"\x00\x00\x01\xba", "mpeg"),
    (b"\xff\xd8\xff", "jpeg_pipe"),
    (b"\x89PNG\r\n\x1a\n", "png_pipe"),
)
_REFUSED = (
    (b"#EXTM3U", "an HLS playlist"),
    (b"ffconcat", "a concat list"),
    (b"v=0", "a session description"),
    (b"<?xml", "a manifest"),
    (b"<MPD", "a DASH manifest"),
    (b"[playlist]", "a playlist"),
    (b"GIF8", "GIF"),
    (b"FLV\x01", "FLV"),
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "ASF"),
    (b"FORM", "AIFF"),
    (b".RMF", "RealMedia"),
    (b"#!AMR", "AMR"),
    (b"II*\x00", "TIFF"),
    (b"MM\x00*", "TIFF"),
    (b"caff", "CAF"),
)


def sniff(head: bytes) -> str:
    """Name of the FFmpeg demuxer for a file that starts with `head`.

    Raises MediaError: not_media for content that is none of the kinds we know, unsupported_format for media
    and playlists that are known but not read.
    """
    found = _by_magic(head) or _by_structure(head)
    if found:
        return found
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    for magic, name in _REFUSED:
        if head.startswith(magic) or text.startswith(magic):
            raise MediaError(RejectCode.UNSUPPORTED_FORMAT, f"this is {name}")
    if head[:1] == b"\xff" and head[1:2] in {b"\xf1", b"\xf9", b"\xf0", b"\xf8"}:
        raise MediaError(RejectCode.UNSUPPORTED_FORMAT, "this is a raw AAC stream")
    raise MediaError(RejectCode.NOT_MEDIA)


def _by_magic(head: bytes) -> str | None:
    if head[:4] in {b"RIFF", b"RF64"}:
        return _RIFF.get(head[8:12])
    return next((name for magic, name in _MAGIC if head.startswith(magic)), None)


def _by_structure(head: bytes) -> str | None:
    """Formats without a fixed opening: boxes, packets that repeat, frame headers."""
    if head[4:8] in _MOV_BOXES:
        return "mov"
    if any(_repeats(head, offset, size) for size in (188, 192) for offset in range(size)):
        return "mpegts"
    if head[:2] == b"BM" and len(head) > 26 and head[6:10] == b"\0\0\0\0":
        return "bmp_pipe"
    if len(head) > 3 and head[0] == 0xFF and head[1] & 0xE6 in {0xE2, 0xE4, 0xE6} and head[2] < 0xF0:
        return "mp3"
    return None


def _repeats(head: bytes, offset: int, size: int) -> bool:
    """Whether the transport stream's sync byte starts four packets in a row, or eight if the first of all is cut."""
    places = range(offset, offset + (4 if offset in {0, 4} else 8) * size, size)
    return len(head) > places[-1] and all(head[i] == 0x47 for i in places)
