"""How well a face can be judged: how large, how sharp and how frontal it is."""

from typing import Final

import cv2
import numpy as np

from clipwarden.models.faces.boxes import Floats
from clipwarden.models.faces.cascade import Face
from clipwarden.models.faces.pyramid import Pyramid

SHARPNESS_PX: Final = 64


def quality(pyramid: Pyramid, face: Face) -> Floats:
    """Smaller side of the box in pixels, variance of the Laplacian of the grey box at 64 px, frontality; (3,)."""
    grey = cv2.cvtColor(pyramid.window(face.box, SHARPNESS_PX), cv2.COLOR_RGB2GRAY)
    sharpness = float(cv2.Laplacian(grey, cv2.CV_32F).var())
    smaller = float(min(face.box[2] - face.box[0], face.box[3] - face.box[1]))
    return np.array([smaller, sharpness, frontality(face.landmarks)], np.float32)


def frontality(landmarks: Floats) -> float:
    """1 where the nose lies midway between eyes and mouth and on the axis of the face, 0 from where it passes either.

    In [0, 1]; the same for a face that is tilted in the plane of the picture.
    """
    points = landmarks.astype(np.float64)
    eyes, mouth = points[:2].mean(axis=0), points[3:].mean(axis=0)
    across, down = points[1] - points[0], mouth - eyes
    spans = np.column_stack([across, down])
    if abs(np.linalg.det(spans)) < 1e-6 * max(float(np.square(spans).sum()), 1e-6):
        return 0.0
    aside, along = np.linalg.solve(spans, points[2] - eyes)
    return float(max(1 - 2 * abs(aside), 0.0) * max(1 - 2 * abs(along - 0.5), 0.0))
