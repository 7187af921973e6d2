"""One pass over a file that yields the planned frames and the planned sound. Runs inside the fence's child only.

Each picture that is wanted is converted to RGB once, in full size, and goes into a ring in shared memory; the sound
goes to its place behind the ring. So memory depends neither on the length of the clip nor on the plan. `index` says
which packets are decoded. A damaged packet is dropped and the pass goes on; if fewer than half of the packets gave a
frame, the file counts as truncated. Frames larger than the limit are reduced in the conversion that makes them RGB
(area interpolation). Gaps and delays of the sound become silence.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import av
import numpy as np
from av.container import InputContainer
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from clipwarden.shared.codes import RejectCode
from clipwarden.shared.errors import MediaError
from clipwarden.shared.media.container import (
    decode,
    drain,
    packets,
    picture_stream,
    readable,
    refuse_large,
    set_up,
    sound_stream,
)
from clipwarden.shared.media.index import Feed, PacketIndex
from clipwarden.shared.media.limits import MediaLimits
from clipwarden.shared.media.orientation import Orientation, from_exif, orientation_of
from clipwarden.shared.media.ring import Span
from clipwarden.shared.media.sniff import STILLS

INDEXED_CODECS = frozenset({"h264", "hevc", "vp9", "libdav1d", "av1", "mpeg4", "mjpeg"})
"""Codecs whose packets hold one shown frame each."""
INTRA_CODECS = frozenset({"mjpeg"})
"""Those that show frames in the order of the file, whatever their time stamps say."""

_PROGRESSIVE = (0, 1)
_GAP_S = 0.05
_RUN_UP_S = 0.5
_LARGE_PIXELS = 4096 * 2304


class Ring(Protocol):
    """Where pictures and sound are handed over."""

    @property
    def slot_bytes(self) -> int:
        """Most bytes of one picture."""
        ...

    def slot(self, height: int, width: int) -> NDArray[np.uint8]:
        """The next free uint8 (height, width, 3); waits for one."""
        ...

    def publish(self, index: int, time_s: float, height: int, width: int) -> None:
        """Tell the reader that the slot is filled."""
        ...


class _Pictures:
    """Decodes one video stream, hands over what was asked for."""

    def __init__(
        self, stream: Any, wanted: Sequence[int], feed: Feed | None, origin_s: float, limits: MediaLimits, ring: Ring
    ) -> None:
        self.stream, self.wanted, self.last = stream, frozenset(wanted), max(wanted)
        self.plan, self.origin_s, self.limits, self.ring = feed, origin_s, limits, ring
        self.tick_s = float(stream.time_base or 0)
        self.packets = self.fed = self.seen = 0
        self.shown = -1
        self.complete = feed is not None and feed.last < 0
        self.reformatter = VideoReformatter()
        self.turn: Orientation | None = None

    def feed(self, packet: Any) -> None:
        place = self.packets
        if packet.size:
            self.packets += 1
            if self.plan and not self.plan.needs(place):
                return
            if self.plan and self.plan.restarts[place]:
                self._drain()
                self.stream.codec_context.flush_buffers()
            self.fed += not packet.is_discard
        for frame in decode(packet):
            self._see(frame)
        if self.plan and place >= self.plan.last:
            self._drain()
            self.complete = True

    def _drain(self) -> None:
        for frame in drain(self.stream):
            self._see(frame)

    def _see(self, frame: Any) -> None:
        index = self.plan.ranks.get(frame.pts, -1) if self.plan else self.seen
        if index in self.wanted and index > self.shown:  # a damaged stream may show an earlier one late
            self._hand_over(index, frame)
            self.shown = index
        self.seen += 1
        if self.plan is None and self.seen > self.last:
            self.complete = True

    def _hand_over(self, index: int, frame: Any) -> None:
        refuse_large(frame.width, frame.height, self.limits.max_pixels)
        if self.turn is None:  # asked once: a frame whose side data were looked at is not freed before a collection
            self.turn = orientation_of(frame)
        image = self.turn.apply(self._rgb(frame))
        height, width, _ = image.shape
        self.ring.slot(height, width)[:] = image
        self.ring.publish(index, self._time_s(index, frame), height, width)

    def _rgb(self, frame: Any) -> NDArray[np.uint8]:
        """uint8 (H, W, 3) that fits into a slot, in the decoder's orientation; valid until the next is made."""
        scale = min(1.0, self.limits.max_side_px / max(frame.width, frame.height))
        scale = min(scale, (self.ring.slot_bytes / (3 * frame.width * frame.height)) ** 0.5)
        width, height = (max(int(side * scale), 1) for side in (frame.width, frame.height))
        kernel = "AREA" if scale < 1 else None
        made = self.reformatter.reformat(frame, width, height, "rgb24", interpolation=kernel, threads=1)
        plane = made.planes[0]
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(height, plane.line_size)
        image: NDArray[np.uint8] = rows[:, : 3 * width].reshape(height, width, 3)
        return image

    def _time_s(self, index: int, frame: Any) -> float:
        if frame.pts is not None:
            return max(float(frame.pts) * self.tick_s - self.origin_s, 0.0)
        return index / float(self.stream.average_rate or 25)

    def finish(self) -> None:
        """Raises MediaError if too little of the picture could be decoded."""
        if self.fed and not self.seen:
            raise MediaError(RejectCode.DECODE_FAILED, "no picture could be decoded")
        if not self.complete and 2 * self.seen < self.fed:
            raise MediaError(RejectCode.TRUNCATED, f"{self.seen} of {self.fed} pictures could be decoded")


