"""Puts one face's pixels into another picture: colours brought together, the seam feathered or solved for."""

from typing import Final

import cv2
import numpy as np

from clipwarden.models.training.forge.anatomy import Grid
from clipwarden.models.training.forge.recipe import Picture

SOLID: Final = 0.5
_LEAST_PX: Final = 12


def recoloured(picture: Picture, like: Picture, mask: Grid, share: float = 1.0) -> Picture:
    """RGB (H, W, 3) with the mean and spread of each Lab channel of `like`, both under the mask (Reinhard 2001)."""
    weight = mask / max(float(mask.sum()), 1e-6)
    lab, goal = _lab(picture), _lab(like)
    mean, aim = ((weight[..., None] * p).sum(axis=(0, 1)) for p in (lab, goal))
    spread = np.sqrt((weight[..., None] * (lab - mean) ** 2).sum(axis=(0, 1)))
    wanted = np.sqrt((weight[..., None] * (goal - aim) ** 2).sum(axis=(0, 1)))
    moved = (lab - mean) * np.clip(wanted / np.maximum(spread, 1.0), 0.5, 2.0) + aim
    mixed = lab + share * (moved - lab)
    return np.asarray(cv2.cvtColor(np.clip(np.rint(mixed), 0, 255).astype(np.uint8), cv2.COLOR_LAB2RGB), np.uint8)


def feathered(over: Picture, under: Picture, mask: Grid) -> Picture:
    """The two mixed by the mask; where it is 0, `under` unchanged."""
    part = mask[..., None]
    mixed = over.astype(np.float32) * part + under.astype(np.float32) * (1 - part)
    return np.clip(np.rint(mixed), 0, 255).astype(np.uint8)


def seamless(over: Picture, under: Picture, mask: Grid) -> Picture:
    """Poisson blending (Pérez 2003) of what is solid in the mask, its seam then feathered by the mask.

    Where the solid part is too small to solve for, it is feathered only.
    """
    solid = (mask > SOLID).astype(np.uint8)
    solid[[0, -1], :] = 0
    solid[:, [0, -1]] = 0
    left, top, width, height = cv2.boundingRect(solid)
    if min(width, height) < _LEAST_PX:
        return feathered(over, under, mask)
    middle = (left + width // 2, top + height // 2)
    solved = cv2.seamlessClone(over, under, solid * 255, middle, cv2.NORMAL_CLONE)
    return feathered(np.asarray(solved, np.uint8), under, mask)


def _lab(picture: Picture) -> Grid:
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2LAB), np.float32)
