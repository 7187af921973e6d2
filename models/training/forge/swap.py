"""Faces put over faces: another person's from another clip, or the clip's own, a little changed (self-blending)."""

from typing import Final

import cv2
import numpy as np
from scipy.interpolate import RBFInterpolator

from clipwarden.models.training.forge.anatomy import OVAL_AXES, OVAL_MIDDLE, Grid, Pose, Window, face_mask
from clipwarden.models.training.forge.blending import feathered, recoloured, seamless
from clipwarden.models.training.forge.recipe import (
    Edit,
    Moment,
    Need,
    Parameters,
    Picture,
    Portrait,
    Recipe,
    Rng,
    Sources,
    uniform,
)

REACH: Final = 1.15
KNOTS: Final = 12
_POSES_KEPT: Final = 0.8


def _draw_swap(rng: Rng) -> dict[str, float]:
    poisson = float(rng.random() < 0.5)
    # A solved seam spreads what it crosses, so it stays away from the hair.
    size, soft = ((0.86, 0.95), (0.06, 0.14)) if poisson else ((0.96, 1.1), (0.12, 0.3))
    return uniform(rng, size=size, soft=soft, colour=(0.75, 1.0), stiffness=(0.0, 0.05)) | {"poisson": poisson}


def _swap(sources: Sources, parameters: Parameters, _: Rng) -> Edit:
    assert sources.other is not None
    chooser = _Chooser(sources.other.portraits)

    def edit(moment: Moment) -> Picture:
        if moment.points is None:
            return moment.image
        pose = Pose.of(moment.points)
        window = pose.window(moment.image.shape, REACH)
        under = window.of(moment.image)
        over = _laid_over(chooser.nearest(pose), pose, window, parameters["stiffness"])
        return _placed(moment.image, window, _blended(over, under, pose, window, parameters))

    return edit


class _Chooser:
    """The portraits of who is put in; keeps to one until another fits the pose clearly better."""

    def __init__(self, portraits: tuple[Portrait, ...]) -> None:
        self._portraits = portraits
        self._shapes = [Pose.of(portrait.points).points for portrait in portraits]
        self._kept = -1

    def nearest(self, pose: Pose) -> Portrait:
        distances = [float(np.linalg.norm(shape - pose.points)) for shape in self._shapes]
        best = int(np.argmin(distances))
        if self._kept < 0 or distances[best] < _POSES_KEPT * distances[self._kept]:
            self._kept = best
        return self._portraits[self._kept]


def _laid_over(portrait: Portrait, pose: Pose, window: Window, stiffness: float) -> Picture:
    """The portrait's face where the pose has its own: a thin-plate spline through landmarks and rim of the oval."""
    turn = np.linspace(0, 2 * np.pi, 8, endpoint=False)
    rim = np.column_stack([np.cos(turn), np.sin(turn)]) * OVAL_AXES + OVAL_MIDDLE
    theirs = Pose.of(portrait.points)
    goal = np.vstack([pose.points, rim])
    source = np.vstack([portrait.points, rim @ theirs.matrix[:, :2].T + theirs.matrix[:, 2]])
    spline = RBFInterpolator(goal, source, kernel="thin_plate_spline", smoothing=stiffness)
    x, y = _sampled(spline, pose, window)
    return np.asarray(cv2.remap(portrait.image, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT), np.uint8)


def _sampled(spline: RBFInterpolator, pose: Pose, window: Window) -> tuple[Grid, Grid]:
    """The spline at every pixel of a window, solved on a coarse grid and interpolated."""
    x, y = np.linspace(window.left, window.right - 1, KNOTS), np.linspace(window.top, window.bottom - 1, KNOTS)
    knots = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    values = spline(knots @ pose.inverse[:, :2].T + pose.inverse[:, 2]).reshape(KNOTS, KNOTS, 2)
    height, width = window.bottom - window.top, window.right - window.left
    # OpenCV's own resize aligns pixel areas, not the outermost knots.
    across, down = (np.linspace(0, KNOTS - 1, n, dtype=np.float32) for n in (width, height))
    at_x, at_y = np.meshgrid(across, down)
    fine = cv2.remap(values.astype(np.float32), at_x, at_y, cv2.INTER_LINEAR)
    return np.ascontiguousarray(fine[..., 0]), np.ascontiguousarray(fine[..., 1])