class _Rate:
    """The sound at one rate: mono int16, written to the spans it falls into."""

    def __init__(self, rate_hz: int, spans: Sequence[Span]) -> None:
        self.rate_hz, self.spans = rate_hz, spans
        self.at = 0
        self.resampler = self._fresh()

    def _fresh(self) -> av.AudioResampler:
        return av.AudioResampler(format="s16", layout="mono", rate=self.rate_hz)

    def feed(self, frame: Any, jump_s: float | None) -> None:
        """Take a frame; `jump_s` is where it starts if it does not continue the last one."""
        if jump_s is not None:
            self.drain()
            self.at = round(jump_s * self.rate_hz)
        try:
            self._take(self.resampler.resample(frame))
        except ValueError:  # a change of rate or layout mid-stream
            self.drain()
            self._take(self.resampler.resample(frame))

    def drain(self) -> None:
        self._take(self.resampler.resample(None))
        self.resampler = self._fresh()

    def _take(self, pieces: Sequence[Any]) -> None:
        for piece in pieces:
            samples = piece.to_ndarray().reshape(-1)
            for span in self.spans:
                self._fill(span, samples)
            self.at += len(samples)

    def _fill(self, span: Span, samples: NDArray[np.int16]) -> None:
        low, high = max(self.at, span.first), min(self.at + len(samples), span.first + len(span.buffer))
        if low < high:
            span.buffer[low - span.first : high - span.first] = samples[low - self.at : high - self.at]
            span.filled = max(span.filled, high - span.first)


