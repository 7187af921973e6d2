"""Makes one still of a clip talk: warps driven by the landmarks move jaw, lips, lids and head over time.

The jaw follows the loudness of the sound, or syllables of chance where there is none. What lies outside the head's
field stays the still's pixels.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from clipwarden.models.training.forge.anatomy import HEAD_REACH, Grid, Pose, head_taper, rise
from clipwarden.models.training.forge.recipe import (
    Edit,
    Moment,
    Need,
    Parameters,
    Picture,
    Portrait,
    Recipe,
    Rng,
    Sources,
    Take,
    uniform,
)

Track = Callable[[float], float]

BLINK_S = 0.24
DARK_RGB = np.array([52, 22, 24], np.float32)
_QUIET = 0.12


def _draw(rng: Rng) -> dict[str, float]:
    return uniform(
        rng,
        jaw=(0.16, 0.28),
        smile=(0.0, 0.06),
        lids=(0.8, 1.0),
        blink_every_s=(2.0, 4.5),
        turn=(0.05, 0.11),
        nod=(0.03, 0.08),
        roll_deg=(1.0, 3.5),
    )


def _look(sources: Sources, parameters: Parameters, rng: Rng) -> Edit:
    take = sources.clip
    assert take.still is not None
    puppet = _Puppet(take.still, take, parameters, rng)

    def edit(moment: Moment) -> Picture:
        return puppet.at(moment.index, moment.time_s)

    return edit


class _Puppet:
    """The still, and how far each of its parts is moved at a time."""

    def __init__(self, still: Portrait, take: Take, parameters: Parameters, rng: Rng) -> None:
        self._still, self._p = still, parameters
        self._pose = Pose.of(still.points)
        self._window = self._pose.window(still.image.shape, HEAD_REACH)
        self._u, self._v = self._pose.grid(self._window)
        self._opening = _opening(take, rng)
        self._turn, self._nod, self._roll, self._smile = (_drift(rng, hz) for hz in (0.23, 0.31, 0.19, 0.4))
        self._blinks = _blinks(take.frames / max(take.fps, 1), parameters["blink_every_s"], rng)

    def at(self, index: int, time_s: float) -> Picture:
        """The frame of a moment, uint8 like the still."""
        opening = float(self._opening[min(index, len(self._opening) - 1)])
        du, dv = self._head(time_s)
        inside = self._talk(du, dv, opening, time_s)
        self._close_lids(dv, self._lids(time_s))
        moved = self._pose.displaced(self._still.image, self._window, du, dv).astype(np.float32)
        mixed = moved * (1 - inside[..., None]) + DARK_RGB * inside[..., None]
        frame = self._still.image.copy()
        self._window.of(frame)[:] = np.clip(np.rint(mixed), 0, 255).astype(np.uint8)
        return frame

    def _head(self, time_s: float) -> tuple[Grid, Grid]:
        """Turning, nodding and tilting about the neck; what is nearer to the camera moves further."""
        p, u, v = self._p, self._u, self._v
        taper, bulge = head_taper(u, v), np.maximum(1 - 0.5 * (u**2 + (0.7 * (v - 0.5)) ** 2), 0)
        tilt = np.deg2rad(p["roll_deg"]) * self._roll(time_s)
        du = p["turn"] * self._turn(time_s) * (0.4 + bulge) + tilt * (2.4 - v) * 0.6
        dv = p["nod"] * self._nod(time_s) * (0.4 + bulge) + tilt * u * 0.6
        return np.asarray(du * taper, np.float32), np.asarray(dv * taper, np.float32)

    def _talk(self, du: Grid, dv: Grid, opening: float, time_s: float) -> Grid:
        """Lower the jaw, widen the lips, in place; returns how much of each pixel is the open mouth."""
        corners = self._pose.points[3:]
        middle_u, middle_v = corners.mean(axis=0)
        drop = self._p["jaw"] * opening
        across = np.exp(-(((self._u - middle_u) / 0.62) ** 2))
        below = rise(self._v, middle_v - 0.02, middle_v + 0.1) * (1 - rise(self._v, middle_v + 0.55, middle_v + 1.15))
        dv += np.asarray(drop * across * below, np.float32)
        lips = np.exp(-((self._u - middle_u) ** 2 / 0.3 + (self._v - middle_v) ** 2 / 0.12))
        du += np.asarray(
            self._p["smile"] * self._smile(time_s) * np.tanh((self._u - middle_u) / 0.2) * lips, np.float32
        )
        half_width, half_height = 0.42 * float(np.ptp(corners[:, 0])), 0.42 * drop + 1e-3
        u = self._u - middle_u - du
        v = self._v - middle_v - half_height - 0.02 - (dv - drop * across * below)
        distance = np.asarray(np.hypot(u / half_width, v / half_height), np.float32)
        return np.asarray(min(1.0, drop / 0.08) * (1 - rise(distance, 0.75, 1.1)), np.float32)

    def _close_lids(self, dv: Grid, closed: float) -> None:
        """Pull the skin between brow and eye down over the eye, in place."""
        for eye_u, eye_v in self._pose.points[:2]:
            near = np.exp(-(((self._u - eye_u) / 0.24) ** 2) - ((self._v - eye_v) / 0.13) ** 2)
            dv += np.asarray(0.17 * self._p["lids"] * closed * near, np.float32)

    def _lids(self, time_s: float) -> float:
        since = np.abs(self._blinks - time_s)
        return float(np.clip(1 - since.min(initial=9.0) / (BLINK_S / 2), 0, 1))


def _opening(take: Take, rng: Rng) -> NDArray[np.float64]:
    """How far the mouth is open in each frame, in [0, 1]."""
    if take.has_sound:
        heard = np.clip((take.loudness - _QUIET) / (1 - _QUIET), 0, 1) ** 0.7
        return np.convolve(heard, [0.25, 0.5, 0.25], mode="same")
    times = np.arange(take.frames) / max(take.fps, 1)
    syllables = np.sin(2 * np.pi * (4.3 * times + 0.6 * np.sin(2 * np.pi * 0.7 * times) + rng.random()))
    phrases = np.sin(2 * np.pi * (0.35 * times + rng.random())) > -0.6
    return np.asarray(np.maximum(syllables, 0) * phrases, np.float64)


def _drift(rng: Rng, rate_hz: float) -> Track:
    """A slow movement between -1 and 1."""
    phases, rates = rng.random(3), rate_hz * np.array([1.0, 1.7, 2.9]) * rng.uniform(0.8, 1.2, 3)
    shares = np.array([0.55, 0.3, 0.15])
    return lambda time_s: float(shares @ np.sin(2 * np.pi * (rates * time_s + phases)))


def _blinks(duration_s: float, every_s: float, rng: Rng) -> NDArray[np.float64]:
    gaps = every_s * rng.uniform(0.5, 1.5, max(int(2 * duration_s / every_s) + 2, 2))
    return np.asarray(np.cumsum(gaps) - gaps[0] / 2, np.float64)


REANIMATION = Recipe(
    name="reanimation",
    version=1,
    summary="one still of the clip, made to talk, blink and move its head by warping",
    fakes=frozenset({"visual", "sync"}),
    needs=frozenset({Need.FACE}),
    draw=_draw,
    look=_look,
)
