"""How well scores tell two labels apart, with intervals that respect which clips belong together."""

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from scipy.stats import rankdata

Labels = NDArray[np.bool_]
Scores = NDArray[np.float64]

RESAMPLES: Final = 1000
COVERED: Final = (2.5, 97.5)  # percentiles


class Estimate(BaseModel):
    """A figure with its 95 % bootstrap interval over groups."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


class Measures(BaseModel):
    """Ranking quality over a set of clips; 0.5 is chance for both."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    real: int
    fake: int
    groups: int
    auc: Estimate
    eer: Estimate


def auc(fake: Labels, scores: Scores) -> float:
    """Probability that a fake scores above a real clip, ties counting half. Needs both labels."""
    n_fake = int(fake.sum())
    ranks = rankdata(scores)
    return float((ranks[fake].sum() - n_fake * (n_fake + 1) / 2) / (n_fake * (len(scores) - n_fake)))


def eer(fake: Labels, scores: Scores) -> float:
    """Equal error rate: where misses equal false alarms, between thresholds by straight line. Needs both labels."""
    order = np.argsort(-scores, kind="stable")
    last_of_tie = np.append(np.diff(scores[order]) != 0, True)
    found = np.cumsum(fake[order])[last_of_tie]
    alarms = np.cumsum(~fake[order])[last_of_tie]
    miss = np.concatenate([[1.0], 1 - found / fake.sum()])
    alarm = np.concatenate([[0.0], alarms / (~fake).sum()])
    after = int(np.argmax(alarm >= miss))
    gap_before, gap_after = miss[after - 1] - alarm[after - 1], alarm[after] - miss[after]
    share = gap_before / (gap_before + gap_after)
    return float(alarm[after - 1] + share * (alarm[after] - alarm[after - 1]))


def measures(fake: Labels, scores: Scores, groups: Sequence[str], seed: int) -> Measures:
    """AUC and EER; intervals by resampling whole groups, so that related clips do not count as independent."""
    return Measures(
        real=int((~fake).sum()),
        fake=int(fake.sum()),
        groups=len(set(groups)),
        auc=_estimate(auc, fake, scores, groups, seed),
        eer=_estimate(eer, fake, scores, groups, seed),
    )


def _estimate(
    figure: Callable[[Labels, Scores], float], fake: Labels, scores: Scores, groups: Sequence[str], seed: int
) -> Estimate:
    names, member = np.unique(np.asarray(groups), return_inverse=True)
    members = [np.flatnonzero(member == k) for k in range(len(names))]
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(RESAMPLES):
        chosen = np.concatenate([members[k] for k in rng.integers(len(members), size=len(members))])
        if 0 < fake[chosen].sum() < len(chosen):
            values.append(figure(fake[chosen], scores[chosen]))
    low, high = np.percentile(values, COVERED)
    return Estimate(value=figure(fake, scores), low=float(low), high=float(high))
