"""The recipe of the tiny gate: random numbers to start from, a whole crop as one patch."""

from pathlib import Path
from typing import Final, cast

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import Progress
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from clipwarden.models.training.picture_fit import PictureRecipe, Pictures
from clipwarden.models.training.picture_run import PictureNetwork, faces_in, train_pictures
from clipwarden.models.training.run_folder import RunFolder
from clipwarden.models.training.video_data import FOLDS, read_clips
from clipwarden.models.visual.tiny_gate import CLEAR_BELOW, INPUTS, GateOptions, TinyGate, TinyNetwork, front_filter
from clipwarden.models.weights import WeightFile, file_digest

RECIPE: Final = PictureRecipe(
    steps=300, batch=32, side_px=64, learning_rate=5e-3, label_smoothing=0.0, precision="float32"
)
OPTIONS: Final = {"front": "npr", "scaling": "imagenet"}
RECALL: Final = 0.99
"""The share of fakes that a first look must let pass on to the other detectors."""


def _logits(network: nn.Module, crops: Pictures) -> Tensor:
    options = GateOptions.of(OPTIONS)
    filtered = front_filter(INPUTS[options.scaling].tensor(crops, torch.device("cpu")), options.front)
    return cast("Tensor", network(filtered)).mean(dim=(1, 2))


GATE: Final = PictureNetwork(TinyGate, TinyNetwork, _logits, RECIPE, OPTIONS)


def train_gate(data: Path, out: Path, seed: int, jobs: int, progress: Progress) -> RunFolder:
    """Train, score out of fold, measure, choose the threshold. A stopped run goes on after its last network."""
    run = train_pictures(GATE, data, out, seed, jobs, progress)
    fake, highest = _highest_patches(data, run, jobs)
    clear_below = float(np.quantile(highest[fake], 1 - RECALL))
    cleared = highest < clear_below
    told = {"clear_below": clear_below, "fake_cleared": cleared[fake].mean(), "real_cleared": cleared[~fake].mean()}
    run.write_json("metrics.json", {**run.read_json("metrics.json"), "first_look": told})
    path = run.path / f"{GATE.name}.safetensors"
    facts = {"detector": GATE.name, "seed": str(seed), CLEAR_BELOW: f"{clear_below:.4f}"}
    save_file(load_file(path), path, metadata=facts)
    return run


def _highest_patches(data: Path, run: RunFolder, jobs: int) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Whether clips are fake, and the largest P(fake) of any patch of each by the network that did not see it."""
    faces, fake, highest = faces_in(run, GATE, data, jobs), [], []
    for fold in range(FOLDS):
        path = run.path / f"fold-{fold}.safetensors"
        gate = TinyGate.load(WeightFile(path, file_digest(path), OPTIONS), "cpu")
        for clip in read_clips(data):
            if clip.fold == fold and len(pictures := faces.rows(clip)):
                fake.append(clip.fake)
                highest.append(gate.patches(gate.maps(pictures)).max())
    return np.array(fake), np.array(highest)
