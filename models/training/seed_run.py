"""The runs that train the seeds' own networks by their recipes: five folds, then everything.

Nothing they could start from may be shipped, so they start from random weights. They are sized for a GPU, which is used
where there is one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import Progress
from torch import Tensor, nn

from clipwarden.models.audio.mel_resnet18 import STEP, WINDOW, MelNetwork, MelResNet18, seen
from clipwarden.models.training.clip_cache import ClipCache
from clipwarden.models.training.networks import trained
from clipwarden.models.training.run_folder import AS_IT_IS, RunFolder, ScoreRow, begin_run
from clipwarden.models.training.seed_fit import RECIPES, Examples, Learner, SeedRecipe, fit_seed
from clipwarden.models.training.speech_data import read_utterances, read_wave, training_utterances
from clipwarden.models.training.speech_report import speech_facts, speech_metrics, utterance_row
from clipwarden.models.training.video_data import FOLDS, read_clips, training_clips
from clipwarden.models.training.video_report import clip_facts, clip_metrics, clip_row
from clipwarden.models.visual import frame_efficientnet_b4, temporal_3dcnn
from clipwarden.models.visual.frame_efficientnet_b4 import FrameB4Network, FrameEfficientNetB4
from clipwarden.models.visual.temporal_3dcnn import FRAMES, LEAST_FRAMES, Temporal3dCnn, Temporal3dNetwork
from clipwarden.shared.clip import Excerpt, View

AnyDetector = FrameEfficientNetB4 | Temporal3dCnn | MelResNet18


@dataclass(frozen=True, slots=True)
class Seed:
    """A detector, its untrained network, and how a batch of examples goes through that."""

    detector: type[AnyDetector]
    network: Callable[[], nn.Module]
    logits: Callable[[nn.Module, torch.device, Examples], Tensor]

    @property
    def name(self) -> str:
        return self.detector.spec.name


@dataclass(frozen=True, slots=True)
class Items:
    """What is learnt from, and for each fold which of it is tested and which may be learnt from."""

    examples: Sequence[Examples]
    rows: Sequence[ScoreRow]
    trains: Sequence[NDArray[np.bool_]]

    @property
    def fake(self) -> NDArray[np.bool_]:
        return np.array([row.label == "fake" for row in self.rows])


def train_b4(data: Path, out: Path, seed: int, jobs: int, progress: Progress) -> RunFolder:
    """Train on single faces, score out of fold, measure. A stopped run goes on after its last finished network."""
    return _of_clips(B4, lambda view: view.images, data, out, seed, jobs, progress)


def train_3dcnn(data: Path, out: Path, seed: int, jobs: int, progress: Progress) -> RunFolder:
    """The same on whole frames, sixteen of a clip at once; clips of fewer than eight are left out."""
    return _of_clips(CNN3D, sixteen, data, out, seed, jobs, progress)


def train_mel(data: Path, out: Path, seed: int, jobs: int, progress: Progress) -> RunFolder:
    """The same on windows of four seconds of the speech corpus."""
    torch.set_num_threads(jobs)
    recipe, run = _opened(MEL, data / "audio", out, seed)
    utterances = read_utterances(data)
    heard = progress.track((windows(read_wave(data / "audio" / u.path)) for u in utterances), total=len(utterances))
    items = Items(
        list(heard),
        [utterance_row(u, 0.0) for u in utterances],
        [np.isin(np.arange(len(utterances)), training_utterances(utterances, fold)) for fold in range(FOLDS)],
    )
    scores = _scores(run, MEL, items, recipe, progress)
    run.write_scores("scores.csv", scores)
    run.write_json("metrics.json", speech_metrics(utterances, scores, seed))
    run.write_json("data.json", speech_facts(data, utterances))
    return run


def sixteen(view: View) -> NDArray[np.uint8]:
    """The clip as one example (1, 16, 224, 224, 3), the last of 8 to 15 frames repeated; none below eight."""
    if len(view) < LEAST_FRAMES:
        return np.zeros((0,), np.uint8)
    return view.images[np.minimum(np.arange(FRAMES), len(view) - 1)][None]


def windows(wave: NDArray[np.float32]) -> NDArray[np.float32]:
    """Log-mel windows (N, 80, 251) of an utterance, as the detector cuts them."""
    starts = range(0, max(len(wave) - WINDOW, 0) + 1, STEP)
    return np.stack([seen(Excerpt(0.0, wave), (start, min(start + WINDOW, len(wave)))) for start in starts])


def _of_clips(
    kind: Seed,
    made: Callable[[View], NDArray[np.uint8]],
    data: Path,
    out: Path,
    seed: int,
    jobs: int,
    progress: Progress,
) -> RunFolder:
    torch.set_num_threads(jobs)
    recipe, run = _opened(kind, data / "video", out, seed)
    clips = read_clips(data)
    cache = ClipCache(data, run.folder("pictures"), kind.detector.spec, made, jobs)
    for _ in progress.track(cache.fill(clips, (AS_IT_IS,)), total=len(clips), description="pictures"):
        pass
    kept = [c for c in clips if len(cache.rows(c))]
    allowed = [set(training_clips(clips, [c for c in kept if c.fold == fold])) for fold in range(FOLDS)]
    items = Items(
        [cache.rows(c) for c in kept],
        [clip_row(c, 0.0) for c in kept],
        [np.array([c in some for c in kept]) for some in allowed],
    )
    scores = _scores(run, kind, items, recipe, progress)
    run.write_scores("scores.csv", scores)
    run.write_json("metrics.json", clip_metrics(kept, scores, seed))
    run.write_json("data.json", clip_facts(data, kept))
    return run


def _opened(kind: Seed, corpus: Path, out: Path, seed: int) -> tuple[SeedRecipe, RunFolder]:
    recipe = replace(RECIPES[kind.name], seed=seed)
    return recipe, begin_run(out, kind.name, seed, recipe, corpus)


def _scores(run: RunFolder, kind: Seed, items: Items, recipe: SeedRecipe, progress: Progress) -> list[ScoreRow]:
    """Out-of-fold scores: the mean logit over an item's examples. Trains what is missing, the network to ship last."""
    scores = []
    for fold, trains in enumerate(items.trains):
        detector = _detector(run, kind, f"fold-{fold}", items, trains, recipe, progress)
        tested = [k for k, row in enumerate(items.rows) if row.fold == fold]
        scores += [
            replace(items.rows[k], score_logit=float(detector.predict(items.examples[k]).mean())) for k in tested
        ]
    _detector(run, kind, kind.name, items, np.ones(len(items.rows), np.bool_), recipe, progress)
    return scores


