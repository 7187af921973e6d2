"""The recipe of the ResNet-18 of faces. No weights of it may be shipped to start from: it starts from random ones."""

from pathlib import Path
from typing import Final, cast

import torch
from rich.progress import Progress
from torch import Tensor, nn

from clipwarden.models.backbones.resnet18 import ResNet18
from clipwarden.models.training.picture_fit import PictureRecipe, Pictures
from clipwarden.models.training.picture_run import PictureNetwork, train_pictures
from clipwarden.models.training.run_folder import RunFolder
from clipwarden.models.visual.frame_resnet18 import INPUT, FrameResNet18

RECIPE: Final = PictureRecipe(steps=150, batch=32, side_px=112, learning_rate=1e-3)


def _logits(network: nn.Module, crops: Pictures) -> Tensor:
    return cast("Tensor", network(INPUT.tensor(crops, torch.device("cpu"))))[:, 0]


RESNET: Final = PictureNetwork(FrameResNet18, ResNet18, _logits, RECIPE, {}, torch.float16)


def train_resnet(data: Path, out: Path, seed: int, jobs: int, progress: Progress) -> RunFolder:
    """Train, score out of fold, measure. A stopped run goes on after its last finished network."""
    return train_pictures(RESNET, data, out, seed, jobs, progress)
