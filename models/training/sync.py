"""The run that makes the sync towers, on real clips alone: five folds of people never seen, then all of them.

Each tested clip is judged as it is, and with its sound 0.2 to 1 s early or late.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from rich.progress import Progress

from clipwarden.models.audio.speech import speech_network
from clipwarden.models.checkpoint import save_from
from clipwarden.models.lipsync.av_sync import AvSync
from clipwarden.models.training.evaluation.figures import balanced, refit
from clipwarden.models.training.measure import measures
from clipwarden.models.training.run_folder import RunFolder, ScoreRow, begin_run
from clipwarden.models.training.sync_data import SyncCache, shifted, talk_of
from clipwarden.models.training.sync_fit import SyncRecipe, fit_sync
from clipwarden.models.training.video_data import FOLDS, VideoClip, read_clips, training_clips
from clipwarden.models.training.video_report import clip_facts, clip_row
from clipwarden.shared.clip import Clip
from clipwarden.shared.errors import NotApplicable

NAME: Final = "av_sync"
TRIALS: Final = 4
SHIFT_S: Final = (0.2, 1.0)


def train_sync(data: Path, out: Path, seed: int, jobs: int, progress: Progress) -> RunFolder:
    """Train, score out of fold, measure. A stopped run goes on with the mouths that it has."""
    torch.set_num_threads(jobs)
    recipe = SyncRecipe()
    run = begin_run(out, NAME, seed, recipe, data / "video")
    clips = [c for c in read_clips(data) if c.audio_label == "bonafide"]
    cache = SyncCache(data, run.folder("clips"), jobs)
    for _ in progress.track(cache.fill(clips), total=len(clips), description="mouths"):
        pass
    kept = progress.track([c for c in clips if cache.holds(c)], description="moments")
    talks = [talk for clip in kept if (talk := talk_of(clip, cache.content(clip)))]
    scores: list[ScoreRow] = []
    for fold in progress.track(range(FOLDS), description="folds"):
        tested = [t.clip for t in talks if t.clip.fold == fold]
        trained = set(training_clips(clips, tested))
        network = fit_sync([t for t in talks if t.clip in trained], recipe)
        detector = AvSync(network, speech_network())
        scores += [row for clip in tested for row in _tried(detector, clip, cache.content(clip), seed)]
    final = fit_sync(talks, recipe)
    scale, bias = _calibration(scores)
    with torch.no_grad():
        final.scorer.scale.fill_(scale)
        final.scorer.bias.fill_(bias)
    save_from(final, run.path / f"{NAME}.safetensors", {"detector": NAME, "seed": str(seed)})
    scores = [replace(row, score_logit=scale * row.score_logit - bias) for row in scores]
    run.write_scores("scores.csv", scores)
    run.write_json("metrics.json", _metrics(scores, seed))
    run.write_json("data.json", clip_facts(data, [t.clip for t in talks]))
    return run


def _calibration(scores: Sequence[ScoreRow]) -> tuple[float, float]:
    """What a mean cosine is to be multiplied with, and what to add, to be the log-odds of being in sync."""
    moved = np.array([row.label == "fake" for row in scores])
    even = balanced(moved, np.ones((1, len(moved))))
    intercept, slope = refit(moved, np.array([row.score_logit for row in scores]), even)
    return float(slope[0]), -float(intercept[0])


def _scored(detector: AvSync, clip: VideoClip, content: Clip, path: str) -> list[ScoreRow]:
    """One row with the score's logit, none if the clip cannot be judged so."""
    try:
        score = detector.assess(content).score
    except NotApplicable:
        return []
    logit = float(np.log(score) - np.log1p(-score))
    return [replace(clip_row(clip, logit), path=path)]


def _tried(detector: AvSync, clip: VideoClip, content: Clip, seed: int) -> Iterator[ScoreRow]:
    """The clip as it is ("real") and with its sound early and late ("fake"), by shifts of the clip's own."""
    group = clip.identity or clip.matched_group or clip.group
    whole = replace(clip, group=group)
    yield from _scored(detector, whole, content, clip.path)
    rng = np.random.default_rng([seed, *clip.path.encode()])
    for k, size in enumerate(rng.uniform(*SHIFT_S, TRIALS)):
        by_s = float(size) * (-1) ** k
        yield from _scored(detector, replace(whole, fake=True), shifted(content, by_s), f"{clip.path} {by_s:+.3f} s")


def _metrics(trials: Sequence[ScoreRow], seed: int) -> dict[str, Any]:
    def part(rows: Sequence[ScoreRow]) -> dict[str, Any]:
        moved, scores = np.array([r.label == "fake" for r in rows]), np.array([r.score_logit for r in rows])
        return measures(moved, scores, [r.group for r in rows], seed).model_dump()

    return {"all": part(trials), "folds": {k: part([r for r in trials if r.fold == k]) for k in range(FOLDS)}}
