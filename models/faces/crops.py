"""The squares that a detector sees of a person: the face with its surroundings, the mouth."""

import numpy as np
from numpy.typing import NDArray

from clipwarden.models.faces.boxes import Floats
from clipwarden.models.faces.cascade import Face
from clipwarden.models.kernels import resize
from clipwarden.shared.contracts import Kernel

Picture = NDArray[np.uint8]


def crop(image: Picture, box: Floats, size_px: int, margin: float, kernel: Kernel = Kernel.CV2_AREA) -> Picture:
    """Cut the square around `box` as (size_px, size_px, 3), widened by `margin` of its side in all.

    Outside the picture the edge is repeated. Keeps the colour order.
    """
    x1, y1, x2, y2 = (float(v) for v in box)
    side = max(1, round(max(x2 - x1, y2 - y1) * (1 + margin)))
    return resize(_square(image, x1 + x2, y1 + y2, side), size_px, kernel)


def mouth_crop(image: Picture, face: Face, size_px: int, margin: float, kernel: Kernel = Kernel.CV2_AREA) -> Picture:
    """Cut the upright square about the middle of the mouth, as wide as the face times `margin`; else as `crop`."""
    left, right = face.landmarks[3].tolist(), face.landmarks[4].tolist()
    side = max(1, round(float(face.box[2] - face.box[0]) * margin))
    return resize(_square(image, left[0] + right[0], left[1] + right[1], side), size_px, kernel)


def _square(image: Picture, twice_x: float, twice_y: float, side: int) -> Picture:
    """The square of `side` pixels whose centre is given twofold."""
    height, width = image.shape[:2]
    left, top = round((twice_x - side) / 2), round((twice_y - side) / 2)
    x = np.clip([left, left + side], 0, width)
    y = np.clip([top, top + side], 0, height)
    if x[0] == left and x[1] == left + side and y[0] == top and y[1] == top + side:
        return image[top : top + side, left : left + side]
    columns = np.clip(left + np.arange(side), 0, width - 1)
    rows = np.clip(top + np.arange(side), 0, height - 1)
    return np.ascontiguousarray(image[rows][:, columns])
