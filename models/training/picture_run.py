"""Runs that train a network of single faces: five folds by generator, person and footage, then all clips."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from rich.progress import Progress
from torch import Tensor, nn

from clipwarden.models.training.clip_cache import ClipCache
from clipwarden.models.training.networks import trained
from clipwarden.models.training.picture_fit import ClipPictures, PictureRecipe, Pictures, fit_pictures
from clipwarden.models.training.run_folder import AS_IT_IS, CODED, RunFolder, begin_run
from clipwarden.models.training.video_data import FOLDS, VideoClip, read_clips, training_clips
from clipwarden.models.training.video_report import clip_facts, clip_metrics, clip_row
from clipwarden.models.visual.frame_resnet18 import FrameResNet18
from clipwarden.models.visual.tiny_gate import TinyGate


@dataclass(frozen=True, slots=True)
class PictureNetwork:
    """A detector of single faces and how it learns. `logits` takes crops through its network, to (N,).

    `options` are those of its weights entry, `kept` the type in which its numbers are kept.
    """

    detector: type[FrameResNet18 | TinyGate]
    network: Callable[[], nn.Module]
    logits: Callable[[nn.Module, Pictures], Tensor]
    recipe: PictureRecipe
    options: dict[str, str]
    kept: torch.dtype = torch.float32

    @property
    def name(self) -> str:
        return self.detector.spec.name


def train_pictures(of: PictureNetwork, data: Path, out: Path, seed: int, jobs: int, progress: Progress) -> RunFolder:
    """Train, score out of fold, measure. A stopped run goes on after its last finished network."""
    torch.set_num_threads(jobs)
    run = begin_run(out, of.name, seed, of.recipe, data / "video", options=of.options)
    clips = read_clips(data)
    cache = faces_in(run, of, data, jobs)
    for _ in progress.track(cache.fill(clips), total=2 * len(clips), description="faces"):
        pass
    seen = [m for c in clips if (m := _pictures(cache, c)) is not None]
    scores = []
    for fold in range(FOLDS):
        tested = [m for m in seen if m.clip.fold == fold]
        kept = set(training_clips(clips, [m.clip for m in tested]))
        detector = _detector(of, run, f"fold-{fold}", [m for m in seen if m.clip in kept], seed, progress)
        judged = progress.track(tested, description=f"fold {fold} judged")
        scores += [clip_row(m.clip, float(detector.predict(m.plain).mean())) for m in judged]
    _detector(of, run, of.name, seen, seed, progress)
    run.write_scores("scores.csv", scores)
    run.write_json("metrics.json", clip_metrics([m.clip for m in seen], scores, seed))
    run.write_json("data.json", clip_facts(data, [m.clip for m in seen]))
    return run


def faces_in(run: RunFolder, of: PictureNetwork, data: Path, jobs: int) -> ClipCache:
    """The faces that the run keeps."""
    return ClipCache(data, run.folder("faces"), of.detector.spec, lambda view: view.images, jobs)


def fit_network(
    of: PictureNetwork, material: Sequence[ClipPictures], seed: int, progress: Progress, name: str
) -> tuple[nn.Module, list[float]]:
    """Train one network from random numbers; returned in eval mode, with the loss of every step."""
    torch.manual_seed(seed)
    network = of.network()
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    steps = fit_pictures(network, lambda crops: of.logits(network, crops), material, of.recipe, seed)
    return network, list(progress.track(steps, total=of.recipe.steps, description=name))


def _pictures(cache: ClipCache, clip: VideoClip) -> ClipPictures | None:
    plain, copied = cache.rows(clip, AS_IT_IS), cache.rows(clip, CODED)
    return ClipPictures(clip, plain, copied) if len(plain) and len(copied) else None


def _detector(
    of: PictureNetwork, run: RunFolder, name: str, material: Sequence[ClipPictures], seed: int, progress: Progress
) -> FrameResNet18 | TinyGate:
    """Train a network, or read it if the run already has it."""
    facts = {"detector": of.name, "seed": str(seed)}
    weights = trained(run, name, lambda: fit_network(of, material, seed, progress, name), facts, of.kept)
    return of.detector.load(replace(weights, options=of.options), "cpu")