def _blended(over: Picture, under: Picture, pose: Pose, window: Window, parameters: Parameters) -> Picture:
    mask = face_mask(pose, window, parameters["size"], parameters["soft"])
    matched = recoloured(over, under, mask, parameters["colour"])
    return (seamless if parameters["poisson"] else feathered)(matched, under, mask)


def _placed(image: Picture, window: Window, pixels: Picture) -> Picture:
    """A copy of the frame with other pixels in the window."""
    frame = image.copy()
    window.of(frame)[:] = pixels
    return frame


def _draw_self_blend(rng: Rng) -> dict[str, float]:
    return uniform(
        rng,
        size=(0.7, 1.0),
        soft=(0.08, 0.35),
        strength=(0.75, 1.0),
        shift_u=(-0.06, 0.06),
        shift_v=(-0.06, 0.06),
        stretch=(-0.06, 0.06),
        brightness=(-18, 18),
        contrast=(0.82, 1.18),
        saturation=(0.75, 1.25),
        hue_deg=(-8, 8),
        sharpness=(-1.0, 1.0),
        shrink=(0.45, 1.0),
    )


def _self_blend(_: Sources, parameters: Parameters, __: Rng) -> Edit:
    def edit(moment: Moment) -> Picture:
        if moment.points is None:
            return moment.image
        pose = Pose.of(moment.points)
        window = pose.window(moment.image.shape, REACH)
        over = _changed(moment.image, pose, window, parameters)
        mask = face_mask(pose, window, parameters["size"], parameters["soft"]) * np.float32(parameters["strength"])
        return _placed(moment.image, window, feathered(over, window.of(moment.image), mask))

    return edit


def _changed(image: Picture, pose: Pose, window: Window, p: Parameters) -> Picture:
    """The face as another camera and another fit would have it: moved, stretched, recoloured, rescaled, sharpened."""
    u, v = pose.grid(window)
    du = np.asarray(p["shift_u"] + p["stretch"] * u, np.float32)
    dv = np.asarray(p["shift_v"] - p["stretch"] * (v - 0.5), np.float32)
    moved = pose.displaced(image, window, du, dv)
    hsv = cv2.cvtColor(moved, cv2.COLOR_RGB2HSV_FULL).astype(np.float32)
    hsv[..., 0] = (hsv[..., 0] + p["hue_deg"] * 256 / 360) % 256
    hsv[..., 1] = hsv[..., 1] * p["saturation"]
    hsv[..., 2] = (hsv[..., 2] - 128) * p["contrast"] + 128 + p["brightness"]
    toned = cv2.cvtColor(np.clip(np.rint(hsv), 0, 255).astype(np.uint8), cv2.COLOR_HSV2RGB_FULL)
    height, width = toned.shape[:2]
    small = cv2.resize(toned, (max(round(width * p["shrink"]), 4), max(round(height * p["shrink"]), 4)))
    back = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
    blurred = cv2.GaussianBlur(back, (0, 0), 1.2)
    # Towards the blurred picture for negative sharpness, away from it for positive.
    return np.asarray(cv2.addWeighted(back, 1 + p["sharpness"], blurred, -p["sharpness"], 0), np.uint8)


FACE_SWAP = Recipe(
    name="face_swap",
    version=1,
    summary="the face of another clip laid over this one's, colours matched, the seam blended",
    fakes=frozenset({"visual"}),
    needs=frozenset({Need.PICTURES, Need.FACE, Need.OTHER_FACE}),
    draw=_draw_swap,
    look=_swap,
)
SELF_BLENDING = Recipe(
    name="self_blending",
    version=1,
    summary="the clip's own face, moved and recoloured a little, blended over itself (Shiohara and Yamasaki 2022)",
    fakes=frozenset({"visual"}),
    needs=frozenset({Need.PICTURES, Need.FACE}),
    draw=_draw_self_blend,
    look=_self_blend,
)
