"""The run that makes the forensic network: five folds by generator, person and footage, then all clips."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import Progress

from clipwarden.models.checkpoint import load_into
from clipwarden.models.training.forensic_data import ForensicCache
from clipwarden.models.training.networks import trained
from clipwarden.models.training.run_folder import RunFolder, begin_run
from clipwarden.models.training.video_data import FOLDS, VideoClip, clip_weights, read_clips, training_clips
from clipwarden.models.training.video_report import clip_facts, clip_metrics, clip_row
from clipwarden.models.visual.forensic_features import compressed
from clipwarden.models.visual.forensic_mlp import ForensicMlp, ForensicNetwork

NAME: Final = "forensic_mlp"
Features = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ForensicRecipe:
    """`laundered_share` of the draws are crops that were scaled and compressed once more."""

    steps: int = 1500
    batch: int = 256
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    label_smoothing: float = 0.1
    laundered_share: float = 0.5


@dataclass(frozen=True, slots=True)
class ClipFeatures:
    """One clip with its raw features (crops, 12), as is and laundered."""

    clip: VideoClip
    plain: Features
    laundered: Features


def train_forensic(data: Path, out: Path, seed: int, jobs: int, progress: Progress) -> RunFolder:
    """Train, score out of fold, measure. A stopped run keeps the features it has."""
    torch.set_num_threads(jobs)
    run = begin_run(out, NAME, seed, ForensicRecipe(), data / "video")
    clips = read_clips(data)
    cache = ForensicCache(data, run.folder("features"), seed, jobs)
    for _ in progress.track(cache.fill(clips), total=len(clips), description="features"):
        pass
    seen = [f for c in clips if len((f := ClipFeatures(c, cache.features(c, 0), cache.features(c, 1))).plain)]
    scores = []
    for fold in progress.track(range(FOLDS), description="folds"):
        tested = [f for f in seen if f.clip.fold == fold]
        kept = set(training_clips(clips, [f.clip for f in tested]))
        detector = _detector(run, f"fold-{fold}", [f for f in seen if f.clip in kept], seed)
        scores += [clip_row(f.clip, float(detector.predict(f.plain).mean())) for f in tested]
    _detector(run, NAME, seen, seed)
    run.write_scores("scores.csv", scores)
    run.write_json("metrics.json", clip_metrics([f.clip for f in seen], scores, seed))
    run.write_json("data.json", clip_facts(data, [f.clip for f in seen]))
    return run


def fit_forensic(
    network: ForensicNetwork, material: Sequence[ClipFeatures], recipe: ForensicRecipe, seed: int
) -> Iterator[float]:
    """Train the network on crops drawn by their clip's weight, yielding the loss of every step.

    It is in eval mode after the last.
    """
    rng = np.random.default_rng(seed)
    weights = clip_weights([f.clip for f in material])
    _set_scaler(network, material, weights)
    optimiser = torch.optim.AdamW(network.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, recipe.learning_rate, recipe.steps)
    network.train()
    for _ in range(recipe.steps):
        features, labels = _batch(material, weights, recipe, rng)
        loss = torch.nn.functional.cross_entropy(
            network(torch.from_numpy(features)),
            torch.from_numpy(labels),
            label_smoothing=recipe.label_smoothing,
        )
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        yield loss.item()
    network.eval()


def _set_scaler(network: ForensicNetwork, material: Sequence[ClipFeatures], weights: NDArray[np.float64]) -> None:
    """Mean and spread of the compressed features of the plain and the laundered crops, by clip weight."""
    rows = [np.concatenate([compressed(f.plain), compressed(f.laundered)]) for f in material]
    mean = weights @ np.stack([r.mean(axis=0) for r in rows])
    square = weights @ np.stack([np.square(r).mean(axis=0) for r in rows])
    network.scaler_mean.copy_(torch.from_numpy(mean))
    network.scaler_scale.copy_(torch.from_numpy(np.sqrt(np.maximum(square - mean**2, 1e-8))))


def _batch(
    material: Sequence[ClipFeatures],
    weights: NDArray[np.float64],
    recipe: ForensicRecipe,
    rng: np.random.Generator,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    chosen = [material[k] for k in rng.choice(len(material), recipe.batch, p=weights)]
    washed = rng.random(recipe.batch) < recipe.laundered_share
    sources = [f.laundered if w else f.plain for f, w in zip(chosen, washed, strict=True)]
    rows = np.stack([s[rng.integers(len(s))] for s in sources])
    return compressed(rows).astype(np.float32), np.array([f.clip.fake for f in chosen], np.int64)


def _detector(run: RunFolder, name: str, material: Sequence[ClipFeatures], seed: int) -> ForensicMlp:
    """Train a network, or read it if the run already has it."""
    network = ForensicNetwork()

    def fit() -> tuple[ForensicNetwork, list[float]]:
        torch.manual_seed(seed)
        fresh = ForensicNetwork()
        return fresh, list(fit_forensic(fresh, material, ForensicRecipe(), seed))

    load_into(network, trained(run, name, fit, {"detector": NAME, "seed": str(seed)}), "cpu")
    return ForensicMlp(network, "cpu")
