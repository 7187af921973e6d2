"""Opening a file with FFmpeg so that nothing else can be opened. Runs inside the fence's child only.

The file is handed over as a Python object (custom I/O), the demuxer is the one `sniff` named, the format and
decoder allow-lists are set again as FFmpeg options, and every further open that a demuxer attempts is refused
twice: no protocol is on the whitelist and `io_open` raises. What both the probe and the pass over a file need
put right (edit lists, jumping clocks) is put right here, so that both see the same packets.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from errno import ENOMEM
from io import BufferedReader
from itertools import islice
from typing import Any, NoReturn

import av
from av.container import InputContainer
from av.error import FFmpegError
from av.stream import Disposition

from clipwarden.shared.codes import RejectCode
from clipwarden.shared.errors import MediaError
from clipwarden.shared.media.boxes import is_cut, most_edits
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
WITHOUT_EDITS = "ignore_editlist"
"""The option of a container whose edit list makes no sense, or is too long to be an editor's."""

_MOST_EDITS = 1000
_BACK_S, _AHEAD_S = 0.5, 10.0
_MOST_SHIFTS = 16
_NUMBERED_AS_CODED = frozenset({"h264", "hevc"})
_CLOCK_MAY_JUMP = 0x200  # FFmpeg's AVFMT_TS_DISCONT


@dataclass(slots=True)
class Clock:
    """Closes the jumps of a transport or program stream's clock, so that each packet follows the last of its stream.

    A recording that was joined, or ran past a fault, goes on with another clock. More than half a second back or ten
    seconds ahead is such a jump; the other streams then take the same shift if it fits them.
    """

    jumps: int = 0
    _ends_s: dict[int, float] = field(default_factory=dict)
    _shifts_s: dict[int, float] = field(default_factory=dict)
    _known_s: list[float] = field(default_factory=lambda: [0.0])

    def mend(self, packet: Any) -> None:
        stamp = packet.pts if packet.dts is None else packet.dts
        if stamp is None:
            return
        tick_s, stream = float(packet.time_base), packet.stream_index
        at_s, end_s = stamp * tick_s, self._ends_s.get(stream)
        shift_s = self._shifts_s.get(stream, self._known_s[-1])
        if end_s is not None and not _follows(at_s + shift_s, end_s):
            shift_s = next((s for s in self._known_s[-_MOST_SHIFTS:] if _follows(at_s + s, end_s)), end_s - at_s)
            if shift_s not in self._known_s[-_MOST_SHIFTS:]:
                self._known_s.append(shift_s)
                self.jumps += 1
        self._shifts_s[stream] = shift_s
        self._ends_s[stream] = at_s + shift_s + max(packet.duration or 0, 0) * tick_s
        if shift_s:
            ticks = round(shift_s / tick_s)
            packet.pts = None if packet.pts is None else packet.pts + ticks
            packet.dts = None if packet.dts is None else packet.dts + ticks


def _follows(start_s: float, end_s: float) -> bool:
    return end_s - _BACK_S <= start_s <= end_s + _AHEAD_S


@contextmanager
def opened(stream: BufferedReader, size_bytes: int, max_pixels: int) -> Iterator[InputContainer]:
    """The file as a container. Raises MediaError with the code that fits what is wrong with it."""
    demuxer = sniff(stream.read(HEAD_BYTES))
    if demuxer in STILLS:
        refuse_large(*claimed_size(stream, demuxer), max_pixels)
    options = {**OPTIONS, "max_pixels": str(max_pixels)}  # FFmpeg decodes a little already while it opens
    try:
        if demuxer == "mov" and most_edits(stream, size_bytes) > _MOST_EDITS:
            options[WITHOUT_EDITS] = "1"  # following each takes the demuxer a walk over all samples
        container = _open(stream, demuxer, options)
        if demuxer == "mov" and WITHOUT_EDITS not in options and _hides_all(container):
            container.close()
            container = _open(stream, demuxer, {**options, WITHOUT_EDITS: "1"})
    except (FFmpegError, EOFError, ValueError) as error:
        if demuxer == "mov" and is_cut(stream, size_bytes):
            raise MediaError(RejectCode.TRUNCATED, "the index is missing") from error
        if isinstance(error, FFmpegError) and error.errno == ENOMEM:
            raise MediaError(RejectCode.DECODE_LIMIT, "memory") from error
        raise MediaError(RejectCode.DECODE_FAILED, getattr(error, "strerror", None) or str(error)) from error
    with container:
        yield container


def _open(stream: BufferedReader, demuxer: str, options: dict[str, str]) -> InputContainer:
    stream.seek(0)
    return av.open(stream, "r", format=demuxer, options=options, metadata_errors="replace", io_open=_refuse)


def _hides_all(container: InputContainer) -> bool:
    """Whether an edit list leaves no picture to show, or one of several."""
    stream = picture_stream(container)
    if stream is None or len(stream.index_entries) < 2:
        return False
    shown = (entry for entry in stream.index_entries if not entry.is_discard)
    return len(list(islice(shown, 2))) < 2


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


def packets(container: InputContainer, streams: Sequence[Any], clock: Clock | None = None) -> Iterator[Any]:
    """Packets of the streams, as far as the file can be read, then one empty packet per stream to flush its decoder.

    Where a format's clock may jump, time stamps are those of a `Clock`; those that FFmpeg makes up, wrongly, for
    reordered pictures in AVI are taken away.
    """
    jumping = bool(container.format.flags & _CLOCK_MAY_JUMP)
    made_up = {stream.index for stream in streams if container.format.name == "avi" and _reorders(stream)}
    clock = clock or Clock()
    try:
        for packet in container.demux(list(streams)):
            if jumping:
                clock.mend(packet)
            elif packet.stream_index in made_up:
                packet.pts = None
            yield packet
    except MemoryError as error:
        raise MediaError(RejectCode.DECODE_LIMIT, "memory") from error
    except (FFmpegError, EOFError):
        return


def _reorders(stream: Any) -> bool:
    context = stream.codec_context
    return context is not None and context.name in _NUMBERED_AS_CODED and bool(context.has_b_frames)


def decode(packet: Any) -> list[Any]:
    """Frames of a packet; none of a damaged one."""
    try:
        frames: list[Any] = packet.decode()
    except MemoryError as error:
        raise MediaError(RejectCode.DECODE_LIMIT, "memory") from error
    except FFmpegError:
        return []
    return frames


def drain(stream: Any) -> list[Any]:
    """Frames that the stream's decoder still holds; it takes nothing more until its buffers are flushed."""
    try:
        frames: list[Any] = stream.codec_context.decode(None)
    except MemoryError as error:
        raise MediaError(RejectCode.DECODE_LIMIT, "memory") from error
    except FFmpegError:
        return []
    return frames


def _refuse(url: str, flags: int, options: dict[str, str]) -> NoReturn:
    raise PermissionError(f"the file refers to {url!r}, which is not opened (flags {flags}, {len(options)} options)")
