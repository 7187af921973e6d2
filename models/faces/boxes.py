"""Arithmetic of boxes: rows of x1 y1 x2 y2, with a score and more behind them where it says so."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def area(box: Floats) -> float:
    return float(np.prod(np.maximum(box[2:4] - box[:2], 0)))


def centre(box: Floats) -> Floats:
    return np.asarray((box[:2] + box[2:4]) / 2, np.float32)


def side(box: Floats) -> float:
    """The longer one."""
    return float(max(box[2] - box[0], box[3] - box[1]))


def covered(box: Floats, other: Floats) -> float:
    """What the two share, as a fraction of the smaller."""
    shared = area(np.concatenate([np.maximum(box[:2], other[:2]), np.minimum(box[2:4], other[2:4])]))
    return shared / max(min(area(box), area(other)), 1e-6)


def suppress(rows: Floats, threshold: float, *, of_smaller: bool = False) -> Floats:
    """Keep the best of overlapping rows x1 y1 x2 y2 score …; overlap is over the union or the smaller box."""
    rows = rows[np.argsort(-rows[:, 4], kind="stable")]
    areas = (rows[:, 2] - rows[:, 0] + 1) * (rows[:, 3] - rows[:, 1] + 1)
    left, kept = np.arange(len(rows)), []
    while left.size:
        best, left = left[0], left[1:]
        kept.append(best)
        low = np.maximum(rows[best, :2], rows[left, :2])
        high = np.minimum(rows[best, 2:4], rows[left, 2:4])
        shared = np.prod(np.maximum(high - low + 1, 0), axis=1)
        whole = np.minimum(areas[best], areas[left]) if of_smaller else areas[best] + areas[left] - shared
        left = left[shared <= threshold * whole]
    return rows[kept]


def shifted(boxes: Floats, regression: Floats, inclusive: int) -> Floats:
    """Boxes (N, 5) moved by the networks' offsets, fractions of the side (plus one pixel if `inclusive`)."""
    sides = np.tile(boxes[:, 2:4] - boxes[:, :2] + inclusive, 2)
    return np.hstack([boxes[:, :4] + regression * sides, boxes[:, 4:5]])


def squared(boxes: Floats) -> Floats:
    """Boxes (N, 5) widened to squares about their centres, corners cut to whole pixels."""
    middle = (boxes[:, :2] + boxes[:, 2:4]) / 2
    longer = (boxes[:, 2:4] - boxes[:, :2]).max(axis=1, keepdims=True)
    return np.hstack([np.fix(middle - longer / 2), np.fix(middle + longer / 2), boxes[:, 4:5]])
