"""What platforms do to pictures: scaling, JPEG, blur. Applied to both labels alike, so that it tells nothing."""

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]

GRID_PX: Final = 8
KERNELS: Final = (cv2.INTER_AREA, cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_LANCZOS4)


def laundered(crop: Picture, native_px: float, rng: np.random.Generator) -> Picture:
    """A square crop as it would be had its video been scaled and compressed once more.

    `native_px` is the side that the crop had in its video: compression acts there, on a block grid at a random
    offset, and the result is scaled to the crop's size again.
    """
    size = crop.shape[0]
    side = max(round(native_px * rng.uniform(0.5, 1.0)), 32)
    small = _scaled(crop, side, int(rng.choice(KERNELS)))
    if rng.random() < 0.2:
        small = np.asarray(cv2.GaussianBlur(small, (0, 0), rng.uniform(0.4, 1.2)), np.uint8)
    coded = _jpeg(small, int(rng.integers(35, 96)), rng.integers(0, GRID_PX, 2))
    return _scaled(coded, size, cv2.INTER_AREA if side > size else cv2.INTER_LINEAR)


def _scaled(picture: Picture, side: int, kernel: int) -> Picture:
    return np.asarray(cv2.resize(picture, (side, side), interpolation=kernel), np.uint8)


def _jpeg(picture: Picture, quality: int, offset: NDArray[np.int64]) -> Picture:
    """Code and decode with the block grid moved by `offset` rows and columns."""
    top, left = (int(v) for v in offset)
    padded = cv2.copyMakeBorder(picture, top, 0, left, 0, cv2.BORDER_REPLICATE)
    written, data = cv2.imencode(".jpg", padded, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not written:
        raise ValueError("OpenCV could not write a JPEG")
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)[top:, left:]
