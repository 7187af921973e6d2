"""The run that makes the frame statistics: five folds by generator, person and footage, then all clips.

Beside the folds, each repository that has both real and fake clips is left out in turn, its generators with it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import Progress

from clipwarden.models.backbones.discriminant import Discriminant
from clipwarden.models.backbones.efficientnet_lite0 import INPUT
from clipwarden.models.backbones.pictures import infer
from clipwarden.models.checkpoint import save_from
from clipwarden.models.training.clip_cache import ClipCache
from clipwarden.models.training.discriminant import best_slope, fit_direction, scaling
from clipwarden.models.training.run_folder import AS_IT_IS, CODED, THINNED, RunFolder, begin_run
from clipwarden.models.training.video_data import FOLDS, VideoClip, clip_weights, read_clips, training_clips
from clipwarden.models.training.video_report import (
    clip_facts,
    clip_metrics,
    clip_row,
    left_out,
    left_out_auc,
    operation,
)
from clipwarden.models.visual.frame_stats import AT_ONCE, COUNT, FrameStats, stage_statistics
from clipwarden.shared.clip import View

NAME: Final = "frame_stats"
JUDGED: Final = (AS_IT_IS, THINNED, CODED)
Numbers = NDArray[np.float32]
Logits = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class FramesRecipe:
    """`shrinkage` is the weight of the sphere that the scatter within labels is mixed with.

    `between` is how much of the scatter between generators or sources counts in it: little, for unseen ones lie
    elsewhere. Of a clip's faces all are judged, and every `every`-th is learnt from; of a copy's only these are judged.
    """

    shrinkage: float = 0.35
    between: float = 0.1
    every: int = 4


@dataclass(frozen=True, slots=True)
class Described:
    """A clip with the numbers (faces, COUNT) of its faces, at least one, by version as JUDGED names them."""

    clip: VideoClip
    versions: tuple[Numbers, ...]


def train_frames(data: Path, out: Path, seed: int, jobs: int, progress: Progress) -> RunFolder:
    """Train, score out of fold, measure. A stopped run goes on with the numbers that it has."""
    torch.set_num_threads(jobs)
    recipe = FramesRecipe()
    run = begin_run(out, NAME, seed, recipe, data / "video")
    clips = read_clips(data)
    seen = _described(data, run, clips, recipe, jobs, progress)
    folds = [[d for d in seen if d.clip.fold == k] for k in range(FOLDS)]
    kept = [set(training_clips(clips, [d.clip for d in fold])) for fold in folds]
    logits = _logits(seen, folds, kept, recipe, progress, "folds")
    fake, weights = np.array([d.clip.fake for d in seen]), clip_weights([d.clip for d in seen])
    slope = best_slope(logits[:, 0], fake, weights)
    scores = [clip_row(d.clip, float(slope * row[0])) for d, row in zip(seen, logits, strict=True)]
    final = fit_frames(seen, recipe, slope)
    save_from(final, run.path / f"{NAME}.safetensors", {"detector": NAME, "seed": str(seed)})
    run.write_scores("scores.csv", scores)
    run.write_json(
        "metrics.json",
        {
            **clip_metrics([d.clip for d in seen], scores, seed),
            "left_out_auc": _left_out(seen, recipe, seed, progress),
            "operation": operation(
                fake, np.array([d.clip.fold for d in seen]), dict(zip(JUDGED, logits.T, strict=True))
            ),
        },
    )
    run.write_json("data.json", clip_facts(data, [d.clip for d in seen]))
    return run


def fit_frames(material: Sequence[Described], recipe: FramesRecipe, slope: float = 1.0) -> Discriminant:
    """The discriminant of mean numbers of clips as they are, its logits times `slope`; in eval mode."""
    numbers = np.stack([d.versions[0][:: recipe.every].mean(axis=0) for d in material]).astype(np.float64)
    fake, groups = (np.array(of) for of in zip(*((d.clip.fake, d.clip.group) for d in material), strict=True))
    weights = clip_weights([d.clip for d in material])
    network = Discriminant(COUNT)
    for buffer, values in zip((network.scaler_mean, network.scaler_scale), scaling(numbers, weights), strict=True):
        buffer.copy_(torch.from_numpy(values))
    rows = network.standardised(torch.from_numpy(numbers)).numpy()
    direction = fit_direction(rows, fake, weights, recipe.shrinkage, groups, recipe.between)
    with torch.no_grad():
        network.fc.weight.copy_(torch.from_numpy(slope * direction.weight)[None])
        network.fc.bias.fill_(slope * direction.bias)
    return network.eval()


def _described(
    data: Path, run: RunFolder, clips: Sequence[VideoClip], recipe: FramesRecipe, jobs: int, progress: Progress
) -> list[Described]:
    """The clips whose faces are large enough, in every version."""
    statistics = stage_statistics("cpu")

    def cache(version: str, every: int) -> ClipCache:
        def numbers(view: View) -> Numbers:
            return infer(statistics, INPUT, view.images[::every], AT_ONCE)

        made = ClipCache(data, run.folder("numbers"), FrameStats.spec, numbers, jobs)
        for _ in progress.track(made.fill(clips, (version,)), total=len(clips), description=f"statistics, {version}"):
            pass
        return made

    plain, copies = cache(AS_IT_IS, 1), cache(CODED, recipe.every)
    rows = ((clip, plain.rows(clip), copies.rows(clip, CODED)) for clip in clips)
    return [Described(c, (whole, whole[:: recipe.every], copy)) for c, whole, copy in rows if len(whole) and len(copy)]


def _logits(
    seen: Sequence[Described],
    tests: Sequence[Sequence[Described]],
    kept: Sequence[set[VideoClip]],
    recipe: FramesRecipe,
    progress: Progress,
    name: str,
) -> Logits:
    """Logits (clips, versions) in the order of `seen` by discriminants of the clips kept for each test; else NaN."""
    logits, place = np.full((len(seen), len(JUDGED)), np.nan), {d.clip: k for k, d in enumerate(seen)}
    pairs = zip(tests, kept, strict=True)
    for tested, chosen in progress.track(pairs, total=len(tests), description=name):
        network = fit_frames([d for d in seen if d.clip in chosen], recipe)
        for d in tested:
            logits[place[d.clip]] = [_mean_logit(network, version) for version in d.versions]
    return logits


@torch.inference_mode()
def _mean_logit(network: Discriminant, numbers: Numbers) -> float:
    return float(network(torch.from_numpy(np.array(numbers))).mean())


def _left_out(seen: Sequence[Described], recipe: FramesRecipe, seed: int, progress: Progress) -> dict[str, Any]:
    tests = left_out([d.clip for d in seen])
    kept = [set(chosen) for _, chosen in tests]
    tested = [[d for d in seen if d.clip in set(of)] for of, _ in tests]
    logits = _logits(seen, tested, kept, recipe, progress, "repositories")[:, 0]
    judged = [k for k, logit in enumerate(logits) if np.isfinite(logit)]
    return left_out_auc([seen[k].clip for k in judged], logits[judged], seed)
