"""A decoded clip as the detectors see it: arrays only, checked when built, no input or output."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from clipwarden.shared.contracts import AudioNeed, FrameNeed

FULL_SCALE: Final = np.float32(32768)


@dataclass(frozen=True, slots=True)
class View:
    """Pictures of one kind, by time, then by person.

    images: uint8 (N, S, S, 3) RGB; frames: int64 (N,) indices of the decoded frames; times_s: float64 (N,) presentation
    times; boxes: float32 (N, 4) x1 y1 x2 y2 of what was looked at: the whole frame, or the face; people: int16 (N,),
    who it is, 0 the most prominent person of the clip; landmarks: float32 (N, 5, 2) eyes, nose, mouth corners, left
    first; quality: float32 (N, 3) smaller side of the face in pixels, sharpness (variance of the Laplacian of the face
    at 64 pixels), frontality in [0, 1]. Boxes and landmarks are in pixels of the displayed frame. N may be less than
    asked, or 0: frames without a face have no row in a face view. A view of frames has people, landmarks and quality of
    zero.
    """

    images: NDArray[np.uint8]
    frames: NDArray[np.int64]
    times_s: NDArray[np.float64]
    boxes: NDArray[np.float32]
    people: NDArray[np.int16]
    landmarks: NDArray[np.float32]
    quality: NDArray[np.float32]

    def __post_init__(self) -> None:
        n = len(self.images)
        if self.images.dtype != np.uint8 or self.images.ndim != 4 or self.images.shape[3] != 3:
            raise ValueError(f"images must be uint8 (N, S, S, 3), got {self.images.dtype} {self.images.shape}")
        for name, shape in _ROWS.items():
            if getattr(self, name).shape != (n, *shape):
                raise ValueError(f"{n} images need {name} of shape {(n, *shape)}, got {getattr(self, name).shape}")

    def __len__(self) -> int:
        return len(self.images)

    @classmethod
    def of(
        cls,
        images: NDArray[np.uint8],
        times_s: NDArray[np.float64],
        boxes: NDArray[np.float32] | None = None,
        **rows: NDArray[Any],
    ) -> Self:
        """A view of which only some is known: frames count from 0, boxes are whole pictures, the rest is zero."""
        n, side = len(images), images.shape[1]
        whole = np.tile(np.array([0, 0, side, side], np.float32), (n, 1))
        return cls(
            images=images,
            frames=rows.get("frames", np.arange(n, dtype=np.int64)),
            times_s=times_s,
            boxes=whole if boxes is None else boxes,
            people=rows.get("people", np.zeros(n, np.int16)),
            landmarks=rows.get("landmarks", np.zeros((n, 5, 2), np.float32)),
            quality=rows.get("quality", np.zeros((n, 3), np.float32)),
        )


_ROWS: Final[Mapping[str, tuple[int, ...]]] = {
    "frames": (),
    "times_s": (),
    "boxes": (4,),
    "people": (),
    "landmarks": (5, 2),
    "quality": (3,),
}


@dataclass(frozen=True, slots=True)
class Sound:
    """Stretches of mono sound at one rate, end to end.

    wave: int16 (N,), full scale ±32768; starts_s: float64 (K,) when each stretch starts in the clip, ascending;
    lengths: int64 (K,) samples of each, in sum N.
    """

    wave: NDArray[np.int16]
    starts_s: NDArray[np.float64]
    lengths: NDArray[np.int64]

    def __post_init__(self) -> None:
        if self.wave.dtype != np.int16 or self.wave.ndim != 1:
            raise ValueError(f"wave must be int16 (N,), got {self.wave.dtype} {self.wave.shape}")
        if self.starts_s.shape != self.lengths.shape or int(self.lengths.sum()) != len(self.wave):
            raise ValueError(f"{self.lengths.tolist()} samples do not make a wave of {len(self.wave)}")

    def __len__(self) -> int:
        return len(self.wave)

    @classmethod
    def whole(cls, wave: NDArray[np.int16]) -> Self:
        """One stretch from the start of the clip."""
        kept = min(len(wave), 1)
        return cls(wave, np.zeros(kept), np.array([len(wave)] * kept, np.int64))

    def cut(self, start_s: float, end_s: float, rate_hz: int) -> "Excerpt | None":
        """What there is between two times, from the stretch that holds its start; None if that is nothing."""
        row = int(np.searchsorted(self.starts_s, start_s + 0.5 / rate_hz, side="right")) - 1
        if row < 0:
            return None
        begin = int(self.lengths[:row].sum())
        first = max(round((start_s - float(self.starts_s[row])) * rate_hz), 0)
        last = min(first + round((end_s - start_s) * rate_hz), int(self.lengths[row]))
        if first >= last:
            return None
        samples = self.wave[begin + first : begin + last].astype(np.float32) / FULL_SCALE
        return Excerpt(float(self.starts_s[row]) + first / rate_hz, samples)


@dataclass(frozen=True, slots=True)
class Excerpt:
    """samples: float32 (N,) mono in [-1, 1), the first of them at `start_s` of the clip."""

    start_s: float
    samples: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Clip:
    """What one branch needs of a file: views by key, sounds by sample rate (none if the file has no sound)."""

    views: Mapping[str, View] = field(default_factory=dict)
    sounds: Mapping[int, Sound] = field(default_factory=dict)
    duration_s: float = 0.0

    def view(self, need: FrameNeed) -> View:
        """The pictures prepared for this need. KeyError if the clip was not prepared for it."""
        return self.views[need.key]

    def excerpts(self, need: AudioNeed) -> tuple[Excerpt, ...]:
        """The sound this need asks for, in order; shorter or fewer than planned where the sound ends early."""
        sound = self.sounds.get(need.sample_rate_hz)
        if sound is None or not len(sound):
            return ()
        length_s = max(self.duration_s, len(sound) / need.sample_rate_hz)
        found = (sound.cut(start, end, need.sample_rate_hz) for start, end in need.spans(length_s))
        return tuple(one for one in found if one is not None)