class _Sound:
    """Decodes one sound stream, as far as the spans need it."""

    def __init__(self, stream: Any, spans: Mapping[int, Sequence[Span]], origin_s: float) -> None:
        self.stream, self.origin_s = stream, origin_s
        self.rates = [_Rate(rate, rows) for rate, rows in spans.items()]
        self.tick_s = float(stream.time_base or 0)
        bounds = sorted(
            (s.first / r.rate_hz, (s.first + len(s.buffer)) / r.rate_hz) for r in self.rates for s in r.spans
        )
        self.bounds, self.end_s = bounds, max(end for _, end in bounds)
        self.expected_s: float | None = None
        self.skipped = self.complete = False
        self.frames = 0

    def feed(self, packet: Any) -> None:
        if packet.pts is not None and self._idle(packet):
            self.skipped = True
            return
        if self.skipped and packet.size:
            self.stream.codec_context.flush_buffers()
            self.skipped, self.expected_s = False, None
        for frame in decode(packet):
            self._see(frame)

    def _idle(self, packet: Any) -> bool:
        """Whether no span is near a packet. All after the last span are."""
        start = packet.pts * self.tick_s - self.origin_s
        end = start + (packet.duration or 0) * self.tick_s
        self.complete = start > self.end_s + _RUN_UP_S
        return not any(a - _RUN_UP_S <= end and start <= b for a, b in self.bounds)

    def _see(self, frame: Any) -> None:
        self.frames += 1
        time_s = self._time_s(frame)
        lasts_s = frame.samples / (frame.sample_rate or 1)
        expected = self.expected_s
        jumps = expected is None or (time_s is not None and time_s - expected > _GAP_S)
        start_s = max(time_s if jumps and time_s is not None else (expected or 0.0), 0.0)
        frame.pts = None  # the resampler would stretch the sound to fit its time stamps
        for rate in self.rates:
            rate.feed(frame, start_s if jumps else None)
        self.expected_s = start_s + lasts_s
        self.complete = self.expected_s > self.end_s + _RUN_UP_S

    def _time_s(self, frame: Any) -> float | None:
        return None if frame.time is None else float(frame.time) - self.origin_s

    def finish(self) -> None:
        for rate in self.rates:
            rate.drain()


def read_container(
    container: InputContainer,
    index: PacketIndex,
    wanted: Sequence[int],
    spans: Mapping[int, Sequence[Span]],
    limits: MediaLimits,
    ring: Ring,
) -> None:
    """Hand the wanted frames to the ring in display order and fill the spans. Raises MediaError."""
    video = _decodable(picture_stream(container)) if wanted else None
    audio = _decodable(sound_stream(container)) if any(spans.values()) else None
    origin_s = min((_start_s(s) for s in (picture_stream(container), sound_stream(container)) if s), default=0.0)
    feed = index.feed(wanted, video.codec_context.name not in INTRA_CODECS) if video and _indexed(video) else None
    heard = {rate: rows for rate, rows in spans.items() if rows}
    if video:
        set_up(video, limits.max_pixels, _threads(video.codec_context, max(wanted), limits))
    if audio:
        set_up(audio, limits.max_pixels, threads=1)
    pictures = _Pictures(video, wanted, feed, origin_s, limits, ring) if video else None
    sound = _Sound(audio, heard, origin_s) if audio else None
    _pass(container, pictures, sound)
    if pictures:
        pictures.finish()
    if sound:
        sound.finish()
    if sound and not sound.frames and not container.streams.video:
        raise MediaError(RejectCode.DECODE_FAILED, "no sound could be decoded")


def _indexed(stream: Any) -> bool:
    context = stream.codec_context
    return context.name in INDEXED_CODECS and context.field_order in _PROGRESSIVE


def _threads(context: Any, frames: int, limits: MediaLimits) -> int:
    """One for a short clip, where threads only cost, and for a huge picture, of which each thread holds several."""
    pixels = context.width * context.height
    return limits.threads if pixels <= _LARGE_PIXELS and pixels * frames > limits.parallel_pixels else 1


def _decodable(stream: Any | None) -> Any | None:
    return stream if stream and readable(stream) else None


def _pass(container: InputContainer, pictures: _Pictures | None, sound: _Sound | None) -> None:
    takers: dict[int, _Pictures | _Sound] = {t.stream.index: t for t in (pictures, sound) if t}
    if not takers:
        return
    still = container.format.name in STILLS
    for packet in packets(container, [container.streams[i] for i in takers]):
        taker = takers[packet.stream.index]
        if still and pictures and packet.size:
            pictures.turn = from_exif(memoryview(packet))
        if not taker.complete:
            taker.feed(packet)
        if all(t.complete for t in takers.values()) or (still and pictures and pictures.seen):
            return


def _start_s(stream: Any) -> float:
    return float(stream.start_time * stream.time_base) if stream.start_time is not None else 0.0
