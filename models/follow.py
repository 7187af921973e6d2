"""Which face of each frame belongs to the same person."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from clipwarden.models.faces import Face

Box = NDArray[np.float32]
_REACH = 2.0


def follow(found: Mapping[int, Sequence[Face]]) -> dict[int, Box]:
    """The box of one person per frame, from the faces of each frame (frame index → faces).

    Starts with the largest face of the first frame that has one. In each next frame the face that overlaps
    the last box most is taken, else the one with the nearest centre if that is within two box sides; else the
    person has left (or the scene was cut) and the largest face starts anew. Frames without a face are absent.
    """
    track: dict[int, Box] = {}
    last: Box | None = None
    for index in sorted(found):
        if boxes := [face.box for face in found[index]]:
            last = _continuation(last, boxes) if last is not None else max(boxes, key=_area)
            track[index] = last
    return track


def _continuation(last: Box, boxes: Sequence[Box]) -> Box:
    best = max(boxes, key=lambda box: _overlap(last, box))
    if _overlap(last, best) > 0:
        return best
    nearest = min(boxes, key=lambda box: _distance(last, box))
    side = float(max(last[2] - last[0], last[3] - last[1]))
    return nearest if _distance(last, nearest) <= _REACH * side else max(boxes, key=_area)


def _area(box: Box) -> float:
    return float(np.prod(np.maximum(box[2:] - box[:2], 0)))


def _overlap(a: Box, b: Box) -> float:
    """Intersection over union."""
    both = _area(np.concatenate([np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])]))
    return both / max(_area(a) + _area(b) - both, 1e-6)


def _distance(a: Box, b: Box) -> float:
    return float(np.linalg.norm((a[:2] + a[2:]) / 2 - (b[:2] + b[2:]) / 2))
