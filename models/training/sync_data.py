"""Talking people of the video corpus in a cache: each clip's mouths and sound, as the sync towers get them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from clipwarden.models.audio.speech import speech_network
from clipwarden.models.lipsync.av_sync import MOUTHS, SOUND, AvSync
from clipwarden.models.lipsync.pairing import Moment, pair
from clipwarden.models.lipsync.towers import FRAMES
from clipwarden.models.training.run_folder import cache_name
from clipwarden.models.training.video_data import VideoClip, prepared
from clipwarden.models.visual.scores import faces_of
from clipwarden.shared.clip import Clip, Sound, View
from clipwarden.shared.errors import NotApplicable

_ROWS: Final = ("images", "frames", "times_s", "boxes", "people", "landmarks", "quality")


@dataclass(frozen=True, slots=True)
class Talk:
    """Somebody talking: all moments of a clip, one a frame, neighbours sharing frames."""

    clip: VideoClip
    moments: tuple[Moment, ...]


def talk_of(clip: VideoClip, content: Clip) -> Talk | None:
    """None if nobody is seen to speak in the clip, or too briefly."""
    try:
        view = faces_of(content.view(MOUTHS), FRAMES)
        return Talk(clip, pair(content, view, SOUND, speech_network(), apart=1).moments)
    except NotApplicable:
        return None


def shifted(content: Clip, by_s: float) -> Clip:
    """The clip with its sound later for a positive shift; what falls off one end comes in at the other."""
    rate = SOUND.sample_rate_hz
    wave = np.roll(content.sounds[rate].wave, round(by_s * rate))
    return replace(content, sounds={rate: Sound.whole(wave)})


class SyncCache:
    """One .npz per clip with sound: its view of mouths and its wave."""

    def __init__(self, data: Path, folder: Path, threads: int) -> None:
        self._data, self._folder, self._threads = data, folder, threads

    def fill(self, clips: Sequence[VideoClip]) -> Iterator[VideoClip]:
        """Read what is missing, yielding each clip when it is done."""
        missing = [c for c in clips if not self._file(c).exists()]
        yield from (c for c in clips if c not in missing)
        for clip, content in prepared(self._data, missing, AvSync.spec, self._threads):
            self._store(clip, content)
            yield clip

    def holds(self, clip: VideoClip) -> bool:
        """Whether there is anything of it: a clip that is too short for its sound to be judged is not kept."""
        return self._file(clip).exists()

    def content(self, clip: VideoClip) -> Clip:
        with np.load(self._file(clip)) as kept:
            view = View(**{name: kept[name] for name in _ROWS})
            wave, seconds = kept["wave"], float(kept["seconds"])
        return Clip({MOUTHS.key: view}, {SOUND.sample_rate_hz: Sound.whole(wave)}, seconds)

    def _store(self, clip: VideoClip, content: Clip) -> None:
        view, sound = content.view(MOUTHS), content.sounds[SOUND.sample_rate_hz]
        part = self._file(clip).with_suffix(".part.npz")
        rows = {name: getattr(view, name) for name in _ROWS}
        np.savez(part, wave=sound.wave, seconds=np.float64(content.duration_s), **rows)
        part.replace(self._file(clip))

    def _file(self, clip: VideoClip) -> Path:
        return self._folder / f"{cache_name(clip.path)}.npz"
