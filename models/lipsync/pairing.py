"""Which moments of a clip are judged for sync: five neighbouring frames of one person, and the speech about them.

Moments without speech say nothing about sync; they are named, not judged.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from clipwarden.models.audio.listening import LEAST_SPEECH, SILENCE_DBFS, level_dbfs
from clipwarden.models.audio.mel import HOP, RANGE_DB, SAMPLE_RATE_HZ, log_mel
from clipwarden.models.audio.speech import CHUNK, SpeechNetwork
from clipwarden.models.lipsync.towers import COLUMNS, FRAMES
from clipwarden.shared.clip import Clip, Excerpt, View
from clipwarden.shared.codes import SkipCode
from clipwarden.shared.contracts import AudioNeed, Gap
from clipwarden.shared.errors import NotApplicable

STEP: Final = 2  # columns from one offset to the next, 32 ms
REACH: Final = 16  # offsets to each side, half a second
OFFSETS: Final = 2 * REACH + 1
LONGEST_S: Final = 0.35
"""From the first to the last frame of a moment; at fewer than twelve frames a second lips cannot be followed."""

LEAST_MOMENTS: Final = 3
_STRETCH: Final = COLUMNS + 2 * REACH * STEP  # columns


@dataclass(frozen=True, slots=True)
class Moment:
    """mouths: uint8 (5, S, S, 3) RGB; sound: float32 (80, 77) in [-1, 1], the middle column at the middle frame;
    known: bool (33,), which offsets lie within the sound; start_s, end_s: the frames' times.
    """

    mouths: NDArray[np.uint8]
    sound: NDArray[np.float32]
    known: NDArray[np.bool_]
    start_s: float
    end_s: float

    def candidates(self) -> NDArray[np.float32]:
        """The sound at each offset, (33, 80, 13), from half a second early to half a second late."""
        windows = np.lib.stride_tricks.sliding_window_view(self.sound, COLUMNS, axis=1)[:, ::STEP]
        return np.ascontiguousarray(windows.transpose(1, 0, 2))


@dataclass(frozen=True, slots=True)
class Paired:
    """The moments to judge, at least three, and what was left out."""

    moments: tuple[Moment, ...]
    gaps: tuple[Gap, ...]


def pair(clip: Clip, view: View, need: AudioNeed, network: SpeechNetwork, apart: int = FRAMES) -> Paired:
    """Choose the moments of a view of mouths, `apart` frames from one to the next; by default none shares a frame.

    Raises NotApplicable without sound, if nobody speaks in sight, or if fewer than three moments are left.
    """
    excerpts = [(excerpt, network.hears(excerpt.samples)) for excerpt in clip.excerpts(need)]
    if not excerpts:
        raise NotApplicable(SkipCode.NO_AUDIO)
    moments, gaps = [], []
    for first in _runs(view, apart):
        start_s, end_s = float(view.times_s[first]), float(view.times_s[first + FRAMES - 1])
        found = _about(excerpts, (start_s + end_s) / 2)
        if isinstance(found, SkipCode):
            gaps.append(Gap(start_s=max(start_s, 0.0), end_s=max(end_s, 0.0), code=found))
        else:
            moments.append(Moment(view.images[first : first + FRAMES], *found, max(start_s, 0.0), max(end_s, 0.0)))
    if len(moments) < LEAST_MOMENTS:
        codes = {gap.code for gap in gaps}
        order = (SkipCode.NO_SPEECH, SkipCode.SILENT_AUDIO, SkipCode.AUDIO_TOO_SHORT)
        raise NotApplicable(next((code for code in order if code in codes), SkipCode.TOO_FEW_FRAMES))
    return Paired(tuple(moments), tuple(gaps))


def _runs(view: View, apart: int) -> Iterator[int]:
    """First rows of five neighbouring frames of one person, close enough in time, `apart` rows or more apart."""
    start = 0
    for row in range(len(view)):
        fresh = view.frames[row] != view.frames[max(row - 1, 0)] + 1 or view.people[row] != view.people[start]
        start = row if fresh else start
        if row - start == FRAMES - 1:
            if view.times_s[row] - view.times_s[start] <= LONGEST_S:
                yield start
            start += apart


def _about(
    excerpts: list[tuple[Excerpt, NDArray[np.bool_]]], time_s: float
) -> tuple[NDArray[np.float32], NDArray[np.bool_]] | SkipCode:
    """The sound about a time and which offsets it knows, or why there is nothing to judge."""
    for excerpt, speech in excerpts:
        middle = round((time_s - excerpt.start_s) * SAMPLE_RATE_HZ)
        half = COLUMNS // 2 * HOP
        if middle - half < 0 or middle + half > len(excerpt.samples):
            continue
        near = excerpt.samples[middle - half : middle + half]
        if level_dbfs(near) < SILENCE_DBFS:
            return SkipCode.SILENT_AUDIO
        if speech[(middle - half) // CHUNK : -(-(middle + half) // CHUNK)].mean() < LEAST_SPEECH:
            return SkipCode.NO_SPEECH
        return _stretch(excerpt.samples, middle)
    return SkipCode.AUDIO_TOO_SHORT


def _stretch(wave: NDArray[np.float32], middle: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    first = middle - _STRETCH // 2 * HOP
    last = first + (_STRETCH - 1) * HOP
    before, after = max(-first, 0), max(last - len(wave), 0)
    cut = np.pad(wave[max(first, 0) : last], (before, after))
    starts = first + np.arange(OFFSETS) * STEP * HOP
    known = (starts >= 0) & (starts + (COLUMNS - 1) * HOP <= len(wave))
    return log_mel(cut) * np.float32(2 / RANGE_DB) + np.float32(1), known
