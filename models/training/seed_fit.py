"""Trains a seed's network by the seed's own recipe: epochs, optimiser, schedule, sampler, clipping, precision, seed."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil, cos, pi
from typing import Any, Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Examples = NDArray[Any]


@dataclass(frozen=True, slots=True)
class SeedRecipe:
    """AdamW with a cosine, after a warm-up if there is one; cross entropy of two logits, real and fake.

    The optimiser steps after `accumulate` batches. `clip_norm` is the most that all gradients together may measure.
    The sampler draws items by the inverse frequency of their label, or each once an epoch. `mirrored` is the share of
    pictures turned round, `brightness` the most that their levels are scaled by, either way. `stated` is what the
    source says of it; the rest is ours.
    """

    epochs: int
    batch: int
    learning_rate: float
    weight_decay: float
    label_smoothing: float
    warmup: float = 0.0
    accumulate: int = 1
    clip_norm: float | None = None
    sampler: Literal["balanced", "each"] = "each"
    precision: Literal["float32", "bfloat16"] = "float32"
    mirrored: float = 0.0
    brightness: float = 0.0
    seed: int = 42
    stated: str = ""


_SPECIFIED: Final = "optimiser, learning rate, weight decay, schedule, epochs, batch, label smoothing"
RECIPES: Final[dict[str, SeedRecipe]] = {
    "frame_efficientnet_b4": SeedRecipe(
        epochs=50, batch=32, learning_rate=1e-4, weight_decay=0.01, label_smoothing=0.1, stated=_SPECIFIED
    ),
    "temporal_3dcnn": SeedRecipe(
        epochs=50, batch=8, accumulate=4, learning_rate=1e-4, weight_decay=0.01, label_smoothing=0.1
    ),
    "mel_resnet18": SeedRecipe(epochs=50, batch=32, learning_rate=1e-4, weight_decay=0.01, label_smoothing=0.1),
    "clip_adapter": SeedRecipe(
        epochs=12,
        batch=16,
        accumulate=2,
        learning_rate=5e-6,
        weight_decay=0.05,
        label_smoothing=0.1,
        warmup=0.1,
        clip_norm=1.0,
        sampler="balanced",
        precision="bfloat16",
        mirrored=0.5,
        brightness=0.2,
        stated="everything but how many pictures are mirrored and how much brighter they become",
    ),
}
"""Detector → its recipe. Those of the model specifications state one recipe, for the frames; the others follow it."""


@dataclass(frozen=True, slots=True)
class Learner:
    """`logits` takes a batch of examples through the network, to (N, 2) of real and fake."""

    network: nn.Module
    logits: Callable[[Examples], Tensor]


def fit_seed(
    learner: Learner, items: Sequence[Examples], fake: NDArray[np.bool_], recipe: SeedRecipe
) -> Iterator[float]:
    """Train the network's unfrozen part, yielding the loss of every batch; it is in eval mode after the last.

    An item is its examples, of which an epoch takes one: a face of a clip, a window of an utterance, a clip as a whole.
    """
    torch.manual_seed(recipe.seed)
    rng = np.random.default_rng(recipe.seed)
    trained = [p for p in learner.network.parameters() if p.requires_grad]
    device = trained[0].device.type
    optimiser = torch.optim.AdamW(trained, lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    batches = recipe.epochs * ceil(len(items) / recipe.batch)
    steps = ceil(batches / recipe.accumulate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: pace(step, steps, recipe.warmup))
    criterion = nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)
    learner.network.train()
    for k, rows in enumerate(_rows(fake, recipe, rng)):
        examples = np.stack([_example(items[row], recipe, rng) for row in rows])
        with torch.autocast(device, torch.bfloat16, enabled=recipe.precision == "bfloat16"):
            found = learner.logits(examples)
        loss = criterion(found.float(), torch.from_numpy(fake[rows].astype(np.int64)).to(found.device))
        (loss / recipe.accumulate).backward()
        if (k + 1) % recipe.accumulate == 0 or k + 1 == batches:
            if recipe.clip_norm is not None:
                nn.utils.clip_grad_norm_(trained, recipe.clip_norm)
            optimiser.step()
            schedule.step()
            optimiser.zero_grad()
        yield loss.item()
    learner.network.eval()


def pace(step: int, steps: int, warmup: float) -> float:
    """The share of the learning rate: up a straight line over the warm-up, then down half a cosine to zero."""
    warm = warmup * steps
    if step < warm:
        return (step + 1) / (warm + 1)
    return 0.5 * (1 + cos(pi * min((step - warm) / max(steps - warm, 1), 1)))


def _rows(fake: NDArray[np.bool_], recipe: SeedRecipe, rng: np.random.Generator) -> Iterator[list[int]]:
    """The items of every batch, an epoch after another."""
    count = len(fake)
    frequency = np.where(fake, fake.mean(), 1 - fake.mean())
    for _ in range(recipe.epochs):
        balanced = rng.choice(count, count, p=1 / frequency / (1 / frequency).sum())
        order = balanced if recipe.sampler == "balanced" else rng.permutation(count)
        yield from (order[k : k + recipe.batch].tolist() for k in range(0, count, recipe.batch))


def _example(of: Examples, recipe: SeedRecipe, rng: np.random.Generator) -> Examples:
    """One of an item's examples; of pictures (…, H, W, 3) all are changed alike."""
    chosen: Examples = of[rng.integers(len(of))]
    if chosen.dtype != np.uint8:
        return chosen
    if rng.random() < recipe.mirrored:
        chosen = chosen[..., ::-1, :]
    if recipe.brightness:
        chosen = np.clip(np.rint(chosen * rng.uniform(1 - recipe.brightness, 1 + recipe.brightness)), 0, 255)
    return np.asarray(chosen, np.uint8)
