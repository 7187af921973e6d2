"""Pictures and sound into files and, for laundering, into memory and out again. Only what we made is decoded here."""

import io
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Final, Literal

import av
import cv2
import numpy as np

from clipwarden.models.training.forge.recipe import NotForgeable, Picture, Wave
from clipwarden.shared.contract import Contract

CLOCK: Final = Fraction(1, 90_000)
SMALLEST_PX: Final = 16
Codec = Literal["libx264", "libx265", "libvpx-vp9"]

_OPTIONS: Final[dict[str, dict[str, str]]] = {
    "libx264": {"preset": "veryfast", "threads": "2", "x264-params": "mbtree=0"},
    "libx265": {"preset": "ultrafast", "x265-params": "log-level=none:pools=none:frame-threads=1"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8", "b:v": "0", "threads": "1"},
}
"""Fast, and with a fixed number of threads, on which some of the output depends.

Without x264's macroblock tree, which gives other bits from one run to the next.
"""


class Coding(Contract):
    """A video codec and its constant rate factor, on the codec's own scale: more is worse."""

    codec: Codec = "libx264"
    crf: int = 18


@dataclass(frozen=True, slots=True)
class Timed:
    """A picture, uint8 (H, W, 3) RGB, and when it is shown."""

    time_s: float
    image: Picture


def write_clip(
    path: Path, frames: Iterable[Timed], fps: float, wave: Wave, rate_hz: int, coding: Coding | None = None
) -> int:
    """Write an MP4 with AAC sound, none if the wave is empty; returns the number of frames.

    The file appears when it is complete. Sides are cut to even numbers. Raises NotForgeable if a side is too small for
    the codecs.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("wb") as stream:
            count = _mux(stream, "mp4", frames, fps, coding or Coding(), wave, rate_hz)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return count


def write_sound(path: Path, wave: Wave, rate_hz: int) -> None:
    """Write mono 16 bit sound without loss; the suffix says whether as FLAC or WAV."""
    part = path.with_name(f".{path.name}.part")
    codec, container = {".flac": ("flac", "flac"), ".wav": ("pcm_s16le", "wav")}[path.suffix.lower()]
    try:
        with av.open(str(part), "w", format=container, options={"fflags": "+bitexact"}) as output:
            track: Any = output.add_stream(codec, rate=rate_hz, layout="mono")
            samples = np.clip(np.round(wave * 32768), -32768, 32767).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
            frame.sample_rate, frame.pts = rate_hz, 0
            output.mux([*track.encode(frame), *track.encode(None)])
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def recoded(frames: Iterable[Timed], fps: float, coding: Coding) -> Iterator[Timed]:
    """The frames as they are after this compression; all are coded before the first comes back."""
    stream = io.BytesIO()
    _mux(stream, "matroska", frames, fps, coding, np.zeros(0, np.float32), 0)
    stream.seek(0)
    with av.open(stream, "r") as source:
        for frame in source.decode(video=0):
            yield Timed(float(frame.time or 0.0), np.asarray(frame.to_ndarray(format="rgb24"), np.uint8))


def _mux(
    stream: Any, container: str, frames: Iterable[Timed], fps: float, coding: Coding, wave: Wave, rate_hz: int
) -> int:
    rest = iter(frames)
    first = next(rest, None)
    if first is None:
        raise NotForgeable("the clip has no frame that could be decoded")
    height, width = (side // 2 * 2 for side in first.image.shape[:2])
    if min(height, width) < SMALLEST_PX:
        raise NotForgeable(f"pictures of {first.image.shape[1]} x {first.image.shape[0]} are too small to be written")
    with av.open(stream, "w", format=container, options={"fflags": "+bitexact"}) as output:
        video = _video(output, coding, fps, width, height)
        audio = _Sound(output, wave, rate_hz) if len(wave) else None
        count, last = 0, -1
        for timed in itertools.chain([first], rest):
            frame = av.VideoFrame.from_ndarray(_fitted(timed.image, first.image.shape)[:height, :width], format="rgb24")
            last = max(round(timed.time_s / CLOCK), last + 1)
            frame.pts, frame.time_base = last, CLOCK
            output.mux(video.encode(frame))
            if audio:
                audio.up_to(timed.time_s)
            count += 1
        output.mux(video.encode(None))
        if audio:
            audio.finish()
    return count


def _fitted(image: Picture, shape: tuple[int, ...]) -> Picture:
    """A picture of a stream whose size changes on the way, at the size it began with."""
    if image.shape != shape:
        image = np.asarray(cv2.resize(image, (shape[1], shape[0]), interpolation=cv2.INTER_AREA), np.uint8)
    return np.ascontiguousarray(image)


def _video(output: Any, coding: Coding, fps: float, width: int, height: int) -> Any:
    rate = Fraction(fps or 25).limit_denominator(1001)
    video = output.add_stream(coding.codec, rate=rate, width=width, height=height)
    video.pix_fmt = "yuv420p"
    video.codec_context.time_base = CLOCK
    video.options = {**_OPTIONS[coding.codec], "crf": str(coding.crf)}
    return video


class _Sound:
    """The sound beside the pictures, so that the two lie interleaved in the file."""

    def __init__(self, output: Any, wave: Wave, rate_hz: int) -> None:
        self._output, self._wave, self._rate_hz, self._at = output, wave, rate_hz, 0
        self._track = output.add_stream("aac", rate=rate_hz, layout="mono")
        self._track.bit_rate = 128_000 if rate_hz > 24_000 else 96_000 if rate_hz > 12_000 else 48_000

    def up_to(self, time_s: float) -> None:
        """Write what is heard until then."""
        end = min(round(time_s * self._rate_hz), len(self._wave))
        if end - self._at >= self._rate_hz // 2:
            self._write(end)

    def _write(self, end: int) -> None:
        frame = av.AudioFrame.from_ndarray(self._wave[None, self._at : end], format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = self._rate_hz, self._at, Fraction(1, self._rate_hz)
        self._output.mux(self._track.encode(frame))
        self._at = end

    def finish(self) -> None:
        if self._at < len(self._wave):
            self._write(len(self._wave))
        self._output.mux(self._track.encode(None))
