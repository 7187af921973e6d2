"""What one pass over a file yields: pictures one after the other, then the sound."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Shot:
    """One planned frame. image: uint8 (H, W, 3) RGB, turned as displayed, H and W at most the limit's `max_side_px`.

    `index` counts decoded frames in display order; `time_s` is on the clip's clock, which starts with the first of
    picture or sound. The image is only valid until the next shot is asked for.
    """

    index: int
    time_s: float
    image: NDArray[np.uint8]