def _detector(
    run: RunFolder,
    kind: Seed,
    name: str,
    items: Items,
    trains: NDArray[np.bool_],
    recipe: SeedRecipe,
    progress: Progress,
) -> Any:
    """Train a network, or read it if the run already has it."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def fit() -> tuple[nn.Module, list[float]]:
        torch.manual_seed(recipe.seed)
        network = kind.network().to(device)
        learner = Learner(network, lambda examples: kind.logits(network, device, examples))
        chosen = [items.examples[k] for k in np.flatnonzero(trains).tolist()]
        losses = fit_seed(learner, chosen, items.fake[trains], recipe)
        total = recipe.epochs * ceil(len(chosen) / recipe.batch)
        return network, list(progress.track(losses, total=total, description=name))

    facts = {"detector": kind.name, "seed": str(recipe.seed)}
    return kind.detector.load(trained(run, name, fit, facts, torch.float16), device.type)


def _faces(network: nn.Module, device: torch.device, faces: Examples) -> Tensor:
    found: Tensor = network(frame_efficientnet_b4.INPUT.tensor(faces, device))
    return found


def _frames(network: nn.Module, device: torch.device, clips: Examples) -> Tensor:
    pictures = temporal_3dcnn.INPUT.tensor(clips.reshape(-1, *clips.shape[2:]), device)
    found: Tensor = network(pictures.view(*clips.shape[:2], *pictures.shape[1:]).transpose(1, 2))
    return found


def _windows(network: nn.Module, device: torch.device, windows: Examples) -> Tensor:
    found: Tensor = network(torch.from_numpy(windows).to(device).unsqueeze(1))
    return found


B4 = Seed(FrameEfficientNetB4, FrameB4Network, _faces)
CNN3D = Seed(Temporal3dCnn, Temporal3dNetwork, _frames)
MEL = Seed(MelResNet18, MelNetwork, _windows)
