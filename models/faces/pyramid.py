"""One picture at the sizes that the face networks look at, made at a cost that hardly grows with its resolution."""

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from clipwarden.models.faces.boxes import Floats

Picture = NDArray[np.uint8]

FAITHFUL: Final = 8.0
QUICK: Final = 2.0
_SMALLEST_PX: Final = 12


class Pyramid:
    """A picture and its halvings, each made when it is first wanted. Valid as long as the picture's memory is."""

    def __init__(self, image: Picture, finer: float = QUICK) -> None:
        """`image` is uint8 (H, W, 3) RGB; what is scaled down comes from a halving at least `finer` times as large.

        QUICK finds the same faces; FAITHFUL also puts their boxes where an area average of the picture itself would.
        """
        self._halvings, self._finer = [image], finer
        self.height, self.width = image.shape[:2]

    def level(self, scale: float) -> Picture:
        """The whole picture scaled down by area average."""
        size = (int(np.ceil(self.width * scale)), int(np.ceil(self.height * scale)))
        return _scaled(self._halving(scale)[0], size)

    def window(self, box: Floats, size_px: int) -> Floats:
        """A window as (size_px, size_px, 3), black outside; its corners count from 1, the last pixel included.

        Grey levels are not rounded: rounding alone moves one box in thirty by three pixels.
        """
        start, end = box[:2] - 1, box[2:4]
        picture, scale = self._halving(size_px / max(float((end - start).max()), 1.0))
        left, top = (int(v) for v in np.round(start * scale))
        right, bottom = (int(v) for v in np.round(end * scale))
        part = _cut(picture, left, top, max(right, left + 1), max(bottom, top + 1)).astype(np.float32)
        return np.asarray(cv2.resize(part, (size_px, size_px), interpolation=cv2.INTER_AREA), np.float32)

    def _halving(self, scale: float) -> tuple[Picture, float]:
        """The smallest halving that is fine enough for what will have `scale`, and its own scale."""
        steps = max(int(np.floor(-np.log2(scale * self._finer))), 0)
        while len(self._halvings) <= steps and min(self._halvings[-1].shape[:2]) >= 2 * _SMALLEST_PX:
            last = self._halvings[-1]
            height, width = last.shape[0] // 2, last.shape[1] // 2
            self._halvings.append(_scaled(last[: 2 * height, : 2 * width], (width, height)))
        steps = min(steps, len(self._halvings) - 1)
        return self._halvings[steps], 0.5**steps


def _scaled(picture: Picture, size: tuple[int, int]) -> Picture:
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)


def _cut(picture: Picture, left: int, top: int, right: int, bottom: int) -> Picture:
    """Part of a picture, black outside of it."""
    height, width = picture.shape[:2]
    if left >= 0 and top >= 0 and right <= width and bottom <= height:
        return picture[top:bottom, left:right]
    padded = np.zeros((bottom - top, right - left, 3), np.uint8)
    inside = picture[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
    y, x = max(-top, 0), max(-left, 0)
    padded[y : y + inside.shape[0], x : x + inside.shape[1]] = inside
    return padded
