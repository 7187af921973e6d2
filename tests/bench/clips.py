"""The clips that media figures are measured on: a moving face over a moving, detailed ground with grain, and speech.

They are drawn and encoded from seeds at bit rates that cameras and platforms use, because what a decoder costs follows
the bits. Each is kept in `build/bench-clips` under a digest of its recipe, this file and the encoders, so that only the
first bench pays. The two-hour file repeats the packets of a half-minute clip; nothing is encoded again.
"""

import hashlib
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from math import cos, sin
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress
from skimage import data

from tests.media import RATE_HZ, speech

FOLDER = Path("build/bench-clips")
SOUND_HZ = 48_000
MARGIN_PX = 96
GRAIN = 4.0

Picture = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Recipe:
    """One clip. `loops` repeats its packets that many times."""

    name: str
    width: int
    height: int
    fps: int
    seconds: int
    codec: str
    bit_rate: int
    options: tuple[tuple[str, str], ...] = ()
    suffix: str = ".mp4"
    loops: int = 1

    @property
    def path(self) -> Path:
        made_by = repr((self, av.__version__)).encode() + Path(__file__).read_bytes()
        return FOLDER / f"{self.name}-{hashlib.sha256(made_by).hexdigest()[:12]}{self.suffix}"

    @property
    def frames(self) -> int:
        return self.fps * self.seconds


_X264 = (("preset", "veryfast"), ("g", "250"), ("bf", "3"), ("b-pyramid", "normal"), ("refs", "3"))
_X265 = (("preset", "superfast"), ("x265-params", "keyint=250:bframes=4:b-pyramid=1:log-level=none"))
_VP9 = (("deadline", "realtime"), ("cpu-used", "6"), ("row-mt", "1"), ("g", "128"))

FILM = Recipe("1080p30 30 s", 1920, 1080, 30, 30, "libx264", 8_000_000, _X264)
CLIPS = (
    FILM,
    Recipe("720p25 10 s", 1280, 720, 25, 10, "libx264", 3_500_000, _X264),
    Recipe("1080x1920p60 10 s", 1080, 1920, 60, 10, "libx264", 12_000_000, _X264),
    Recipe("VP9 720p30 10 s", 1280, 720, 30, 10, "libvpx-vp9", 2_000_000, _VP9, ".webm"),
    Recipe("HEVC 1080p30 10 s", 1920, 1080, 30, 10, "libx265", 5_000_000, _X265),
)
TWO_HOURS = Recipe("360p30 2 h", 640, 360, 30, 30, "libx264", 350_000, _X264, loops=239)


def made(recipes: Iterable[Recipe]) -> dict[Recipe, Path]:
    """Every clip, those that are not there yet drawn first, with a bar on the terminal. Older drawings are deleted."""
    wanted = list(recipes)
    missing = [recipe for recipe in wanted if not recipe.path.exists()]
    FOLDER.mkdir(parents=True, exist_ok=True)
    for path in set(FOLDER.iterdir()) - {recipe.path for recipe in (*CLIPS, TWO_HOURS)}:
        path.unlink()
    if missing:
        print(f"drawing {len(missing)} clips into {FOLDER}, once: two to three minutes on two cores", file=sys.stderr)
    with Progress(console=Console(stderr=True), transient=True, disable=not missing) as progress:
        for recipe in missing:
            _make(recipe, progress)
    return {recipe: recipe.path for recipe in wanted}


def _make(recipe: Recipe, progress: Progress) -> None:
    """Write under another name first: a clip that is there is whole."""
    draft = recipe.path.with_name(f".draft-{recipe.path.name}")
    task = progress.add_task(recipe.name, total=recipe.frames)
    _encode(draft, recipe, progress.track(Scene(recipe), task_id=task))
    if recipe.loops > 1:
        once = draft.rename(draft.with_name(f".once-{draft.name}"))
        repeat(once, draft, recipe.loops)
        once.unlink()
    draft.replace(recipe.path)


