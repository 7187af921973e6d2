"""Fits linear discriminants: one direction between two labels, against a scatter that is shrunk towards a sphere."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve
from scipy.optimize import minimize_scalar

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

FLATTEST, STEEPEST = 1e-3, 10.0
LEAST_SPREAD: Final = 1e-6


@dataclass(frozen=True, slots=True)
class Direction:
    """The logit of a row x (D,) is weight @ x + bias, for labels that are equally likely."""

    weight: Floats
    bias: float


def scaling(rows: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Weighted mean and spread (D,) of rows (N, D); the weights sum to one."""
    mean = weights @ rows
    return mean, np.sqrt(np.maximum(weights @ np.square(rows - mean), LEAST_SPREAD**2))


def fit_direction(
    rows: Floats,
    fake: Bools,
    weights: Floats,
    shrinkage: float,
    groups: NDArray[np.str_] | None = None,
    between: float = 1.0,
) -> Direction:
    """Discriminant of rows (N, D) with (1 - shrinkage) of their scatter within labels and `shrinkage` of a sphere's.

    That sphere has the scatter's own mean variance. Of the scatter within labels the part between `groups` (N,) counts
    `between` times.
    """
    means = [np.average(rows[side], axis=0, weights=weights[side]) for side in (fake, ~fake)]
    share = weights / weights.sum()
    apart = np.where(fake[:, None], *(rows - mean for mean in means))
    if groups is not None:
        common = _group_means(apart, fake, share, groups)
        apart = np.concatenate([apart - common, common * np.sqrt(between)])
        share = np.tile(share, 2)
    apart *= np.sqrt(share)[:, None]
    sphere = shrinkage * np.square(apart).sum() / rows.shape[1]
    weight = _solved(apart * np.sqrt(1 - shrinkage), sphere, means[0] - means[1])
    return Direction(weight, float(-weight @ (means[0] + means[1]) / 2))


def _group_means(apart: Floats, fake: Bools, share: Floats, groups: NDArray[np.str_]) -> Floats:
    """Each row's mean over the rows of its label and group, (N, D)."""
    common = np.empty_like(apart)
    for side in (fake, ~fake):
        for group in np.unique(groups[side]):
            of = side & (groups == group)
            common[of] = np.average(apart[of], axis=0, weights=share[of])
    return common


def _solved(apart: Floats, sphere: float, between: Floats) -> Floats:
    """(apartᵀ apart + sphere)⁻¹ between, by the smaller side of `apart` (Woodbury's identity)."""
    if len(apart) >= len(between):
        return np.asarray(solve(apart.T @ apart + sphere * np.eye(len(between)), between, assume_a="pos"))
    inner = solve(apart @ apart.T + sphere * np.eye(len(apart)), apart @ between, assume_a="pos")
    return np.asarray((between - apart.T @ inner) / sphere)


def best_slope(logits: Floats, fake: Bools, weights: Floats) -> float:
    """What the logits must be multiplied with to have the least log-loss: a discriminant is too sure of itself."""
    signs = np.where(fake, 1.0, -1.0)

    def loss(log_slope: float) -> float:
        return float(weights @ np.logaddexp(0, -signs * logits * np.exp(log_slope)))

    return float(np.exp(minimize_scalar(loss, bounds=np.log([FLATTEST, STEEPEST]), method="bounded").x))
