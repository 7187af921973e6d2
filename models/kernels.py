"""Pictures brought to the side that a network was trained on, by the kernel of the library it was trained with."""

import cv2
import numpy as np
from numpy.typing import NDArray

from clipwarden.shared.contracts import Kernel

Picture = NDArray[np.uint8]

_TORCH_MODES = {Kernel.PIL_BILINEAR: "bilinear", Kernel.PIL_BICUBIC: "bicubic"}
_PILLOW_UNIT = 2.0**22  # of its fixed-point weights


def resize(image: Picture, size_px: int, kernel: Kernel) -> Picture:
    """uint8 (H, W, 3) as a new (size_px, size_px, 3), its proportions given up; keeps the colour order.

    `cv2_*` are OpenCV's own numbers. The Pillow kernels are PyTorch's, which differ from Pillow's by at most one grey
    level and are several times as fast; they run in as many threads as PyTorch has been given.
    """
    if kernel is Kernel.CV2_AREA:
        return _by_area(image, size_px)
    if kernel is Kernel.CV2_LINEAR:
        return _by_opencv(image, size_px, size_px, cv2.INTER_LINEAR)
    if kernel is Kernel.PIL_BICUBIC and min(image.shape[:2]) < size_px:
        return _grown(image, size_px)
    return _as_pillow(image, size_px, _TORCH_MODES[kernel])


def _by_area(image: Picture, size_px: int) -> Picture:
    """Averaged in the directions that shrink; a picture with one of each is shrunk first."""
    height, width = image.shape[:2]
    if (height < size_px) != (width < size_px):
        image = _by_opencv(image, min(width, size_px), min(height, size_px), cv2.INTER_AREA)
    shrinks = height > size_px and width > size_px
    return _by_opencv(image, size_px, size_px, cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def _by_opencv(image: Picture, width: int, height: int, interpolation: int) -> Picture:
    return np.asarray(cv2.resize(image, (width, height), interpolation=interpolation), np.uint8)


def _as_pillow(image: Picture, size_px: int, mode: str) -> Picture:
    import torch
    from torch.nn import functional as F

    shared = image if image.flags.writeable else image.copy()  # PyTorch warns of memory that it must not write to
    planes = torch.from_numpy(shared).permute(2, 0, 1)[None]
    scaled = F.interpolate(planes, size=(size_px, size_px), mode=mode, antialias=True)
    return np.ascontiguousarray(scaled[0].permute(1, 2, 0).numpy())


def _grown(image: Picture, size_px: int) -> Picture:
    """Bicubic in Pillow's own arithmetic: where it grows, PyTorch's short integers are up to two grey levels off."""
    height, width = image.shape[:2]
    across = np.einsum("ow,hwc->hoc", _bicubic_weights(width, size_px), image.astype(np.float64), optimize=True)
    down = np.einsum("oh,hwc->owc", _bicubic_weights(height, size_px), _levels(across), optimize=True)
    return _levels(down).astype(np.uint8)


def _bicubic_weights(length: int, size_px: int) -> NDArray[np.float64]:
    """Shares of `length` pixels in each of `size_px`, (size_px, length): Keys' cubic with a = -1/2, as in Pillow."""
    step = length / size_px
    centres = (np.arange(size_px) + 0.5) * step
    x = np.abs((np.arange(length) + 0.5 - centres[:, None]) / max(step, 1.0))
    near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    weights = np.where(x < 1, near, np.where(x < 2, far, 0.0))
    shares = weights / weights.sum(axis=1, keepdims=True)
    return np.asarray(np.round(shares * _PILLOW_UNIT) / _PILLOW_UNIT, np.float64)


def _levels(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.clip(np.floor(values + 0.5), 0, 255), np.float64)
