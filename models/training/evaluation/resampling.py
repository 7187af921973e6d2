"""Intervals: resampling of whole groups, so that related items do not count as independent, and DeLong's for AUCs."""

from collections.abc import Callable, Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from scipy.stats import norm, rankdata

from clipwarden.models.training.evaluation.figures import Bools, Floats, ranking
from clipwarden.models.training.measure import COVERED, RESAMPLES

Figures = Callable[[Floats], dict[str, Floats]]
"""From weights (R, N) to named figures (R,)."""

_AT_ONCE: Final = 2_000_000
"""Weights held at a time."""


class Interval(BaseModel):
    """A figure with its 95 % interval; None where it is not defined (too few groups, one label only)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    value: float | None
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        if self.value is None:
            return "undefined"
        if self.low is None or self.high is None:
            return f"{self.value:.3f}"
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def intervals(
    figures: Figures, groups: NDArray[np.int64], seed: int = 0, resamples: int = RESAMPLES
) -> dict[str, Interval]:
    """Every figure of the set itself, and between which values it lies in 95 % of the resamples that define it."""
    n = len(groups)
    values = {name: float(value[0]) for name, value in figures(np.ones((1, n))).items()}
    drawn: dict[str, list[Floats]] = {name: [] for name in values}
    for weight in resampled(groups, seed, resamples):
        for name, value in figures(weight).items():
            drawn[name].append(value)
    return {name: _interval(value, np.concatenate(drawn[name])) for name, value in values.items()}


def paired(
    fake: Bools, first: Floats, second: Floats, groups: NDArray[np.int64], seed: int = 0, weight: Floats | None = None
) -> dict[str, Interval]:
    """AUC of the "first" scores, of the "second", and their "difference", over the same resamples of weighed items."""

    def of(drawn: Floats) -> dict[str, Floats]:
        times = drawn if weight is None else drawn * weight
        areas = [ranking(fake, score, times)["auc"] for score in (first, second)]
        return {"first": areas[0], "second": areas[1], "difference": areas[0] - areas[1]}

    return intervals(of, groups, seed)


def resampled(groups: NDArray[np.int64], seed: int, resamples: int) -> Iterator[Floats]:
    """Blocks of weights (R, N): each resample draws as many groups as there are, with replacement."""
    _, member = np.unique(groups, return_inverse=True)
    count = int(member.max()) + 1
    rng, block = np.random.default_rng(seed), max(_AT_ONCE // len(groups), 1)
    for start in range(0, resamples, block):
        drawn = rng.multinomial(count, np.full(count, 1 / count), size=min(block, resamples - start))
        yield drawn[:, member].astype(np.float64)


def _interval(value: float, drawn: Floats) -> Interval:
    defined = drawn[np.isfinite(drawn)]
    if not np.isfinite(value) or len(defined) < len(drawn) / 2:
        return Interval(value=value if np.isfinite(value) else None)
    low, high = np.percentile(defined, COVERED)
    return Interval(value=value, low=float(low), high=float(high))


def unbounded(found: Interval) -> Interval:
    """Without its bounds if no resample moved it: a perfect ranking of few items, or one group, is no certainty."""
    return Interval(value=found.value) if found.low == found.high else found


def exact(found: Interval, groups: int) -> Interval:
    """A share of 0 or 1, which no resample can move, with the bound of Clopper and Pearson over independent groups."""
    if found.value not in {0.0, 1.0} or groups == 0:
        return found
    least = float(0.025 ** (1 / groups))
    return Interval(value=found.value, low=least if found.value else 0.0, high=1.0 if found.value else 1 - least)


def delong(fake: Bools, first: Floats, second: Floats) -> Interval:
    """AUC of the first scores less that of the second on the same items, with DeLong's interval (Biometrics 1988).

    Computed by ranks as Sun and Xu do (IEEE SPL 2014). Takes items as independent; undefined below two of each label.
    """
    m, n = int(fake.sum()), int((~fake).sum())
    if min(m, n) < 2:
        return Interval(value=None)
    placed = [_placements(fake, scores) for scores in (first, second)]
    areas = [float(over.mean()) for over, _ in placed]
    difference = areas[0] - areas[1]
    spread = [np.var(placed[0][k] - placed[1][k], ddof=1) / size for k, size in ((0, m), (1, n))]
    reach = float(norm.ppf(0.975) * np.sqrt(sum(spread)))
    return Interval(value=difference, low=difference - reach, high=difference + reach)


def _placements(fake: Bools, scores: Floats) -> tuple[Floats, Floats]:
    """For each fake item the share of real ones below it, for each real one the share of fakes above; ties half."""
    ranks = rankdata(scores)
    over = (ranks[fake] - rankdata(scores[fake])) / (~fake).sum()
    under = 1 - (ranks[~fake] - rankdata(scores[~fake])) / fake.sum()
    return over, under
