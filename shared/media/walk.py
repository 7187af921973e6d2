"""The one walk over a file's packets that a probe makes. Runs inside the fence's child only."""

import gc
from array import array
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from av.codec.context import Flags2
from av.container import InputContainer

from clipwarden.shared.codes import RejectCode
from clipwarden.shared.errors import MediaError
from clipwarden.shared.media.bitstream import Framing, framing_of, kind
from clipwarden.shared.media.container import Clock, decode, packets, refuse_large, set_up
from clipwarden.shared.media.index import PacketIndex
from clipwarden.shared.media.limits import MediaLimits
from clipwarden.shared.media.orientation import Orientation, from_exif, orientation_of
from clipwarden.shared.media.provenance import VECTOR_CODECS, Traces
from clipwarden.shared.media.stills import is_cut, quantisation

_UNEVEN, _UNEVEN_SHARE = 0.1, 0.01


@dataclass(slots=True)
class Track:
    """Packets of one stream, counted; times in the stream's own ticks."""

    stream: Any
    packets: int = 0
    dateless: int = 0
    damaged: int = 0
    stamps: "array[int]" = field(default_factory=lambda: array("q"))
    first: int = 0
    end: int | None = None
    tick_s: float = field(init=False)
    _doubtful: bool = False  # the last packet counts as damaged wherever a file simply ends

    def __post_init__(self) -> None:
        self.tick_s = float(self.stream.time_base or 0)  # kept: asking PyAV for every packet of a long clip is slow

    def count(self, packet: Any) -> int:
        """Count a packet; its time stamp, or its place if it has none."""
        self.packets += 1
        self.damaged += self._doubtful
        self._doubtful = packet.is_corrupt
        stamp: int | None = packet.pts
        if stamp is None:
            self.dateless += 1
            stamp = packet.dts
        if stamp is None:
            return self.packets
        end = stamp + max(packet.duration or 0, 0)
        self.first = stamp if self.end is None else min(self.first, stamp)
        self.end = end if self.end is None else max(self.end, end)
        self.stamps.append(stamp)
        return stamp

    @property
    def duration_s(self) -> float:
        return 0.0 if self.end is None else (self.end - self.first) * self.tick_s

    def rate(self) -> tuple[float, bool]:
        """Pictures per second, from the first to the last, and whether the time between them varies."""
        times = np.sort(np.frombuffer(self.stamps, np.int64))
        if len(times) < 2 or times[0] == times[-1] or not self.tick_s:
            return (self.packets / self.duration_s if self.duration_s else 0.0), False
        steps = np.diff(times)
        usual = float(np.median(steps))
        uneven = np.abs(steps - usual) > max(_UNEVEN * usual, 1.5)
        return (len(times) - 1) / (float(times[-1] - times[0]) * self.tick_s), bool(uneven.mean() > _UNEVEN_SHARE)


@dataclass(slots=True)
class Walk:
    """What the walk has seen. `shown` is the first picture, `turn` how it lies, `cut` whether a still has no end."""

    limits: MediaLimits
    video: Track | None
    audio: Track | None
    still: bool = False
    index: PacketIndex | None = None
    framing: Framing = field(default_factory=Framing)
    traces: Traces = field(default_factory=Traces)
    clock: Clock = field(default_factory=Clock)
    shown: Any = None
    turn: Orientation = field(default_factory=Orientation)
    cut: bool = False
    _exif: Orientation | None = None
    _tells_vectors: bool = False

    @property
    def duration_s(self) -> float:
        return max((track.duration_s for track in (self.video, self.audio) if track), default=0.0)

    def go(self, container: InputContainer) -> None:
        """Walk. Raises MediaError past a limit."""
        if self.video is not None:
            self._prepare(self.video.stream)
        streams = [track.stream for track in (self.video, self.audio) if track]
        picture = self.video.stream.index if self.video else -1
        for packet in packets(container, streams, self.clock):
            if packet.stream_index == picture:
                self._see(packet)
            elif packet.size and not packet.is_discard and self.audio is not None:
                self.audio.count(packet)
                self._stay_within_limits(self.audio)
            if self.still and self.shown is not None:
                break
        gc.collect(1)  # PyAV's frames and their side data hold each other

    def _prepare(self, stream: Any) -> None:
        set_up(stream, self.limits.max_pixels, threads=1)
        context = stream.codec_context
        extradata = bytes(context.extradata or b"")
        self.framing = framing_of(context.name, extradata)
        self.traces.notes.read_header(context.name, extradata)
        self._tells_vectors = context.name in VECTOR_CODECS
        if self._tells_vectors:
            context.flags2 |= Flags2.export_mvs
            context.options = {**context.options, "skip_loop_filter": "all"}

    def _see(self, packet: Any) -> None:
        """A packet of the picture. One that an edit list hides only feeds the decoder, an empty one flushes it."""
        if packet.size:
            content = memoryview(packet)
            if self.still:
                self._read_still(content)
            else:
                self._note(packet, content)
        if self.shown is None or (self._tells_vectors and self.traces.motion.wanted):
            for frame in decode(packet):
                self._look(frame)

    def _note(self, packet: Any, content: memoryview) -> None:
        assert self.video is not None
        name = self.video.stream.codec_context.name
        told = kind(name, content, framing=self.framing)
        if self.index is not None:
            self.index.see(packet, told)
        if packet.is_keyframe:
            self.traces.notes.read_packet(name, content, self.framing)
        if packet.is_discard:
            self.traces.hidden += 1
        else:
            self.traces.see(packet, told, self.video.count(packet))
            self._stay_within_limits(self.video)

    def _read_still(self, content: memoryview) -> None:
        assert self.video is not None
        self.video.packets += 1
        self.traces.notes.read_still(content)
        self.traces.tables = quantisation(content)
        self._exif, self.cut = from_exif(content), is_cut(content)

    def _look(self, frame: Any) -> None:
        """The first picture tells the true size and how it is turned, the next few tell their vectors."""
        refuse_large(frame.width, frame.height, self.limits.max_pixels)
        self.traces.motion.see(frame)
        if self.shown is None:
            self.shown, self.turn = frame, orientation_of(frame, self._exif)

    def _stay_within_limits(self, track: Track) -> None:
        if track is self.video and track.packets > self.limits.max_frames:
            raise MediaError(RejectCode.TOO_MANY_FRAMES, f"more than {self.limits.max_frames}")
        if track.duration_s > self.limits.max_duration_s:
            raise MediaError(RejectCode.TOO_LONG, f"more than {self.limits.max_duration_s:g} s")
