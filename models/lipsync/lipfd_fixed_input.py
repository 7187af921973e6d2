"""LipFD's input put right, profile `fixed`: five real frames, the face and the lips where they are, sound in its time.

A window is judged if one and the same person's face is in all five of its frames, and if its sound is there; any other
is a gap. As in the paper, sound lies in false colours above the five frames in a row.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from clipwarden.models.audio.listening import LEAST_SPEECH, SILENCE_DBFS, level_dbfs
from clipwarden.models.audio.speech import SpeechNetwork
from clipwarden.models.kernels import resize
from clipwarden.models.lipsync.lipfd_input import CROP_PX, HOP, JOINED_PX, SIDE_PX, Picture, joined, mel_picture
from clipwarden.models.lipsync.lipfd_windows import FRAMES, WINDOWS, span, window_rows
from clipwarden.models.visual.scores import faces_of, frames_of
from clipwarden.shared.clip import Clip, Excerpt, View
from clipwarden.shared.codes import SkipCode
from clipwarden.shared.contracts import AudioNeed, FrameNeed, Gap, Kernel, Needs, Span
from clipwarden.shared.errors import NotApplicable

WHOLE: Final = FrameNeed(view="frame", count=WINDOWS, consecutive=FRAMES, size_px=SIDE_PX, kernel=Kernel.CV2_AREA)
FACE: Final = FrameNeed(view="face", count=WINDOWS, consecutive=FRAMES, size_px=CROP_PX, margin=0.3)
LIPS: Final = FrameNeed(view="mouth", count=WINDOWS, consecutive=FRAMES, size_px=CROP_PX, margin=0.6)
SOUND: Final = AudioNeed(sample_rate_hz=16000, seconds=300, min_seconds=0.5, window_s=300 / WINDOWS)
"""As many stretches as windows, both spread over the clip, so that each window of a long clip has sound about it."""

NEEDS: Final = Needs(frames=WHOLE, more=(FACE, LIPS), audio=SOUND)
_COLUMNS_PER_S: Final = SOUND.sample_rate_hz / HOP
_CODES: Final = (SkipCode.FACE_TOO_SMALL, SkipCode.NO_FACE, SkipCode.AUDIO_TOO_SHORT)


@dataclass(frozen=True, slots=True)
class LipFdWindows:
    """pictures: uint8 (K, 1120, 1120, 3) RGB; crops: uint8 (F, 3, 224, 224, 3) RGB, whole frame, face and lips of each
    frame; rows: int64 (K, 5), which crops a window has; places: when each begins and ends; gaps: what was left out.
    """

    pictures: Picture
    crops: Picture
    rows: NDArray[np.int64]
    places: tuple[Span, ...] = ()
    gaps: tuple[Gap, ...] = ()


def windows_of(clip: Clip, count: int, speech: SpeechNetwork) -> LipFdWindows:
    """At most `count` windows, each frame's crops once.

    Raises NotApplicable without sound, in silence, if nobody speaks, with fewer than five frames, or without a face or
    sound in any window.
    """
    whole, sight = frames_of(clip.view(WHOLE), FRAMES), _Sight(clip)
    stretches = _heard(clip, speech)
    kept: list[tuple[Span, NDArray[np.int64], Picture]] = []
    gaps = []
    for row in window_rows(whole, count):
        place, shown = span(whole, row), whole.images[row : row + FRAMES]
        rows, sound = sight.rows(whole.frames[row : row + FRAMES]), _sound_at(stretches, place)
        if isinstance(rows, SkipCode):
            gaps.append(Gap(start_s=place[0], end_s=place[1], code=rows))
        elif sound is None:
            gaps.append(Gap(start_s=place[0], end_s=place[1], code=SkipCode.AUDIO_TOO_SHORT))
        else:
            sight.look(rows, shown)
            kept.append((place, rows, resize(joined(sound, shown), JOINED_PX, Kernel.CV2_AREA)))
    if not kept:
        codes = {gap.code for gap in gaps}
        raise NotApplicable(next(code for code in _CODES if code in codes))
    places, rows_of, pictures = zip(*kept, strict=True)
    crops, renamed = sight.crops(np.stack(rows_of))
    return LipFdWindows(np.stack(pictures), crops, renamed, places, tuple(gaps))


class _Sight:
    """Faces and lips by frame, and the crops of the frames that were looked at."""

    def __init__(self, clip: Clip) -> None:
        self._seen, self._lips = clip.view(FACE), clip.view(LIPS)
        self._faces = faces_of(self._seen)
        self._crops: dict[int, Picture] = {}

    def rows(self, frames: NDArray[np.int64]) -> NDArray[np.int64] | SkipCode:
        """Rows of the large enough faces of one person in all these frames, or why there are none."""
        rows = _found(self._faces, frames)
        if rows is not None and len(set(self._faces.people[rows].tolist())) == 1:
            return rows
        small = rows is None and _found(self._seen, frames) is not None
        return SkipCode.FACE_TOO_SMALL if small else SkipCode.NO_FACE

    def look(self, rows: NDArray[np.int64], shown: Picture) -> None:
        """Take the crops of these faces' frames, if they have not been taken yet."""
        for row, image in zip(rows.tolist(), shown, strict=True):
            if row not in self._crops:
                lips = int(np.searchsorted(self._lips.frames, self._faces.frames[row]))
                whole = resize(image, CROP_PX, Kernel.CV2_AREA)
                self._crops[row] = np.stack([whole, self._faces.images[row], self._lips.images[lips]])

    def crops(self, rows: NDArray[np.int64]) -> tuple[Picture, NDArray[np.int64]]:
        """Everything taken, by frame, and where in it the rows are now."""
        taken = sorted(self._crops)
        return np.stack([self._crops[row] for row in taken]), np.searchsorted(taken, rows)