class Scene:
    """The pictures of a recipe, as planar YUV 4:2:0: uint8 (H * 3 / 2, W)."""

    def __init__(self, recipe: Recipe, seed: int = 0) -> None:
        self.recipe = recipe
        self.rng = np.random.default_rng(seed)
        self.side = round(0.55 * min(recipe.width, recipe.height))

    @cached_property
    def ground(self) -> Picture:
        """Clutter at every scale, nearly grey, larger than the picture by a margin on each side; RGB."""
        height, width = self.recipe.height + 2 * MARGIN_PX, self.recipe.width + 2 * MARGIN_PX
        total = np.full((height, width, 3), 110, np.float32)
        for octave in range(7):
            cells = 3 << octave, 4 << octave
            coarse = self.rng.normal(0, 1, (*cells, 1)) + self.rng.normal(0, 0.25, (*cells, 3))
            total += 34 * 0.72**octave * cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        return np.clip(total, 16, 235).astype(np.uint8)

    @cached_property
    def head(self) -> Picture:
        return cv2.resize(data.astronaut()[:300, 60:360], (self.side, self.side), interpolation=cv2.INTER_CUBIC)

    @cached_property
    def oval(self) -> Picture:
        """255 where the head is."""
        half = self.side // 2
        return cv2.circle(np.zeros((self.side, self.side), np.uint8), (half, half), half, 255, -1)

    @cached_property
    def grain(self) -> list[Picture]:
        """Luma noise about 16, in several tiles larger than the picture."""
        shape = (self.recipe.height + MARGIN_PX, self.recipe.width + MARGIN_PX)
        noise = (self.rng.standard_normal(shape, np.float32) * GRAIN + 16 for _ in range(3))
        return [np.clip(tile, 0, 32).astype(np.uint8) for tile in noise]

    def __len__(self) -> int:
        return self.recipe.frames

    def __iter__(self) -> Iterator[Picture]:
        for i in range(len(self)):
            time_s = i / self.recipe.fps
            picture = self._camera(time_s)
            self._face(picture, time_s)
            yield self._grainy(cv2.cvtColor(picture, cv2.COLOR_RGB2YUV_I420), i)

    def _camera(self, time_s: float) -> Picture:
        """A hand-held pan by parts of pixels, a different stretch of ground every ten seconds."""
        x = MARGIN_PX * (1 + 0.7 * sin(0.9 * time_s)) + 0.1 * sin(11 * time_s)
        y = MARGIN_PX * (1 + 0.6 * cos(0.7 * time_s)) + 0.1 * cos(13 * time_s)
        ground = cv2.flip(self.ground, 1) if int(time_s / 10) % 2 else self.ground
        size = (self.recipe.width, self.recipe.height)
        return cv2.warpAffine(ground, np.array([[1, 0, -x], [0, 1, -y]]), size, flags=cv2.INTER_LINEAR)

    def _face(self, picture: Picture, time_s: float) -> None:
        """The astronaut's head in an oval, swaying; drawn into the picture."""
        side = self.side
        sway = cv2.getRotationMatrix2D((side / 2, side / 2), 5 * sin(2.1 * time_s), 1 + 0.04 * sin(1.3 * time_s))
        head = cv2.warpAffine(self.head, sway, (side, side), borderMode=cv2.BORDER_REFLECT)
        left = round((self.recipe.width - side) * (0.5 + 0.3 * sin(0.5 * time_s)))
        top = round((self.recipe.height - side) * (0.5 + 0.2 * cos(0.8 * time_s)))
        cv2.copyTo(head, self.oval, picture[top : top + side, left : left + side])

    def _grainy(self, planes: Picture, i: int) -> Picture:
        height, width = self.recipe.height, self.recipe.width
        y, x = self.rng.integers(0, MARGIN_PX, 2)
        tile = self.grain[i % len(self.grain)][y : y + height, x : x + width]
        planes[:height] = cv2.subtract(cv2.add(planes[:height], tile), 16.0)
        return planes


def _encode(path: Path, recipe: Recipe, pictures: Iterable[Picture]) -> None:
    """Pictures and sound, written in step."""
    with av.open(str(path), "w") as out:
        video = out.add_stream(recipe.codec, rate=recipe.fps, width=recipe.width, height=recipe.height)
        video.pix_fmt, video.bit_rate, video.options = "yuv420p", recipe.bit_rate, dict(recipe.options)
        sound = out.add_stream("libopus" if recipe.suffix == ".webm" else "aac", rate=SOUND_HZ, layout="stereo")
        sound.bit_rate = 128_000
        spoken = _spoken(recipe.seconds)
        for i, planes in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
            frame.pts = i
            out.mux(video.encode(frame))
            if i % recipe.fps == 0:
                out.mux(_heard(sound, spoken, i // recipe.fps))
        out.mux(video.encode())
        out.mux(sound.encode())


def _spoken(seconds: int) -> NDArray[np.int16]:
    """int16 (2, N) at SOUND_HZ: speech, softer on the right."""
    wave = speech(seconds).astype(np.float32)
    times = np.arange(seconds * SOUND_HZ) / SOUND_HZ
    finer = np.interp(times, np.arange(len(wave)) / RATE_HZ, wave)
    return np.stack([finer, 0.8 * finer]).astype(np.int16)


def _heard(stream: Any, wave: NDArray[np.int16], second: int) -> list[Any]:
    start = second * SOUND_HZ
    samples = np.ascontiguousarray(wave[:, start : start + SOUND_HZ].T).reshape(1, -1)
    frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="stereo")
    frame.sample_rate, frame.pts, frame.time_base = SOUND_HZ, start, Fraction(1, SOUND_HZ)
    packets: list[Any] = stream.encode(frame)
    return packets


def repeat(once: Path, path: Path, loops: int) -> None:
    """The packets of a clip again and again, each round after the one before; the sound's run-in only once."""
    with av.open(str(once)) as source, av.open(str(path), "w") as out:
        copies = {stream.index: out.add_stream_from_template(stream) for stream in source.streams}
        period_s = source.streams.video[0].duration * source.streams.video[0].time_base
        packets = [packet for packet in source.demux() if packet.size]
        for loop in range(loops):
            for packet in packets:
                if packet.pts >= 0 or not loop:
                    out.mux(_later(packet, copies[packet.stream_index], loop * period_s))


def _later(packet: Any, stream: Any, seconds: Fraction) -> Any:
    copy = av.Packet(bytes(packet))
    copy.stream, copy.time_base, copy.is_keyframe = stream, packet.time_base, packet.is_keyframe
    shift = round(seconds / packet.time_base)
    copy.pts, copy.dts, copy.duration = packet.pts + shift, packet.dts + shift, packet.duration
    return copy
