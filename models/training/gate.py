"""The recipe of the tiny gate: random numbers to start from, a whole crop as one patch."""

from pathlib import Path
from typing import Final, cast

import torch
from rich.progress import Progress
from torch import Tensor, nn

from clipwarden.models.training.picture_fit import PictureRecipe, Pictures
from clipwarden.models.training.picture_run import PictureNetwork, train_pictures
from clipwarden.models.training.run_folder import RunFolder
from clipwarden.models.visual.tiny_gate import INPUTS, GateOptions, TinyGate, TinyNetwork, front_filter

RECIPE: Final = PictureRecipe(
    steps=300, batch=32, side_px=64, learning_rate=5e-3, label_smoothing=0.0, precision="float32"
)
OPTIONS: Final = {"front": "npr", "scaling": "imagenet"}


def _logits(network: nn.Module, crops: Pictures) -> Tensor:
    options = GateOptions.of(OPTIONS)
    filtered = front_filter(INPUTS[options.scaling].tensor(crops, torch.device("cpu")), options.front)
    return cast("Tensor", network(filtered)).mean(dim=(1, 2))


GATE: Final = PictureNetwork(TinyGate, TinyNetwork, _logits, RECIPE, OPTIONS)


def train_gate(data: Path, out: Path, seed: int, jobs: int, progress: Progress) -> RunFolder:
    """Train, score out of fold, measure. A stopped run goes on after its last finished network."""
    return train_pictures(GATE, data, out, seed, jobs, progress)
