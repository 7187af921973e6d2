"""One pass over a file that yields the planned frames and the sound. Runs inside the fence's child only.

Frames go to the output as soon as they are converted and the sound is bounded by the plan, so memory does not
depend on the length of the clip. A damaged packet is dropped and the pass goes on; if fewer than half of the
packets gave a frame, the file counts as truncated. Sample aspect ratios are not applied. Frames larger than
the limit are reduced in the same conversion that makes them RGB (area interpolation).
"""

from collections.abc import Sequence
from typing import Any, BinaryIO

import av
import numpy as np
from av.container import InputContainer
from numpy.typing import NDArray

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
from clipwarden.shared.media.decoded import SAMPLE_RATE_HZ
from clipwarden.shared.media.limits import MediaLimits
from clipwarden.shared.media.orientation import orientation_of
from clipwarden.shared.media.sniff import STILLS


class _Pictures:
    """Decodes one video stream, keeps what was asked for."""

    def __init__(self, stream: Any, wanted: Sequence[int], origin_s: float, limits: MediaLimits, out: BinaryIO) -> None:
        set_up(stream, limits.max_pixels, limits.threads)
        self.stream, self.wanted, self.last = stream, frozenset(wanted), max(wanted)
        self.origin_s, self.limits, self.out = origin_s, limits, out
        self.packets = self.seen = 0
        self.kept: list[tuple[int, float, int, int]] = []

    @property
    def complete(self) -> bool:
        return self.seen > self.last

    def feed(self, packet: Any) -> None:
        self.packets += packet.size > 0 and not packet.is_discard
        for frame in decode(packet):
            if self.seen in self.wanted:
                self._keep(frame)
            self.seen += 1

    def _keep(self, frame: Any) -> None:
        refuse_large(frame.width, frame.height, self.limits.max_pixels)
        image = orientation_of(frame).apply(_rgb(frame, self.limits.max_side_px))
        self.out.write(image.data)
        height, width, _ = image.shape
        self.kept.append((self.seen, self._time_s(frame), height, width))

    def _time_s(self, frame: Any) -> float:
        if frame.time is not None:
            return max(float(frame.time) - self.origin_s, 0.0)
        return self.seen / float(self.stream.average_rate or 25)

    def finish(self) -> None:
        """Raises MediaError if too little of the picture could be decoded."""
        if self.packets and not self.seen:
            raise MediaError(RejectCode.DECODE_FAILED, "no picture could be decoded")
        if not self.complete and 2 * self.seen < self.packets:
            raise MediaError(RejectCode.TRUNCATED, f"{self.seen} of {self.packets} pictures could be decoded")


class _Sound:
    """Decodes one sound stream to 16 kHz mono int16, at most `seconds` of it."""

    def __init__(self, stream: Any, seconds: float, origin_s: float, limits: MediaLimits) -> None:
        set_up(stream, limits.max_pixels, threads=1)
        self.stream = stream
        self.wanted = round(seconds * SAMPLE_RATE_HZ)
        self.origin_s, self.samples, self.frames = origin_s, 0, 0
        self.parts: list[NDArray[np.int16]] = []
        self.resampler = _resampler()

    @property
    def complete(self) -> bool:
        return self.samples >= self.wanted

    def feed(self, packet: Any) -> None:
        for frame in decode(packet):
            if not self.frames and frame.time is not None:
                self._delay(float(frame.time) - self.origin_s)
            self.frames += 1
            self._resample(frame)

    def _delay(self, seconds: float) -> None:
        if seconds > 0:
            self._take(np.zeros(min(round(seconds * SAMPLE_RATE_HZ), self.wanted), np.int16))

    def _resample(self, frame: Any) -> None:
        frame.pts = None  # the resampler stretches nothing: gaps and jumps of time stamps are not filled
        try:
            pieces = self.resampler.resample(frame)
        except ValueError:  # a change of rate or layout mid-stream
            self.resampler = _resampler()
            pieces = self.resampler.resample(frame)
        for piece in pieces:
            self._take(_samples(piece))

    def _take(self, samples: NDArray[np.int16]) -> None:
        self.parts.append(samples)
        self.samples += len(samples)

    def wave(self) -> NDArray[np.int16]:
        if self.frames:
            for piece in self.resampler.resample(None):
                self._take(_samples(piece))
        return np.concatenate([np.zeros(0, np.int16), *self.parts])[: self.wanted]


def read_container(
    container: InputContainer, wanted: Sequence[int], audio_seconds: float, limits: MediaLimits, out: BinaryIO
) -> dict[str, Any]:
    """Write the planned frames, then the wave to `out`; returns how to find them. Raises MediaError."""
    video, audio = _streams(container, wanted, audio_seconds)
    origin_s = min((_start_s(s) for s in (picture_stream(container), sound_stream(container)) if s), default=0.0)
    pictures = _Pictures(video, wanted, origin_s, limits, out) if video else None
    sound = _Sound(audio, audio_seconds, origin_s, limits) if audio else None
    _pass(container, pictures, sound)
    if pictures:
        pictures.finish()
    wave = sound.wave() if sound else np.zeros(0, np.int16)
    if sound and not pictures and not len(wave) and not container.streams.video:
        raise MediaError(RejectCode.DECODE_FAILED, "no sound could be decoded")
    out.write(wave.tobytes())
    return {"frames": pictures.kept if pictures else [], "samples": len(wave)}


def _streams(container: InputContainer, wanted: Sequence[int], audio_seconds: float) -> tuple[Any | None, Any | None]:
    video = picture_stream(container) if wanted else None
    audio = sound_stream(container) if audio_seconds > 0 else None
    return (video if video and readable(video) else None), (audio if audio and readable(audio) else None)


def _pass(container: InputContainer, pictures: _Pictures | None, sound: _Sound | None) -> None:
    takers: dict[int, _Pictures | _Sound] = {t.stream.index: t for t in (pictures, sound) if t}
    if not takers:
        return
    still = container.format.name in STILLS
    for packet in packets(container, [container.streams[i] for i in takers]):
        taker = takers[packet.stream.index]
        if not taker.complete:
            taker.feed(packet)
        if all(t.complete for t in takers.values()) or (still and pictures and pictures.seen):
            return


def _start_s(stream: Any) -> float:
    return float(stream.start_time * stream.time_base) if stream.start_time is not None else 0.0


def _rgb(frame: Any, max_side_px: int) -> NDArray[np.uint8]:
    """uint8 (H, W, 3), longer side at most `max_side_px`."""
    scale = min(1.0, max_side_px / max(frame.width, frame.height))
    width, height = max(round(frame.width * scale), 1), max(round(frame.height * scale), 1)
    kernel = "AREA" if scale < 1 else None
    small = frame.reformat(width=width, height=height, format="rgb24", interpolation=kernel)
    array: NDArray[np.uint8] = small.to_ndarray()
    return array


def _resampler() -> av.AudioResampler:
    return av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE_HZ)


def _samples(piece: Any) -> NDArray[np.int16]:
    """int16 (N,) of a mono s16 sound frame."""
    array: NDArray[np.int16] = piece.to_ndarray().reshape(-1)
    return array
