"""What a run on the video corpus reports: the clips it learnt from, and figures of their out-of-fold scores."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from clipwarden.models.training.measure import COVERED, RESAMPLES, Estimate, Labels, Scores, auc, measures
from clipwarden.models.training.run_folder import ScoreRow, licence_counts, read_table
from clipwarden.models.training.video_data import FOLDS, VideoClip

RISK: Final = 0.1
"""Share of a label that a threshold may give away."""


def clip_facts(data: Path, clips: Sequence[VideoClip]) -> dict[str, Any]:
    """Counts and licences of clips, as a card states them."""
    fake, paths = sum(c.fake for c in clips), {c.path for c in clips}
    rows = read_table(data / "video/manifest.csv", ("path", "licence"))
    licences = licence_counts(row for row in rows if row["path"] in paths)
    return {"fake": fake, "real": len(clips) - fake, "licences": licences, "paths": sorted(paths)}


def clip_row(clip: VideoClip, logit: float) -> ScoreRow:
    """A clip's row in a file of scores."""
    return ScoreRow(clip.path, "fake" if clip.fake else "real", clip.group, clip.fold, logit)


def clip_metrics(clips: Sequence[VideoClip], scores: Sequence[ScoreRow], seed: int) -> dict[str, Any]:
    """Figures of out-of-fold scores: over all, by fold, and by repository."""
    score = {row.path: row.score_logit for row in scores}

    def part(chosen: Sequence[VideoClip]) -> dict[str, Any]:
        fake, values = np.array([c.fake for c in chosen]), np.array([score[c.path] for c in chosen])
        return measures(fake, values, [c.group for c in chosen], seed).model_dump()

    return {
        "all": part(clips),
        "folds": {k: part([c for c in clips if c.fold == k]) for k in range(FOLDS)},
        "source_matched_auc": _source_matched(clips, score),
    }


def _source_matched(clips: Sequence[VideoClip], score: dict[str, float]) -> dict[str, float | int]:
    """Real against fake of the same repository, by the out-of-fold scores, averaged over repositories."""
    found = _repositories(clips)
    values = [auc(np.array([c.fake for c in of]), np.array([score[c.path] for c in of])) for of in found]
    return {"repositories": len(values), "mean": float(np.mean(values)), "spread": float(np.std(values))}


def left_out(clips: Sequence[VideoClip]) -> list[tuple[list[VideoClip], list[VideoClip]]]:
    """For each repository with clips of both labels: its clips, and those that share none of its sources with it.

    Neither the repository, nor its generators elsewhere, nor its people or footage are among the latter.
    """
    return [(tested, _apart(clips, tested)) for tested in _repositories(clips)]


def left_out_auc(clips: Sequence[VideoClip], logits: NDArray[np.float64], seed: int) -> dict[str, Any]:
    """AUC of real against fake within each repository, averaged; the interval resamples repositories."""
    place = {clip: k for k, clip in enumerate(clips)}
    values = []
    for tested in _repositories(clips):
        fake = np.array([c.fake for c in tested])
        values.append(auc(fake, logits[[place[c] for c in tested]]))
    rng = np.random.default_rng(seed)
    means = [float(np.mean(rng.choice(values, len(values)))) for _ in range(RESAMPLES)]
    low, high = np.percentile(means, COVERED)
    mean = Estimate(value=float(np.mean(values)), low=float(low), high=float(high))
    return {"repositories": len(values), "auc": mean.model_dump()}


def operation(fake: Labels, fold: NDArray[np.int64], logits: Mapping[str, Scores]) -> dict[str, dict[str, float]]:
    """What becomes of clips by version, at thresholds that suit the other folds' clips as they are.

    Above the upper threshold lie RISK of the real clips, below the lower RISK of the fakes; what lies between is
    inconclusive.
    """
    first = next(iter(logits.values()))
    upper, lower = np.empty(len(fake)), np.empty(len(fake))
    for k in np.unique(fold):
        upper[fold == k] = np.quantile(first[(fold != k) & ~fake], 1 - RISK)
        lower[fold == k] = np.quantile(first[(fold != k) & fake], RISK)
    return {name: _shares(fake, values > upper, values < np.minimum(lower, upper)) for name, values in logits.items()}


def _shares(fake: Labels, called_fake: Labels, called_real: Labels) -> dict[str, float]:
    open_ = ~called_fake & ~called_real
    return {
        "fake_called_fake": float(called_fake[fake].mean()),
        "real_called_fake": float(called_fake[~fake].mean()),
        "fake_called_real": float(called_real[fake].mean()),
        "real_called_real": float(called_real[~fake].mean()),
        "fake_inconclusive": float(open_[fake].mean()),
        "real_inconclusive": float(open_[~fake].mean()),
    }


def _repositories(clips: Sequence[VideoClip]) -> list[list[VideoClip]]:
    """Clips by repository, of those that have both labels."""
    names = sorted({c.repository for c in clips})
    found = [[c for c in clips if c.repository == name] for name in names]
    return [of for of in found if 0 < sum(c.fake for c in of) < len(of)]


def _apart(clips: Sequence[VideoClip], tested: Sequence[VideoClip]) -> list[VideoClip]:
    groups, people = {c.group for c in tested}, {c.identity for c in tested if c.identity}
    footage = {c.matched_group for c in tested if c.matched_group}
    repository = {c.repository for c in tested}
    return [
        c
        for c in clips
        if c.repository not in repository
        and c.group not in groups
        and c.identity not in people
        and c.matched_group not in footage
    ]
