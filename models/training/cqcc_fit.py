"""Fits the CQCC network: random stretches, random channels, bfloat16 on the processor."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clipwarden.models.audio.cqcc import CEPSTRA, ROWS
from clipwarden.models.audio.cqcc_cnn import CqccNetwork


@dataclass(frozen=True, slots=True)
class CqccRecipe:
    """Numbers of the recipe; `frames` is the length of a training stretch, 16 ms each."""

    steps: int = 260
    batch: int = 32
    frames: int = 160
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    dropout: float = 0.3
    channel_tilt: float = 0.3
    """Spread of a constant added to each cepstrum of a stretch, in standard deviations: an unknown microphone."""
    masked_frames: int = 24
    label_smoothing: float = 0.05


@dataclass(frozen=True, slots=True)
class Material:
    """versions: per utterance, CQCC (90, T) of the sound and of its copies; weights sum to one."""

    versions: list[list[NDArray[np.float32]]]
    fake: NDArray[np.bool_]
    weights: NDArray[np.float64]


def fit_cqcc(network: CqccNetwork, material: Material, recipe: CqccRecipe, seed: int) -> Iterator[float]:
    """Train the network, yielding the loss of every step; it is in eval mode after the last."""
    rng = np.random.default_rng(seed)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    _set_scaler(network, material)
    optimiser = torch.optim.AdamW(network.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, recipe.learning_rate, recipe.steps, pct_start=0.2)
    network.train()
    for _ in range(recipe.steps):
        rows, target = _batch(material, recipe, network, rng)
        with torch.autocast("cpu", torch.bfloat16):
            logits = network(rows)
        target = target * (1 - recipe.label_smoothing) + recipe.label_smoothing / 2
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits.float(), target)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        yield loss.item()
    network.eval()


def stretch(rows: NDArray[np.float32], frames: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Cut a random stretch of `frames` columns; `rows` has at least as many."""
    start = int(rng.integers(rows.shape[1] - frames + 1))
    return rows[:, start : start + frames]


def _set_scaler(network: CqccNetwork, material: Material) -> None:
    """Mean and spread of each row over the utterances themselves, by their weight."""
    means = np.stack([v[0].mean(axis=1) for v in material.versions])
    squares = np.stack([np.square(v[0]).mean(axis=1) for v in material.versions])
    mean = material.weights @ means
    scale = np.sqrt(np.maximum(material.weights @ squares - mean**2, 1e-12))
    network.scaler_mean.copy_(torch.from_numpy(mean))
    network.scaler_scale.copy_(torch.from_numpy(scale))


def _batch(
    material: Material, recipe: CqccRecipe, network: CqccNetwork, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    chosen = rng.choice(len(material.fake), recipe.batch, p=material.weights)
    stretches = []
    for index in chosen:
        versions = material.versions[index]
        stretches.append(stretch(versions[rng.integers(len(versions))], recipe.frames, rng))
    rows = torch.from_numpy(np.stack(stretches))
    tilt = torch.zeros(recipe.batch, ROWS, 1)
    tilt[:, :CEPSTRA] = torch.from_numpy(rng.normal(0, recipe.channel_tilt, (recipe.batch, CEPSTRA, 1)))
    rows = rows + tilt * network.scaler_scale[:, None]
    for row in rows:
        start, width = rng.integers(recipe.frames), rng.integers(recipe.masked_frames + 1)
        row[:, start : start + width] = network.scaler_mean[:, None]
    return rows, torch.from_numpy(material.fake[chosen].astype(np.float32))
