"""Clips read through the fence as often as needed: once to learn what is in them, then frame by frame."""

from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from clipwarden.models.faces import FaceDetector, FaceTracker, Tracked
from clipwarden.models.training.forge.anatomy import cut_out
from clipwarden.models.training.forge.recipe import SMALLEST_FACE_PX, Moment, Picture, Points, Portrait, Take, Wave
from clipwarden.models.weights import file_digest
from clipwarden.shared.contracts import FrameNeed, MediaProbe, SamplingPlan, SoundPlan, ViewPlan
from clipwarden.shared.media.decoded import Shot
from clipwarden.shared.media.fence import Fence
from clipwarden.shared.media.limits import MediaLimits

LIMITS: Final = MediaLimits(max_side_px=1280)
"""Larger pictures are reduced, those of both labels alike."""
TRACK_EVERY: Final = 2
PORTRAITS: Final = 24
STILL_FPS: Final = 25
STILL_S: Final = 4.0

_RATES_HZ: Final = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
_GAP_S: Final = 0.4
_SMOOTH_FRAMES: Final = 1.5
_STILLS: Final = 8
_EVERY_FRAME: Final = FrameNeed(view="frame", count=1, size_px=1)


@dataclass(frozen=True, slots=True)
class Footage:
    """A clip that was looked through. points: float64 (N, 5, 2), not a number where no face was seen."""

    path: Path
    probe: MediaProbe
    take: Take
    points: Points
    seen: int
    """Frames of the file that are used."""

    def moments(self, fence: Fence) -> Generator[Moment, None, None]:
        """Its frames in display order; a picture alone is shown again and again. Valid until the next is asked for."""
        if not self.probe.has_video:
            return
        if self.seen == 1:
            yield from self._held(fence)
            return
        with fence.open(self.path) as media:
            for shot in media.read(_plan(self.seen, 0, 0.0)):
                yield Moment(shot.index, shot.time_s, shot.image, self._points_in(shot))

    def _points_in(self, shot: Shot) -> Points | None:
        """The landmarks, if a face was seen and its middle is in the picture."""
        points = self.points[shot.index]
        middle, size = points.mean(axis=0), shot.image.shape[1::-1]
        return points if bool(np.all((middle >= 0) & (middle < size))) else None

    def _held(self, fence: Fence) -> Iterator[Moment]:
        with fence.open(self.path) as media:
            image, points = next((s.image.copy(), self._points_in(s)) for s in media.read(_plan(1, 0, 0.0)))
        for k in range(self.take.frames):
            yield Moment(k, k / STILL_FPS, image, points)


def look_through(fence: Fence, path: Path, faces: FaceDetector, seconds: float) -> Footage:
    """Read the first `seconds` of a clip. Raises MediaError if it cannot be read, OSError if it is not there."""
    with fence.open(path) as media:
        probe = media.probe
        rate_hz = next((rate for rate in _RATES_HZ if rate >= probe.sample_rate_hz), _RATES_HZ[-1])
        frames = max(min(probe.frames, int(np.ceil(seconds * probe.fps)) or 1), 1) if probe.has_video else 0
        watcher = _Watcher(faces, frames)
        for shot in media.read(_plan(frames, rate_hz, min(seconds, probe.duration_s) if probe.has_audio else 0.0)):
            watcher.see(shot)
        sound = media.sounds.get(rate_hz)
    wave = np.zeros(0, np.float32) if sound is None else np.asarray(sound.wave / np.float32(32768), np.float32)
    points = watcher.path(probe.fps)
    count, fps = (watcher.frames, probe.fps) if watcher.frames > 1 else (_held_frames(probe, wave, rate_hz), STILL_FPS)
    take = Take(
        digest=file_digest(path),
        frames=count,
        fps=fps,
        width=watcher.width,
        height=watcher.height,
        wave=wave,
        rate_hz=rate_hz,
        moving=watcher.frames > 1,
    )
    still, portraits = watcher.kept(take.loudness)
    take = replace(take, still=still, portraits=portraits)
    return Footage(path, probe, take, points, watcher.frames)


def _held_frames(probe: MediaProbe, wave: Wave, rate_hz: int) -> int:
    return round((len(wave) / rate_hz or STILL_S) * STILL_FPS) if probe.has_video else 0