def _found(view: View, frames: NDArray[np.int64]) -> NDArray[np.int64] | None:
    """The rows of these frames, if the view has them all; it has one row a frame."""
    rows = np.searchsorted(view.frames, frames)
    return rows if np.array_equal(view.frames[rows[rows < len(view)]], frames) else None


def _heard(clip: Clip, speech: SpeechNetwork) -> list[tuple[Excerpt, Picture]]:
    """What is heard of the clip, and each stretch of it as a picture."""
    excerpts = clip.excerpts(SOUND)
    if not excerpts:
        raise NotApplicable(SkipCode.NO_AUDIO)
    long_enough = [e for e in excerpts if len(e.samples) >= SOUND.min_seconds * SOUND.sample_rate_hz]
    if not long_enough:
        raise NotApplicable(SkipCode.AUDIO_TOO_SHORT)
    if all(level_dbfs(excerpt.samples) < SILENCE_DBFS for excerpt in long_enough):
        raise NotApplicable(SkipCode.SILENT_AUDIO)
    if np.concatenate([speech.hears(excerpt.samples) for excerpt in long_enough]).mean() < LEAST_SPEECH:
        raise NotApplicable(SkipCode.NO_SPEECH)
    return [(excerpt, mel_picture(excerpt.samples, SOUND.sample_rate_hz)) for excerpt in long_enough]


def _sound_at(stretches: list[tuple[Excerpt, Picture]], place: Span) -> Picture | None:
    """The columns of sound from a window's first frame to one frame beyond its last; None if it is not all there."""
    ends = place[1] + (place[1] - place[0]) / (FRAMES - 1)
    for excerpt, picture in stretches:
        first, last, beyond = (round((t - excerpt.start_s) * _COLUMNS_PER_S) for t in (*place, ends))
        if first >= 0 and last < picture.shape[1]:
            return picture[:, first : max(min(beyond, picture.shape[1]), first + 1)]
    return None
