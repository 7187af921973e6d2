"""Faces that went through a bottleneck and back: a small autoencoder, patch components, an imperfect upsampler."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from clipwarden.models.training.forge.anatomy import MEAN_FACE, Pose, face_mask, similarity
from clipwarden.models.training.forge.blending import feathered
from clipwarden.models.training.forge.recipe import (
    Edit,
    Moment,
    Need,
    Parameters,
    Picture,
    Points,
    Portrait,
    Recipe,
    Rng,
    Sources,
    uniform,
)

REACH: Final = 1.15
SIDE_PX: Final = 128
PATCH_PX: Final = 8
BATCH: Final = 8
_ALIGNED: Final = MEAN_FACE * (SIDE_PX / 2.9) + (SIDE_PX / 2, SIDE_PX * 0.33)
_PATCHES: Final = 6000

Remake = Callable[[Picture], Picture]
"""From an aligned face, uint8 (SIDE_PX, SIDE_PX, 3) RGB, to its copy."""


def aligned(image: Picture, landmarks: Points) -> tuple[Picture, Points]:
    """A face turned upright at SIDE_PX, and the map (2, 3) that brought it there."""
    matrix = similarity(landmarks, _ALIGNED)
    face = cv2.warpAffine(image, matrix, (SIDE_PX, SIDE_PX), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REFLECT)
    return np.asarray(face, np.uint8), matrix


def _faces(portraits: Sequence[Portrait]) -> list[Picture]:
    return [aligned(portrait.image, portrait.points)[0] for portrait in portraits]


def _edit(remake: Remake, parameters: Parameters) -> Edit:
    def edit(moment: Moment) -> Picture:
        if moment.points is None:
            return moment.image
        face, matrix = aligned(moment.image, moment.points)
        pose = Pose.of(moment.points)
        window = pose.window(moment.image.shape, REACH)
        under = window.of(moment.image)
        back = cv2.invertAffineTransform(matrix) - np.array([[0, 0, window.left], [0, 0, window.top]])
        size = (under.shape[1], under.shape[0])
        over = cv2.warpAffine(remake(face), back, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
        mask = face_mask(pose, window, parameters["size"], parameters["soft"])
        frame = moment.image.copy()
        window.of(frame)[:] = feathered(np.asarray(over, np.uint8), under, mask)
        return frame

    return edit


class Autoencoder(nn.Module):
    """RGB in [0, 1], (N, 3, S, S), through `width` channels at a quarter of the side and back."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 16, 4, 2, 1),
            nn.SiLU(),
            nn.Conv2d(16, 24, 4, 2, 1),
            nn.SiLU(),
            nn.Conv2d(24, width, 1),
            nn.Conv2d(width, 24, 1),
            nn.ConvTranspose2d(24, 16, 4, 2, 1),
            nn.SiLU(),
            nn.ConvTranspose2d(16, 3, 4, 2, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """The copy, of the same shape, not clipped."""
        copy: Tensor = self.layers(x - 0.5) + 0.5
        return copy


def _draw_autoencoder(rng: Rng) -> dict[str, float]:
    return uniform(rng, size=(0.9, 1.02), soft=(0.12, 0.3)) | {"width": float(rng.integers(5, 13)), "steps": 160.0}


def _autoencode(sources: Sources, parameters: Parameters, rng: Rng) -> Edit:
    with _one_thread():
        network = _fitted(_faces(sources.clip.portraits), int(parameters["width"]), int(parameters["steps"]), rng)

    def remake(face: Picture) -> Picture:
        with _one_thread(), torch.inference_mode():
            copy = network(_tensor([face]))[0].clamp(0, 1).permute(1, 2, 0)
        return np.asarray((copy * 255).round().to(torch.uint8).numpy(), np.uint8)

    return _edit(remake, parameters)


@contextmanager
def _one_thread() -> Iterator[None]:
    """For sums that come out the same on every machine, and sooner where the networks are this small."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _fitted(faces: Sequence[Picture], width: int, steps: int, rng: Rng) -> Autoencoder:
    """Fit a fresh network to the faces and their mirror images, by the mean absolute error."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(rng.integers(2**31)))
        network = Autoencoder(width)
    optimiser = torch.optim.Adam(network.parameters(), lr=4e-3)
    material = _tensor(faces)
    for _ in range(steps):
        batch = material[torch.from_numpy(rng.integers(len(faces), size=BATCH))]
        if rng.random() < 0.5:
            batch = batch.flip(3)
        optimiser.zero_grad()
        loss = (network(batch) - batch).abs().mean()
        loss.backward()
        optimiser.step()
    return network.eval()


def _tensor(faces: Sequence[Picture]) -> Tensor:
    return torch.from_numpy(np.stack(faces)).permute(0, 3, 1, 2).float() / 255


def _draw_components(rng: Rng) -> dict[str, float]:
    return uniform(rng, size=(0.9, 1.02), soft=(0.12, 0.3)) | {"components": float(rng.integers(8, 25))}


def _components(sources: Sources, parameters: Parameters, rng: Rng) -> Edit:
    patches = np.concatenate([_patches(face, PATCH_PX)[0] for face in _faces(sources.clip.portraits)])
    chosen = patches[rng.permutation(len(patches))[:_PATCHES]]
    mean = chosen.mean(axis=0)
    _, _, axes = np.linalg.svd(chosen - mean, full_matrices=False)
    basis = axes[: int(parameters["components"])]

    def remake(face: Picture) -> Picture:
        rows, put_back = _patches(face, PATCH_PX // 2)
        return put_back((rows - mean) @ basis.T @ basis + mean)

    return _edit(remake, parameters)


def _patches(face: Picture, step: int) -> tuple[NDArray[np.float32], Callable[[NDArray[np.float32]], Picture]]:
    """Square patches as rows, float32 (N, 192), and the way back, averaging where they overlap."""
    starts = range(0, SIDE_PX - PATCH_PX + 1, step)
    places = [(slice(y, y + PATCH_PX), slice(x, x + PATCH_PX)) for y in starts for x in starts]
    rows = np.stack([face[place].reshape(-1) for place in places]).astype(np.float32)

    def put_back(copies: NDArray[np.float32]) -> Picture:
        total, count = np.zeros(face.shape, np.float32), np.zeros((*face.shape[:2], 1), np.float32)
        for place, copy in zip(places, copies, strict=True):
            total[place] += copy.reshape(PATCH_PX, PATCH_PX, 3)
            count[place] += 1
        return np.clip(np.rint(total / count), 0, 255).astype(np.uint8)

    return rows, put_back


def _draw_upsampler(rng: Rng) -> dict[str, float]:
    drawn = uniform(rng, size=(0.9, 1.02), soft=(0.12, 0.3), unevenness=(0.004, 0.02))
    return drawn | {"factor": float(rng.choice([2, 4]))}


def _upsample(_: Sources, parameters: Parameters, __: Rng) -> Edit:
    factor = int(parameters["factor"])
    kernel = _kernel(factor, parameters["unevenness"])

    def remake(face: Picture) -> Picture:
        """Shrink, spread the pixels apart with zeros between, filter: a transposed convolution."""
        small = cv2.resize(face, None, fx=1 / factor, fy=1 / factor, interpolation=cv2.INTER_AREA)
        apart = np.zeros(face.shape, np.float32)
        apart[factor // 2 :: factor, factor // 2 :: factor] = small
        filled = cv2.sepFilter2D(apart, -1, kernel, kernel, borderType=cv2.BORDER_REFLECT_101)
        return np.clip(np.rint(filled), 0, 255).astype(np.uint8)

    return _edit(remake, parameters)


def _kernel(factor: int, unevenness: float) -> NDArray[np.float64]:
    """A linear interpolator whose phases sum not quite to one: what leaves a lattice in the picture."""
    taps = np.arange(-factor + 1, factor)
    kernel = 1 - np.abs(taps) / factor
    return np.asarray(kernel * (1 + unevenness * np.cos(2 * np.pi * taps / factor)), np.float64)


AUTOENCODER = Recipe(
    name="autoencoder",
    version=1,
    summary="the face through a small autoencoder fitted to this clip",
    fakes=frozenset({"visual"}),
    needs=frozenset({Need.PICTURES, Need.FACE}),
    draw=_draw_autoencoder,
    look=_autoencode,
)
COMPONENTS = Recipe(
    name="components",
    version=1,
    summary="the face from a few principal components of its patches: a linear autoencoder",
    fakes=frozenset({"visual"}),
    needs=frozenset({Need.PICTURES, Need.FACE}),
    draw=_draw_components,
    look=_components,
)
UPSAMPLER = Recipe(
    name="upsampler",
    version=1,
    summary="the face shrunk and enlarged by a transposed convolution that leaves its lattice",
    fakes=frozenset({"visual"}),
    needs=frozenset({Need.PICTURES, Need.FACE}),
    draw=_draw_upsampler,
    look=_upsample,
)
