"""Every figure of a set of scores, for many resamples at once.

All functions take `weight` of shape (R, N), how often each of N items occurs in each of R resamples (one row of ones is
the set itself), and return (R,). NaN where a figure is not defined: without one of the two labels.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from clipwarden.models.fusion.replay import LABELS
from clipwarden.shared.contracts import Label

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Codes = NDArray[np.int64]

BINS: Final = 10
EDGE: Final = 1e-12
"""Probabilities are kept this far from 0 and 1 for their logarithms."""
_STEPS: Final = 30
_STEEPEST: Final = 1e3
"""Calibration slopes beyond this stand for a separated set, which has none."""

RANKING: Final = ("auc", "source_matched_auc", "eer", "average_precision", "fpr_at_95_tpr")
DECISION: Final = ("accuracy", "conclusive", "tpr_at_threshold", "fpr_at_threshold", "missed_at_threshold")
CALIBRATION: Final = ("brier", "log_loss", "calibration_slope", "calibration_intercept", "ece")


@dataclass(frozen=True, slots=True)
class Judged:
    """What was said of N items. score: (N,) in [0, 1]; label: (N,) as `replay.LABELS`; source: (N,), -1 if none."""

    fake: Bools
    score: Floats
    label: NDArray[np.int8]
    source: Codes

    def __len__(self) -> int:
        return len(self.fake)


def all_figures(judged: Judged, weight: Floats) -> dict[str, Floats]:
    """Ranking, decisions, calibration; `_balanced` ones weigh both labels alike, the prior that heads are fitted to."""
    fake, score = judged.fake, judged.score
    even = balanced(fake, weight)
    return {
        **ranking(fake, score, weight),
        "source_matched_auc": source_matched(judged, weight),
        **decisions(judged, weight),
        **calibration(fake, score, weight),
        **{f"{name}_balanced": value for name, value in calibration(fake, score, even).items()},
    }


def balanced(fake: Bools, weight: Floats) -> Floats:
    """The weights with both labels brought to half of each resample's total; NaN for a resample without one of them."""
    positive, negative = (weight[:, side].sum(axis=1) for side in (fake, ~fake))
    both = (positive > 0) & (negative > 0)
    half = np.where(both, (positive + negative) / 2, np.nan)
    factors = [(half / np.where(both, side, 1))[:, None] for side in (positive, negative)]
    return np.asarray(weight * np.where(fake, *factors))


@dataclass(frozen=True, slots=True)
class Steps:
    """Weight of fake and real items at each distinct score, ascending: (R, T) each."""

    fake: Floats
    real: Floats


def steps(fake: Bools, score: Floats, weight: Floats) -> Steps:
    order = np.argsort(score, kind="stable")
    starts = np.flatnonzero(np.append(True, np.diff(score[order]) != 0))
    weight, fake = weight[:, order], fake[order]
    return Steps(np.add.reduceat(weight * fake, starts, axis=1), np.add.reduceat(weight * ~fake, starts, axis=1))


def ranking(fake: Bools, score: Floats, weight: Floats) -> dict[str, Floats]:
    """AUC with ties counting half; EER between thresholds by straight line; AP as scikit-learn sums it; FPR at 95 %."""
    at = steps(fake, score, weight)
    positives, negatives = at.fake.sum(axis=1), at.real.sum(axis=1)
    found, alarms = (np.cumsum(side[:, ::-1], axis=1) for side in (at.fake, at.real))
    with np.errstate(invalid="ignore", divide="ignore"):
        below = np.cumsum(at.real, axis=1) - at.real / 2
        area = (at.fake * below).sum(axis=1) / (positives * negatives)
        tpr, fpr = found / positives[:, None], alarms / negatives[:, None]
        precision = np.where(found + alarms > 0, found / (found + alarms), 0.0)
        average = (at.fake[:, ::-1] * precision).sum(axis=1) / positives
    enough = np.argmax(tpr >= 0.95 - EDGE, axis=1)
    figures = {
        "auc": area,
        "eer": _equal_error(tpr, fpr),
        "average_precision": average,
        "fpr_at_95_tpr": fpr[np.arange(len(fpr)), enough],
    }
    return {name: np.where((positives > 0) & (negatives > 0), value, np.nan) for name, value in figures.items()}


def _equal_error(tpr: Floats, fpr: Floats) -> Floats:
    rows, start = np.arange(len(tpr)), np.zeros((len(tpr), 1))
    miss, alarm = np.hstack([start + 1, 1 - tpr]), np.hstack([start, fpr])
    after = np.maximum(np.argmax(alarm >= miss, axis=1), 1)
    gap_before = miss[rows, after - 1] - alarm[rows, after - 1]
    gap_after = alarm[rows, after] - miss[rows, after]
    with np.errstate(invalid="ignore", divide="ignore"):
        share = gap_before / (gap_before + gap_after)
    return np.asarray(alarm[rows, after - 1] + share * (alarm[rows, after] - alarm[rows, after - 1]))


