"""Opening a file with FFmpeg so that nothing else can be opened. Runs inside the fence's child only.

The file is handed over as a Python object (custom I/O), the demuxer is the one `sniff` named, the format and
decoder allow-lists are set again as FFmpeg options, and every further open that a demuxer attempts is refused
twice: no protocol is on the whitelist and `io_open` raises.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BufferedReader
from typing import Any, NoReturn

import av
from av.container import InputContainer
from av.error import FFmpegError
from av.stream import Disposition

from clipwarden.shared.codes import RejectCode
from clipwarden.shared.errors import MediaError
from clipwarden.shared.media.sniff import HEAD_BYTES, STILLS, sniff
from clipwarden.shared.media.stills import claimed_size

DEMUXERS = (
    *("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "avi", "mpegts", "mpeg", "ogg", "flac", "wav", "mp3"),
    *sorted(STILLS),
)
DECODERS = (
    "h264", "hevc", "libdav1d", "av1", "vp8", "vp9", "libvpx", "libvpx-vp9", "mpeg4", "msmpeg4", "msmpeg4v2",
    "h263", "mpeg1video", "mpeg2video", "mjpeg", "theora", "prores", "ffv1", "rawvideo", "png", "webp", "bmp",
    "aac", "aac_latm", "mp3", "mp3float", "mp2", "mp2float", "ac3", "eac3", "opus", "libopus", "vorbis",
    "flac", "alac", "pcm_s16le", "pcm_s16be", "pcm_s24le", "pcm_s24be", "pcm_s32le", "pcm_u8", "pcm_f32le",
    "pcm_f64le", "pcm_mulaw", "pcm_alaw", "adpcm_ms", "adpcm_ima_wav", "amrnb", "amrwb",
)  # fmt: skip
OPTIONS = {
    "protocol_whitelist": "none",
    "format_whitelist": ",".join(DEMUXERS),
    "codec_whitelist": ",".join(DECODERS),
}
_MOST_BOXES = 10_000


@contextmanager
def opened(stream: BufferedReader, size_bytes: int, max_pixels: int) -> Iterator[InputContainer]:
    """The file as a container. Raises MediaError with the code that fits what is wrong with it."""
    demuxer = sniff(stream.read(HEAD_BYTES))
    if demuxer in STILLS:
        refuse_large(*claimed_size(stream, demuxer), max_pixels)
    stream.seek(0)
    options = {**OPTIONS, "max_pixels": str(max_pixels)}  # FFmpeg decodes a little already while it opens
    try:
        container = av.open(stream, "r", format=demuxer, options=options, metadata_errors="replace", io_open=_refuse)
    except (FFmpegError, EOFError, ValueError) as error:
        if demuxer == "mov" and _mov_is_cut(stream, size_bytes):
            raise MediaError(RejectCode.TRUNCATED, "the index is missing") from error
        raise MediaError(RejectCode.DECODE_FAILED, str(error)) from error
    with container:
        yield container


def picture_stream(container: InputContainer) -> Any | None:
    """The first video stream; cover art and thumbnails (attached pictures) are not video."""
    moving = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    return moving[0] if moving else None


def sound_stream(container: InputContainer) -> Any | None:
    """The first sound stream."""
    return container.streams.audio[0] if container.streams.audio else None


def readable(stream: Any) -> bool:
    """Whether the stream's decoder exists and is on the allow-list."""
    return stream.codec_context is not None and stream.codec_context.codec.name in DECODERS


def refuse_large(width: int, height: int, max_pixels: int) -> None:
    """Raise MediaError if a picture has more pixels than allowed."""
    if width * height > max_pixels:
        raise MediaError(RejectCode.TOO_MANY_PIXELS, f"{width} x {height}")


def set_up(stream: Any, max_pixels: int, threads: int) -> None:
    """Bound a stream's decoder before it is opened."""
    stream.codec_context.thread_count = threads
    if stream.type == "video":
        refuse_large(stream.codec_context.width, stream.codec_context.height, max_pixels)
        stream.codec_context.thread_type = "AUTO"
        stream.codec_context.options = {"max_pixels": str(max_pixels)}


def packets(container: InputContainer, streams: Sequence[Any]) -> Iterator[Any]:
    """Packets of the streams, as far as the file can be read, then one empty packet per stream to flush its decoder."""
    try:
        yield from container.demux(list(streams))
    except MemoryError as error:
        raise MediaError(RejectCode.DECODE_LIMIT, "memory") from error
    except (FFmpegError, EOFError):
        return


def decode(packet: Any) -> list[Any]:
    """Frames of a packet; none of a damaged one."""
    try:
        frames: list[Any] = packet.decode()
    except MemoryError as error:
        raise MediaError(RejectCode.DECODE_LIMIT, "memory") from error
    except FFmpegError:
        return []
    return frames


def _refuse(url: str, flags: int, options: dict[str, str]) -> NoReturn:
    raise PermissionError(f"the file refers to {url!r}, which is not opened (flags {flags}, {len(options)} options)")


def _mov_is_cut(stream: BufferedReader, size_bytes: int) -> bool:
    """Whether the top-level boxes run past the end of the file, or end without an index."""
    offset, names = 0, set()
    for _ in range(_MOST_BOXES):
        stream.seek(offset)
        header = stream.read(16)
        if len(header) < 8:
            break
        length, name = int.from_bytes(header[:4], "big"), header[4:8]
        if length == 1:
            length = int.from_bytes(header[8:16], "big")
        names.add(name)
        offset = size_bytes if length == 0 else offset + max(length, 8)
        if offset > size_bytes:
            return True
    return b"moov" not in names
