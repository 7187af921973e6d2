"""What fusion heads are fitted to and measured on: rows of scores, their labels, and what belongs together."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clipwarden.models.training.evaluation.figures import refit
from clipwarden.models.training.evaluation.resampling import Interval, intervals
from clipwarden.models.training.measure import measures
from clipwarden.shared.contracts import Branch

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Table:
    """One clip a row. x: (N, columns) as the catalogue transforms them, NaN where a detector has no score.

    fake, group, fold: (N,). Related clips share a group, and a group lies within one fold. share: (N,), how much a row
    counts beside others of its label and of a group as large; all alike if it is None. kin: (N, K), numbers of what a
    row may share with rows of other groups and folds, as a speaker, -1 for nothing.
    """

    columns: tuple[str, ...]
    x: Floats
    fake: Bools
    group: NDArray[np.int64]
    fold: NDArray[np.int64]
    share: Floats | None = None
    kin: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.fake)

    def rows(self, mask: Bools) -> "Table":
        share = None if self.share is None else self.share[mask]
        kin = None if self.kin is None else self.kin[mask]
        return Table(self.columns, self.x[mask], self.fake[mask], self.group[mask], self.fold[mask], share, kin)

    def holding(self, columns: Sequence[int]) -> Bools:
        """Which rows have a score in all of these columns."""
        return np.asarray(~np.isnan(self.x[:, list(columns)]).any(axis=1))


Apart = Mapping[frozenset[Branch], Table]
"""Rows with the columns of another table, for heads over just these branches to be measured on."""


@dataclass(frozen=True, slots=True)
class Measured:
    """Rows that have a head's scores, and the probabilities (N,) that it gives them, fitted on other folds."""

    table: Table
    probability: Floats


def unrelated(table: Table, fold: int, tested: Iterable[Table]) -> Bools:
    """Rows that may be fitted to when this fold of `tested` is judged: of other folds, and sharing nothing with it."""
    kin = [of.kin[of.fold == fold].ravel() for of in tested if of.kin is not None]
    kept = np.asarray(table.fold != fold)
    if table.kin is None or not kin:
        return kept
    shared = np.concatenate(kin)
    return np.asarray(kept & ~np.isin(table.kin, shared[shared >= 0]).any(axis=1))


def weights(table: Table) -> Floats:
    """1/√n of the row's group times its share, then both classes to the same sum: class prior one half, N in all."""
    _, inverse, counts = np.unique(table.group, return_inverse=True, return_counts=True)
    weight = 1 / np.sqrt(counts[inverse])
    if table.share is not None:
        weight = weight * table.share
    for side in (table.fake, ~table.fake):
        weight[side] *= len(weight) / 2 / weight[side].sum()
    return np.asarray(weight)


def metrics(measured: Measured) -> dict[str, float]:
    """Figures of held-out probabilities at a prior of one half: ranking, loss, slope; intervals over groups."""
    table, probability = measured.table, measured.probability
    fake, weight = table.fake, weights(table)
    ranked = measures(fake, probability, [str(g) for g in table.group], seed=0).auc
    clipped = np.clip(probability, 1e-12, 1 - 1e-12)
    loss = -np.where(fake, np.log(clipped), np.log(1 - clipped))
    slope = _slope(measured)
    return {
        "clips": float(len(fake)),
        "real_clips": float((~fake).sum()),
        "groups": float(len(np.unique(table.group))),
        "auc": ranked.value,
        "auc_low": ranked.low,
        "auc_high": ranked.high,
        "log_loss": float(weight @ loss / weight.sum()),
        "brier": float(weight @ (probability - fake) ** 2 / weight.sum()),
        **{name: value for name, value in slope.items() if value is not None},
    }


def _slope(measured: Measured) -> dict[str, float | None]:
    """Of the logistic regression of the label on the log-odds: 1 if they can be read as they are."""
    fake, p = measured.table.fake, np.clip(measured.probability, 1e-12, 1 - 1e-12)
    logit, weight = np.log(p / (1 - p)), weights(measured.table)

    def of(drawn: Floats) -> dict[str, Floats]:
        return {"slope": refit(fake, logit, drawn * weight)[1]}

    found: Interval = intervals(of, measured.table.group)["slope"]
    return {"slope": found.value, "slope_low": found.low, "slope_high": found.high}
