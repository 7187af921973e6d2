"""Fits a network that judges picture by picture: faces drawn by their clip's weight, cropped, mirrored, recoloured."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import cos, pi
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from clipwarden.models.training.video_data import VideoClip, clip_weights

Pictures = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class PictureRecipe:
    """AdamW with a warm-up and a cosine. `side_px` is that of the crops it trains on, at the scale of what it judges.

    Each picture comes as it is or from the clip's copy (`copied_share`); `jitter` is the spread of its contrast and
    brightness; `clip_norm` is the most that all gradients together may measure.
    """

    steps: int
    batch: int
    side_px: int
    learning_rate: float
    weight_decay: float = 0.01
    label_smoothing: float = 0.1
    warmup: float = 0.1
    clip_norm: float = 1.0
    copied_share: float = 0.5
    jitter: float = 0.15
    precision: Literal["float32", "bfloat16"] = "bfloat16"


@dataclass(frozen=True, slots=True)
class ClipPictures:
    """A clip with its faces, uint8 RGB (N, S, S, 3), as they are and in its copy; there is at least one of each."""

    clip: VideoClip
    plain: Pictures
    copied: Pictures


def fit_pictures(
    network: nn.Module,
    logits: Callable[[Pictures], Tensor],
    material: Sequence[ClipPictures],
    recipe: PictureRecipe,
    seed: int,
) -> Iterator[float]:
    """Train the network, yielding the loss of every step; it is in eval mode after the last.

    `logits` gives those of fake (N,) of crops, through the network.
    """
    rng = np.random.default_rng(seed)
    weights = clip_weights([m.clip for m in material])
    optimiser = torch.optim.AdamW(network.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _pace(step, recipe))
    network.train()
    for _ in range(recipe.steps):
        pictures, target = _batch(material, weights, recipe, rng)
        with torch.autocast("cpu", torch.bfloat16, enabled=recipe.precision == "bfloat16"):
            found = logits(pictures)
        aim = target * (1 - recipe.label_smoothing) + recipe.label_smoothing / 2
        loss = nn.functional.binary_cross_entropy_with_logits(found.float(), aim)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), recipe.clip_norm)
        optimiser.step()
        schedule.step()
        yield loss.item()
    network.eval()


def _pace(step: int, recipe: PictureRecipe) -> float:
    """The share of the learning rate: up a straight line, then down half a cosine."""
    warm = max(recipe.warmup * recipe.steps, 1.0)
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + cos(pi * (step - warm) / max(recipe.steps - warm, 1)))


def _batch(
    material: Sequence[ClipPictures], weights: NDArray[np.float64], recipe: PictureRecipe, rng: np.random.Generator
) -> tuple[Pictures, Tensor]:
    """Crops (N, side, side, 3) and labels (N,)."""
    chosen = [material[k] for k in rng.choice(len(material), recipe.batch, p=weights)]
    copied = rng.random(recipe.batch) < recipe.copied_share
    crops = [_crop(m.copied if c else m.plain, recipe, rng) for m, c in zip(chosen, copied, strict=True)]
    return np.stack(crops), torch.tensor([float(m.clip.fake) for m in chosen])


def _crop(pictures: NDArray[Any], recipe: PictureRecipe, rng: np.random.Generator) -> Pictures:
    """A random square of a random picture, perhaps mirrored, its levels stretched about their middle and shifted."""
    picture, side = pictures[rng.integers(len(pictures))], recipe.side_px
    top, left = rng.integers(0, picture.shape[0] - side + 1, 2)
    crop = picture[top : top + side, left : left + side][:, :: int(rng.choice((-1, 1)))].astype(np.float32)
    gain, shift = rng.normal(0, recipe.jitter, 2)
    levels = (crop - 128) * np.exp(gain) + 128 + 64 * shift
    return np.asarray(np.clip(np.rint(levels), 0, 255), np.uint8)
