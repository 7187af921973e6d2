"""What one pass over a file yields: arrays only."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE_HZ = 16_000


@dataclass(frozen=True, slots=True)
class Decoded:
    """The planned frames and the sound of a file, on one clock that starts with the first of picture or
    sound.

    frames: uint8 (H, W, 3) RGB each, turned as displayed, possibly scaled down; frame_indices: int64 (N,),
    the decoded frames in display order; times_s: float64 (N,). wave: int16 (M,) mono at 16 kHz, full scale
    ±32768, sample 0 at time 0. Planned indices that the file does not reach are absent.
    """

    frames: tuple[NDArray[np.uint8], ...]
    frame_indices: NDArray[np.int64]
    times_s: NDArray[np.float64]
    wave: NDArray[np.int16]
