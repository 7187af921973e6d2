"""Renders the clip that the demo examines when the user has none: a portrait made to move and babble.

The portrait is NASA's of Eileen Collins, in the public domain, which ships with scikit-image. Nothing of the
clip is a recording: its motion is a warp of one photograph, its voice is synthetic, the right label "fake".
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import cos, pi, radians, sin
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from clipwarden.shared.contracts import Label
from clipwarden.shared.local.voice import SAMPLE_RATE_HZ, loudness, speak

Grid = NDArray[np.float32]
Picture = NDArray[np.uint8]

DURATION_S = 7.0
FPS = 25
SIDE_PX = 640
SEED = 7

MOUTH_X, MOUTH_Y = 224.0, 148.0  # where the lips meet in the portrait, pixels
MOUTH_HALF_WIDTH = 17.0
JAW_DROP_PX = 9.0
CHIN_Y, COLLAR_Y = 180.0, 204.0
INSIDE_RGB = np.array([62, 20, 24], np.float32)

DESCRIPTION = (
    f"a {DURATION_S:g} s clip made by a program: NASA's portrait of the astronaut Eileen Collins"
    " (public domain), animated by warping, with a synthetic babbling voice"
)
CAVEAT = (
    "The detectors were not trained on clips made in this way, so they may disagree, and the verdict may be"
    " inconclusive or wrong."
)


@dataclass(frozen=True, slots=True)
class SampleFacts:
    """What the sample is and which answer to expect of it."""

    path: Path
    duration_s: float
    expected: Label
    description: str
    caveat: str


def render_sample(path: Path) -> SampleFacts:
    """Write the sample as MP4 (H.264, AAC): the same pictures and samples each time on one machine."""
    wave = speak(DURATION_S, SEED)
    opening = np.convolve(loudness(wave, FPS), [0.25, 0.5, 0.25], mode="same")
    _write(path, partial(_frame, _portrait(), opening), wave)
    return SampleFacts(path, DURATION_S, Label.FAKE, DESCRIPTION, CAVEAT)


def _portrait() -> Picture:
    """uint8 (512, 512, 3) RGB."""
    from skimage.data import astronaut

    picture: Picture = astronaut()  # type: ignore[no-untyped-call]
    return picture


def _frame(portrait: Picture, opening: NDArray[np.float64], time_s: float) -> Picture:
    """Draw the moment: uint8 (SIDE_PX, SIDE_PX, 3) RGB; camera first, then the jaw."""
    x, y = _camera(time_s)
    drop = JAW_DROP_PX * float(opening[min(round(time_s * FPS), len(opening) - 1)])
    across = np.exp(-(((x - MOUTH_X) / 26.0) ** 2))
    down = _rise(y, MOUTH_Y - 2, MOUTH_Y + 8) * (1 - _rise(y, CHIN_Y, COLLAR_Y))
    warped = cv2.remap(portrait, x, y - drop * across * down, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
    inside = _mouth(x, y, drop)[..., None]
    mixed: Grid = warped.astype(np.float32) * (1 - inside) + INSIDE_RGB * inside
    return np.clip(np.rint(mixed), 0, 255).astype(np.uint8)


def _camera(time_s: float) -> tuple[Grid, Grid]:
    """Portrait coordinates that each pixel shows: a slow zoom, pan and tilt, as of a hand-held camera."""
    scale = 512 / (SIDE_PX * (1.5 + 0.08 * sin(2 * pi * time_s / 7.0)))
    tilt = radians(2.5) * sin(2 * pi * time_s / 3.1)
    centre_x = 228 + 9 * sin(2 * pi * time_s / 4.3)
    centre_y = 178 + 5 * sin(2 * pi * time_s / 2.7)
    along, across = scale * cos(tilt), scale * sin(tilt)
    offset = np.arange(SIDE_PX, dtype=np.float32) - (SIDE_PX - 1) / 2
    x: Grid = centre_x + along * offset[None, :] - across * offset[:, None]
    y: Grid = centre_y + across * offset[None, :] + along * offset[:, None]
    return x, y


def _mouth(x: Grid, y: Grid, drop: float) -> Grid:
    """How much of each pixel is the open mouth, in [0, 1]: an ellipse with a soft edge."""
    half_height = 0.5 * drop + 1e-3
    distance = np.hypot((x - MOUTH_X) / MOUTH_HALF_WIDTH, (y - MOUTH_Y - half_height) / half_height)
    return min(1.0, drop / 3.0) * (1 - _rise(distance, 0.7, 1.1))


def _rise(value: Grid, start: float, end: float) -> Grid:
    """0 before start, 1 after end, smooth between."""
    part: Grid = np.clip((value - start) / (end - start), 0, 1)
    return part * part * (3 - 2 * part)


def _write(path: Path, frame: Callable[[float], Picture], wave: NDArray[np.float32]) -> None:
    with warnings.catch_warnings():  # MoviePy's own, on import and when its readers are collected
        warnings.simplefilter("ignore")
        from moviepy import VideoClip
        from moviepy.audio.AudioClip import AudioArrayClip

        sound = AudioArrayClip(np.stack([wave, wave], axis=1), fps=SAMPLE_RATE_HZ)
        clip = VideoClip(frame, duration=DURATION_S).with_audio(sound)
        clip.write_videofile(
            str(path),
            fps=FPS,
            codec="libx264",
            audio_codec="aac",
            audio_fps=SAMPLE_RATE_HZ,
            audio_bitrate="96k",
            temp_audiofile_path=str(path.parent),
            threads=2,  # x264's output depends on it
            ffmpeg_params=["-crf", "18", "-pix_fmt", "yuv420p", "-fflags", "+bitexact"],
            logger=None,
        )
        clip.close()