def _plan(frames: int, rate_hz: int, seconds: float) -> SamplingPlan:
    views = (ViewPlan(need=_EVERY_FRAME, frame_indices=tuple(range(frames))),) if frames else ()
    sounds = (SoundPlan(sample_rate_hz=rate_hz, spans=((0.0, seconds),)),) if seconds else ()
    return SamplingPlan(views=views, sounds=sounds)


@dataclass(slots=True)
class _Still:
    """A whole frame; score: side of its face in pixels times frontality."""

    score: float
    index: int
    points: Points
    image: Picture | None = None


class _Watcher:
    """Follows faces through the frames and keeps portraits of who is most prominent."""

    def __init__(self, faces: FaceDetector, frames: int) -> None:
        self._tracker = FaceTracker(faces)
        self._planned = frames
        self._points: dict[int, dict[int, Points]] = {}
        self._stills: dict[int, dict[int, _Still]] = {}
        self._portraits: dict[int, list[Portrait]] = {}
        self._wanted = frozenset(np.linspace(0, max(frames - 1, 0), PORTRAITS).astype(int) // TRACK_EVERY * TRACK_EVERY)
        self.frames = self.width = self.height = 0

    def see(self, shot: Shot) -> None:
        """Take the next frame."""
        self.frames = shot.index + 1
        self.height, self.width = shot.image.shape[:2]
        if shot.index % TRACK_EVERY and shot.index != self._planned - 1:
            return
        seen = [one for one in self._tracker.see(shot.index, shot.time_s, shot.image) if _large(one)]
        for one in seen:
            self._points.setdefault(one.person, {})[shot.index] = one.face.landmarks.astype(np.float64)
        if seen:
            self._keep(seen[0], shot)

    def _keep(self, one: Tracked, shot: Shot) -> None:
        points = one.face.landmarks.astype(np.float64)
        still = _Still(float(one.quality[2] * one.quality[0]), shot.index, points)
        part = shot.index * _STILLS // max(self._planned, 1)
        stills = self._stills.setdefault(one.person, {})
        if part not in stills or still.score > stills[part].score:
            still.image = shot.image.copy()
            stills[part] = still
        if shot.index in self._wanted:
            self._portraits.setdefault(one.person, []).append(Portrait(*cut_out(shot.image, points)))

    def _first(self) -> int | None:
        """Who is most prominent and large enough."""
        return min(self._stills, key=lambda person: self._tracker.ranking()[person], default=None)

    def path(self, fps: float) -> Points:
        """Landmarks of the most prominent person by frame: short gaps bridged, jitter smoothed; (frames, 5, 2)."""
        first = self._first()
        found = self._points[first] if first is not None else {}
        path = np.full((self.frames, 5, 2), np.nan)
        at = np.array(sorted(found), np.int64)
        for run in np.split(at, np.flatnonzero(np.diff(at) > max(_GAP_S * fps, TRACK_EVERY)) + 1):
            if len(run):
                path[run[0] : run[-1] + 1] = _smooth(run, np.stack([found[int(k)] for k in run]))
        return path

    def kept(self, loudness: NDArray[np.float64]) -> tuple[Portrait | None, tuple[Portrait, ...]]:
        """The whole frame with the best face, and portraits over the clip; at least one if there is any face.

        Of faces as large and frontal as each other that is better which says least, for its mouth is closed.
        """
        first = self._first()
        if first is None:
            return None, ()
        best = max(
            self._stills[first].values(), key=lambda s: s.score * (1.2 - loudness[min(s.index, len(loudness) - 1)])
        )
        assert best.image is not None
        still = Portrait(best.image, best.points)
        portraits = self._portraits.get(first) or [Portrait(*cut_out(still.image, still.points))]
        return still, tuple(portraits)


def _large(one: Tracked) -> bool:
    return float(one.quality[0]) >= SMALLEST_FACE_PX


def _smooth(at: NDArray[np.int64], points: Points) -> Points:
    """Every frame from the first to the last of `at`, by straight lines, then a Gaussian over time."""
    every = np.arange(at[0], at[-1] + 1)
    flat = points.reshape(len(points), -1)
    filled = np.column_stack([np.interp(every, at, column) for column in flat.T])
    smooth = gaussian_filter1d(filled, _SMOOTH_FRAMES, axis=0, mode="nearest")
    return np.asarray(smooth, np.float64).reshape(-1, 5, 2)
