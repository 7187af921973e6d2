"""What a file is, found by walking its packets. Runs inside the fence's child only.

Headers may lie, so frames and duration are counted from the packets that are there; packets that an edit list
hides are not counted. A file is called truncated when its packets last less than half as long as its header
promises, or when its index is missing; a file that lost less than that is analysed as far as it goes.
"""

from dataclasses import dataclass, field
from typing import Any

import av
from av.container import InputContainer

from clipwarden.shared.codes import RejectCode
from clipwarden.shared.errors import MediaError
from clipwarden.shared.media.container import (
    decode,
    packets,
    picture_stream,
    readable,
    refuse_large,
    set_up,
    sound_stream,
)
from clipwarden.shared.media.limits import MediaLimits
from clipwarden.shared.media.orientation import orientation_of
from clipwarden.shared.media.sniff import STILLS

_SHORTEST_PROMISE_S = 1.0


@dataclass(slots=True)
class _Track:
    """Packets of one stream, counted; times in the stream's own ticks."""

    stream: Any
    packets: int = 0
    first: int | None = None
    last: int | None = None
    tick_s: float = field(init=False)

    def __post_init__(self) -> None:
        self.tick_s = float(self.stream.time_base or 0)  # kept: asking PyAV for every packet of a long clip is slow

    def count(self, packet: Any) -> None:
        self.packets += 1
        stamp = packet.pts if packet.pts is not None else packet.dts
        if stamp is not None:
            self.first = stamp if self.first is None else min(self.first, stamp)
            end = stamp + max(packet.duration or 0, 0)
            self.last = end if self.last is None else max(self.last, end)

    @property
    def duration_s(self) -> float:
        if self.first is None or self.last is None:
            return 0.0
        return (self.last - self.first) * self.tick_s


@dataclass(slots=True)
class _Walk:
    """State of the one pass that a probe makes."""

    limits: MediaLimits
    video: _Track | None
    audio: _Track | None
    shape: tuple[int, int, int] | None = None

    def see(self, packet: Any) -> None:
        if self.audio is not None and packet.stream is self.audio.stream:
            self.audio.count(packet)
        elif self.video is not None:
            self.video.count(packet)
            if self.video.packets > self.limits.max_frames:
                raise MediaError(RejectCode.TOO_MANY_FRAMES, f"more than {self.limits.max_frames}")
            self.look(packet)
        if self.duration_s > self.limits.max_duration_s:
            raise MediaError(RejectCode.TOO_LONG, f"more than {self.limits.max_duration_s:g} s")

    def look(self, packet: Any) -> None:
        """Decode until the first picture, which tells the true size and how it is turned."""
        if self.shape is not None:
            return
        for frame in decode(packet):
            refuse_large(frame.width, frame.height, self.limits.max_pixels)
            turn = orientation_of(frame)
            width, height = (frame.height, frame.width) if turn.swaps_sides else (frame.width, frame.height)
            self.shape = width, height, turn.degrees
            return

    @property
    def duration_s(self) -> float:
        return max((track.duration_s for track in (self.video, self.audio) if track), default=0.0)


def probe_container(container: InputContainer, size_bytes: int, limits: MediaLimits) -> dict[str, Any]:
    """Fields of a MediaProbe. Raises MediaError."""
    still = container.format.name in STILLS
    walk = _walk(container, limits, still)
    _refuse_broken(container, walk)
    video, audio = walk.video, walk.audio
    has_video, has_audio = walk.shape is not None, bool(audio and audio.packets)
    duration_s = 0.0 if still else walk.duration_s
    frames = 1 if still else (video.packets if video and has_video else 0)
    width, height, degrees = walk.shape or (0, 0, 0)
    return {
        "kind": "image" if still else "video" if has_video else "audio",
        "container": container.format.name,
        "duration_s": duration_s,
        "width": width,
        "height": height,
        "fps": frames / video.duration_s if video and video.duration_s > 0 and not still else 0.0,
        "frames": frames,
        "has_video": has_video,
        "has_audio": has_audio,
        "video_codec": video.stream.codec_context.name if video and has_video else None,
        "audio_codec": audio.stream.codec_context.name if audio and has_audio else None,
        "sample_rate_hz": max(audio.stream.codec_context.sample_rate or 0, 0) if audio and has_audio else 0,
        "rotation_deg": degrees,
        "size_bytes": size_bytes,
    }


def _walk(container: InputContainer, limits: MediaLimits, still: bool) -> _Walk:
    picture, sound = picture_stream(container), sound_stream(container)
    if picture is not None and not readable(picture):
        raise MediaError(RejectCode.UNSUPPORTED_FORMAT, "the video codec is not read")
    if sound is not None and not readable(sound):
        sound = None
    if picture is None and sound is None:
        raise MediaError(RejectCode.NO_STREAMS if not container.streams.audio else RejectCode.UNSUPPORTED_FORMAT)
    if picture is not None:
        set_up(picture, limits.max_pixels, threads=1)
    walk = _Walk(limits, _Track(picture) if picture else None, _Track(sound) if sound else None)
    for packet in packets(container, [s for s in (picture, sound) if s is not None]):
        if packet.size and not packet.is_discard:
            walk.see(packet)
        elif packet.stream is picture:  # hidden pictures feed those after them; an empty packet flushes
            walk.look(packet)
        if still and walk.shape:
            break
    return walk


def _refuse_broken(container: InputContainer, walk: _Walk) -> None:
    tracks = [t for t in (walk.video, walk.audio) if t]
    still = container.format.name in STILLS
    promised_s = (container.duration or 0) / av.time_base
    if promised_s > max(_SHORTEST_PROMISE_S, 2 * walk.duration_s) and not still:
        raise MediaError(RejectCode.TRUNCATED, f"{walk.duration_s:.1f} s of {promised_s:.1f} s are left")
    if not any(t.packets for t in tracks):
        promised = any(t.stream.frames for t in tracks) and not still
        raise MediaError(RejectCode.TRUNCATED if promised else RejectCode.NO_STREAMS)
    if walk.video and walk.video.packets and walk.shape is None:
        raise MediaError(RejectCode.DECODE_FAILED, "no picture could be decoded")
