"""What happens to clips on their way: resized, blurred, noisy, compressed several times, the sound through a channel.

Drawn without a look at the label, so that it tells nothing of it.
"""

from collections.abc import Iterable, Iterator
from typing import Final, Literal

import cv2
import numpy as np

from clipwarden.models.training.channel import CHANNELS, MORE_CHANNELS, RATE_HZ, through
from clipwarden.models.training.forge.recipe import Picture, Rng, Wave
from clipwarden.models.training.forge.sounds import resampled
from clipwarden.models.training.forge.writing import Codec, Coding, Timed, recoded
from clipwarden.shared.contract import Contract

PLATFORM_SIDES_PX: Final = (1280, 960, 854, 720, 640, 480)
"""Longer sides that platforms and messengers reduce to."""
CRF: Final[dict[Codec, tuple[int, int]]] = {"libx264": (20, 36), "libx265": (22, 38), "libvpx-vp9": (28, 50)}
SMALLEST_SIDE_PX: Final = 200
_KERNELS: Final = {"area": cv2.INTER_AREA, "linear": cv2.INTER_LINEAR, "cubic": cv2.INTER_CUBIC}


class Wash(Contract):
    """One way through a platform. `codings` come one after the other, the last is that of the file.

    `side_px` is the longer side (0: as it is), blur in pixels and noise in grey levels are standard deviations, 0 for
    none; `channel` is one of the sound's, "none" for none.
    """

    side_px: int
    kernel: Literal["area", "linear", "cubic"]
    blur_px: float
    noise: float
    codings: tuple[Coding, ...]
    channel: str


def draw_wash(rng: Rng, width: int, height: int) -> Wash:
    """A wash for pictures of this size."""
    longer, shorter = max(width, height), max(min(width, height), 1)
    sides = [s for s in PLATFORM_SIDES_PX if s < longer and s * shorter / longer >= SMALLEST_SIDE_PX]
    names: list[Codec] = [*CRF]
    codecs = [names[k] for k in rng.choice(len(names), size=int(rng.integers(1, 4)), p=(0.6, 0.2, 0.2))]
    channels = ("none", *CHANNELS, *MORE_CHANNELS)
    kernels: tuple[Literal["area", "linear", "cubic"], ...] = ("area", "linear", "cubic")
    return Wash(
        side_px=int(rng.choice([0, *sides])),
        kernel=kernels[int(rng.integers(3))],
        blur_px=round(float(rng.uniform(0.4, 1.2)), 3) if rng.random() < 0.25 else 0.0,
        noise=round(float(rng.uniform(1.0, 6.0)), 3) if rng.random() < 0.3 else 0.0,
        codings=tuple(Coding(codec=codec, crf=int(rng.integers(*CRF[codec]))) for codec in codecs),
        channel=channels[int(rng.integers(len(channels)))],
    )


def washed(frames: Iterable[Timed], fps: float, wash: Wash, rng: Rng) -> Iterator[Timed]:
    """The frames resized, blurred, made noisy and compressed by all codings but the last."""
    passing: Iterator[Timed] = (Timed(t.time_s, _soiled(_sized(t.image, wash), wash, rng)) for t in frames)
    for coding in wash.codings[:-1]:
        passing = recoded(passing, fps, coding)
    return passing


def washed_sound(wave: Wave, rate_hz: int, wash: Wash, rng: Rng) -> Wave:
    """The sound after the channel, at the same rate and of the same length; channels carry at most 8 kHz."""
    if wash.channel == "none" or not len(wave):
        return wave
    heard = resampled(through(wash.channel, resampled(wave, rate_hz, RATE_HZ), rng), RATE_HZ, rate_hz)
    return np.pad(heard, (0, max(len(wave) - len(heard), 0)))[: len(wave)]


def _sized(image: Picture, wash: Wash) -> Picture:
    longer = max(image.shape[:2])
    if not wash.side_px or wash.side_px >= longer:
        return image
    width, height = (max(round(side * wash.side_px / longer), 2) // 2 * 2 for side in image.shape[1::-1])
    return np.asarray(cv2.resize(image, (width, height), interpolation=_KERNELS[wash.kernel]), np.uint8)


def _soiled(image: Picture, wash: Wash, rng: Rng) -> Picture:
    if wash.blur_px:
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), wash.blur_px), np.uint8)
    if wash.noise:
        grain = rng.standard_normal(image.shape, np.float32) * np.float32(wash.noise)
        image = np.clip(np.rint(image + grain), 0, 255).astype(np.uint8)
    return image
