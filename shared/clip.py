"""A decoded clip as the detectors see it: arrays only, checked when built, no input or output."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from clipwarden.shared.contracts import FrameNeed


@dataclass(frozen=True, slots=True)
class View:
    """Pictures of one kind, in time order.

    images: uint8 (N, S, S, 3) RGB; times_s: float64 (N,) presentation times; boxes: float32 (N, 4) x1 y1 x2 y2 in
    pixels of the displayed frame (the whole frame for a "frame" view). N may be less than asked, or 0: frames
    without a face have no row in a face view.
    """

    images: NDArray[np.uint8]
    times_s: NDArray[np.float64]
    boxes: NDArray[np.float32]

    def __post_init__(self) -> None:
        n = len(self.images)
        if self.images.dtype != np.uint8 or self.images.ndim != 4 or self.images.shape[3] != 3:
            raise ValueError(f"images must be uint8 (N, S, S, 3), got {self.images.dtype} {self.images.shape}")
        if self.times_s.shape != (n,) or self.boxes.shape != (n, 4):
            raise ValueError(f"{n} images need {n} times and {n} boxes")

    def __len__(self) -> int:
        return len(self.images)


_SILENCE: NDArray[np.int16] = np.zeros(0, np.int16)


@dataclass(frozen=True, slots=True)
class Clip:
    """What one branch needs of a file. wave: int16 (N,) mono, full scale ±32768; empty if there is no sound."""

    views: Mapping[str, View] = field(default_factory=dict)
    wave: NDArray[np.int16] = field(default_factory=lambda: _SILENCE)
    sample_rate_hz: int = 16000
    duration_s: float = 0.0

    def __post_init__(self) -> None:
        if self.wave.dtype != np.int16 or self.wave.ndim != 1:
            raise ValueError(f"wave must be int16 (N,), got {self.wave.dtype} {self.wave.shape}")

    def view(self, need: FrameNeed) -> View:
        """The pictures prepared for this need. KeyError if the clip was not prepared for it."""
        return self.views[need.key]

    def audio(self, seconds: float) -> NDArray[np.float32]:
        """float32 (N,) mono in [-1, 1), at most `seconds` from the start."""
        return self.wave[: round(seconds * self.sample_rate_hz)].astype(np.float32) / 32768.0