def source_matched(judged: Judged, weight: Floats) -> Floats:
    """AUC of real against fake items of one source, averaged over the sources that have both, as often as drawn."""
    found, drawn = [], []
    for source in np.unique(judged.source[judged.source >= 0]):
        of = judged.source == source
        if 0 < judged.fake[of].sum() < of.sum():
            found.append(ranking(judged.fake[of], judged.score[of], weight[:, of])["auc"])
            drawn.append(weight[:, of].mean(axis=1))
    if not found:
        return np.full(len(weight), np.nan)
    per_source = np.array(found)
    times = np.where(np.isnan(per_source), 0, drawn)
    with np.errstate(invalid="ignore"):
        return np.asarray((np.nan_to_num(per_source) * times).sum(axis=0) / times.sum(axis=0))


def decisions(judged: Judged, weight: Floats) -> dict[str, Floats]:
    """What the labels do: right among the conclusive ones; shares of all fake and of all real items."""
    fake = judged.fake
    called, cleared = (judged.label == LABELS.index(side) for side in (Label.FAKE, Label.REAL))
    right = (called & fake) | (cleared & ~fake)
    return {
        "accuracy": _share(weight, right, called | cleared),
        "conclusive": _share(weight, called | cleared, np.ones_like(fake)),
        "tpr_at_threshold": _share(weight, called & fake, fake),
        "fpr_at_threshold": _share(weight, called & ~fake, ~fake),
        "missed_at_threshold": _share(weight, cleared & fake, fake),
    }


def counted(judged: Judged) -> dict[str, Bools]:
    """Which items each decision figure is a share of."""
    everything = np.ones_like(judged.fake)
    conclusive = judged.label != LABELS.index(Label.INCONCLUSIVE)
    sides = {"tpr_at_threshold": judged.fake, "missed_at_threshold": judged.fake, "fpr_at_threshold": ~judged.fake}
    return {"accuracy": conclusive, "conclusive": everything, **sides}


def _share(weight: Floats, some: Bools, all_: Bools) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((weight @ some.astype(np.float64)) / (weight @ all_.astype(np.float64)))


def calibration(fake: Bools, score: Floats, weight: Floats) -> dict[str, Floats]:
    """How far scores can be read as probabilities: slope 1 and intercept 0 of a logistic refit are ideal."""
    p = np.clip(score, EDGE, 1 - EDGE)
    total = weight.sum(axis=1)
    intercept, slope = refit(fake, np.log(p / (1 - p)), weight)
    bins = np.minimum((score * BINS).astype(int), BINS - 1)
    gaps = [np.abs(weight[:, bins == b] @ (score - fake)[bins == b]) for b in range(BINS)]
    return {
        "brier": weight @ (score - fake) ** 2 / total,
        "log_loss": weight @ -np.where(fake, np.log(p), np.log(1 - p)) / total,
        "calibration_slope": slope,
        "calibration_intercept": intercept,
        "ece": np.sum(gaps, axis=0) / total,
    }


def refit(fake: Bools, logit: Floats, weight: Floats) -> tuple[Floats, Floats]:
    """Intercept and slope of the logistic regression of the label on the logit, by damped Newton steps."""
    if len(logit) == 0 or float(np.ptp(logit)) < EDGE or fake.all() or not fake.any():
        return np.full(len(weight), np.nan), np.full(len(weight), np.nan)
    centre, spread = float(logit.mean()), float(logit.std())
    x = (logit - centre) / spread
    theta = np.zeros((len(weight), 2))
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        for _ in range(_STEPS):
            p = 1 / (1 + np.exp(-np.clip(theta[:, :1] + theta[:, 1:] * x, -500, 500)))
            pull, bend = weight * (fake - p), weight * p * (1 - p)
            a, b, c = bend.sum(axis=1), bend @ x, bend @ x**2
            first, second = pull.sum(axis=1), pull @ x
            step = np.stack([c * first - b * second, a * second - b * first], axis=1) / (a * c - b * b)[:, None]
            theta += np.clip(step, -2, 2)
            if not np.nanmax(np.abs(step), initial=0) > 1e-10:
                break
    slope = theta[:, 1] / spread
    settled = np.isfinite(slope) & (np.abs(step).max(axis=1) < 1e-6) & (np.abs(slope) < _STEEPEST)
    slope = np.where(settled, slope, np.nan)
    return np.where(settled, theta[:, 0] - slope * centre, np.nan), slope
