"""A face's own coordinates, from five landmarks: where its parts are, and smooth fields over it that end at its rim.

u runs from the left eye to the right one in the picture, v from the eyes to the chin; both are in distances between
the eyes of an upright frontal face, from the middle between them.
"""

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from clipwarden.models.training.forge.recipe import Picture, Points

Grid = NDArray[np.float32]

MEAN_FACE: Final = np.array([(-0.5, 0.0), (0.5, 0.0), (0.0, 0.6), (-0.4, 1.12), (0.4, 1.12)])
"""Eyes, nose and mouth corners."""
OVAL_MIDDLE: Final = (0.0, 0.48)
OVAL_AXES: Final = (1.02, 1.36)
HEAD_REACH: Final = 1.75
"""How far a field over the whole head reaches, in ovals."""


@dataclass(frozen=True, slots=True)
class Window:
    """Part of a frame, in whole pixels, inside it."""

    left: int
    top: int
    right: int
    bottom: int

    def of(self, image: Picture) -> Picture:
        """View of these pixels."""
        return image[self.top : self.bottom, self.left : self.right]


@dataclass(frozen=True, slots=True)
class Pose:
    """Where a face is: u and v of a pixel are `inverse` times its x, y, 1; points: (5, 2) the landmarks as u, v."""

    matrix: Points
    inverse: Points
    points: Points

    @classmethod
    def of(cls, landmarks: Points) -> "Pose":
        """The similarity that brings the mean face closest to these landmarks (5, 2)."""
        matrix = similarity(MEAN_FACE, landmarks)
        inverse = np.asarray(cv2.invertAffineTransform(matrix), np.float64)
        return cls(matrix, inverse, landmarks @ inverse[:, :2].T + inverse[:, 2])

    @property
    def scale_px(self) -> float:
        """Pixels of one unit."""
        return float(np.hypot(self.matrix[0, 0], self.matrix[1, 0]))

    def window(self, shape: tuple[int, ...], reach: float) -> Window:
        """The part of a frame (H, W, …) that holds the oval, `reach` times as large."""
        turn = np.linspace(0, 2 * np.pi, 64, endpoint=False)
        rim = np.column_stack([np.cos(turn), np.sin(turn)]) * OVAL_AXES * np.array(reach) + OVAL_MIDDLE
        rim = rim @ self.matrix[:, :2].T + self.matrix[:, 2]
        low = np.clip(np.floor(rim.min(axis=0)).astype(int) - 1, 0, None)
        high = np.ceil(rim.max(axis=0)).astype(int) + 2
        left, top = int(low[0]), int(low[1])
        return Window(left, top, max(min(int(high[0]), shape[1]), left), max(min(int(high[1]), shape[0]), top))

    def grid(self, window: Window) -> tuple[Grid, Grid]:
        """The u and v of each pixel of a window, float32 (H, W)."""
        x = np.arange(window.left, window.right, dtype=np.float64)[None, :]
        y = np.arange(window.top, window.bottom, dtype=np.float64)[:, None]
        u, v = (row[0] * x + row[1] * y + row[2] for row in self.inverse)
        return u.astype(np.float32), v.astype(np.float32)

    def displaced(self, picture: Picture, window: Window, du: Grid, dv: Grid) -> Picture:
        """Pixels of a window, each taken from where it lies less (du, dv); outside the picture its edge."""
        x, y = np.meshgrid(np.arange(window.left, window.right), np.arange(window.top, window.bottom))
        moved_x = x - (self.matrix[0, 0] * du + self.matrix[0, 1] * dv)
        moved_y = y - (self.matrix[1, 0] * du + self.matrix[1, 1] * dv)
        return np.asarray(
            cv2.remap(
                picture,
                moved_x.astype(np.float32),
                moved_y.astype(np.float32),
                cv2.INTER_CUBIC,
                borderMode=cv2.BORDER_REPLICATE,
            ),
            np.uint8,
        )


def similarity(source: Points, target: Points) -> Points:
    """The rotation, scale and shift (2, 3) that takes points to others with the least squared error (Umeyama 1991)."""
    middle, goal = source.mean(axis=0), target.mean(axis=0)
    a, b = source - middle, target - goal
    spread = max(float((a**2).sum()), 1e-12)
    cosine, sine = float((a * b).sum()) / spread, float((a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum()) / spread
    turn = np.array([[cosine, -sine], [sine, cosine]])
    return np.column_stack([turn, goal - turn @ middle])


def rise(value: Grid, start: float, end: float) -> Grid:
    """0 before start, 1 after end, smooth between."""
    part = np.clip((value - np.float32(start)) / np.float32(end - start), 0, 1)
    return np.asarray(part * part * (3 - 2 * part), np.float32)


def oval(u: Grid, v: Grid, low: float = 0.0) -> Grid:
    """Distance from the middle of the face, 1 on its rim; with `low` (a v) the rim is there, not on the forehead."""
    distance = np.hypot((u - OVAL_MIDDLE[0]) / OVAL_AXES[0], (v - OVAL_MIDDLE[1]) / OVAL_AXES[1])
    return np.asarray(np.maximum(distance, (low - v) * 2 + 1) if low else distance, np.float32)


def face_mask(pose: Pose, window: Window, size: float, soft: float) -> Grid:
    """float32 (H, W): 1 on the face from brow to chin, 0 outside an oval `size` as large; `soft` of it is between."""
    u, v = pose.grid(window)
    return np.asarray(1 - rise(oval(u, v, low=-0.75), size - soft, size), np.float32)


def head_taper(u: Grid, v: Grid) -> Grid:
    """1 on the face, 0 from HEAD_REACH ovals on: what a movement of the head is multiplied by."""
    return np.asarray(1 - rise(oval(u, v), 0.95, HEAD_REACH), np.float32)


def cut_out(image: Picture, landmarks: Points, reach: float = 2.0) -> tuple[Picture, Points]:
    """A copy of a face's surroundings and the landmarks in it."""
    window = Pose.of(landmarks).window(image.shape, reach)
    return window.of(image).copy(), landmarks - (window.left, window.top)
