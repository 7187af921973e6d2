"""Fits fusion heads: logistic regression with coefficients ≥ 0, a bounded temperature, and thresholds by policy.

Everything that is reported comes from scores out of fold: of the detectors (their own folds) and of the head.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize, minimize_scalar
from scipy.special import expit

from clipwarden.models.fusion.bundle import Head, Linear, Thresholds
from clipwarden.models.training.measure import measures
from clipwarden.shared.errors import ConfigError

Floats = NDArray[np.float64]
TEMPERATURE_RANGE = (0.5, 5.0)
L2 = 1.0
ERROR_BOUND = 0.10
"""The `balanced` policy: at most this share of real clips called fake, and of fake clips called real, out of fold."""
LEAST_MARGIN = 0.05
"""Both thresholds stay this far from 0.5, so that chance is never a verdict."""


@dataclass(frozen=True, slots=True)
class Table:
    """x: (N, columns) as the catalogue transforms them; fake: bool (N,); group, fold: int (N,)."""

    columns: tuple[str, ...]
    x: Floats
    fake: NDArray[np.bool_]
    group: NDArray[np.int64]
    fold: NDArray[np.int64]


def fit_head(name: str, table: Table, fitted_on: str) -> Head:
    """Fit one head on all rows; temperature, thresholds and metrics come from the rows' held-out folds.

    Raises ConfigError for one class only, or a set that the head separates: a temperature would be meaningless.
    """
    if len(set(table.fake.tolist())) < 2:
        raise ConfigError(f"head {name}: the table holds one class only")
    weight = _weights(table)
    held_out = np.empty(len(table.fake))
    for fold in np.unique(table.fold):
        test = table.fold == fold
        model = fit_linear(table.x[~test], table.fake[~test], _weights(_rows(table, ~test)))
        held_out[test] = logits(model, table.x[test])
    if held_out[table.fake].min() > held_out[~table.fake].max():
        raise ConfigError(f"head {name}: the classes are separated, so no temperature can be fitted")
    temperature = fit_temperature(held_out, table.fake, weight)
    probability = expit(held_out / temperature)
    thresholds = _thresholds(probability, table.fake)
    return Head(
        name=name,
        feature_cols=table.columns,
        model=fit_linear(table.x, table.fake, weight),
        temperature=temperature,
        thresholds=thresholds,
        fitted_on=fitted_on,
        metrics=_metrics(probability, table, weight, thresholds),
    )


def fit_linear(x: Floats, fake: NDArray[np.bool_], weight: Floats) -> Linear:
    """Weighted logistic regression on standardised columns, L2 on the coefficients, each coefficient ≥ 0."""
    total = weight.sum()
    mean = weight @ x / total
    scale = np.sqrt(weight @ (x - mean) ** 2 / total)
    scale[scale < 1e-9] = 1.0
    z, sign = (x - mean) / scale, np.where(fake, 1.0, -1.0)

    def loss(theta: Floats) -> tuple[float, Floats]:
        margin = sign * (theta[0] + z @ theta[1:])
        pull = -weight * sign * expit(-margin)
        value = weight @ np.logaddexp(0, -margin) + L2 / 2 * theta[1:] @ theta[1:]
        return float(value), np.concatenate([[pull.sum()], z.T @ pull + L2 * theta[1:]])

    bounds = [(None, None), *[(0.0, None)] * x.shape[1]]
    theta = minimize(loss, np.zeros(x.shape[1] + 1), jac=True, method="L-BFGS-B", bounds=bounds).x
    return Linear(intercept=float(theta[0]), coef=tuple(theta[1:]), mean=tuple(mean), scale=tuple(scale))


def logits(model: Linear, x: Floats) -> Floats:
    """Log-odds of fake before the temperature, shape (N,)."""
    standardised = (x - np.array(model.mean)) / np.array(model.scale)
    return np.asarray(model.intercept + standardised @ np.array(model.coef))


def fit_temperature(logit: Floats, fake: NDArray[np.bool_], weight: Floats) -> float:
    """The T in TEMPERATURE_RANGE that minimises the weighted log-loss of sigmoid(logit / T)."""
    sign = np.where(fake, 1.0, -1.0)

    def loss(temperature: float) -> float:
        return float(weight @ np.logaddexp(0, -sign * logit / temperature))

    return float(minimize_scalar(loss, bounds=TEMPERATURE_RANGE, method="bounded").x)


def _weights(table: Table) -> Floats:
    """1/√n of the row's group, then both classes to the same sum: class prior one half, N in all."""
    _, inverse, counts = np.unique(table.group, return_inverse=True, return_counts=True)
    weight = 1 / np.sqrt(counts[inverse])
    for side in (table.fake, ~table.fake):
        weight[side] *= len(weight) / 2 / weight[side].sum()
    return weight


def _rows(table: Table, mask: NDArray[np.bool_]) -> Table:
    return Table(table.columns, table.x[mask], table.fake[mask], table.group[mask], table.fold[mask])


def _thresholds(probability: Floats, fake: NDArray[np.bool_]) -> Thresholds:
    """The least extreme thresholds that keep both error shares within ERROR_BOUND."""
    upper = float(np.quantile(probability[~fake], 1 - ERROR_BOUND))
    lower = float(np.quantile(probability[fake], ERROR_BOUND))
    return Thresholds(real=min(lower, 0.5 - LEAST_MARGIN), fake=max(upper, 0.5 + LEAST_MARGIN))


def _metrics(probability: Floats, table: Table, weight: Floats, thresholds: Thresholds) -> dict[str, float]:
    fake, score = table.fake, probability
    measured = measures(fake, score, [str(g) for g in table.group], seed=0).auc
    clipped = np.clip(score, 1e-12, 1 - 1e-12)
    loss = -np.where(fake, np.log(clipped), np.log(1 - clipped))
    called = (score >= thresholds.fake) | (score <= thresholds.real)
    return {
        "clips": float(len(fake)),
        "real_clips": float((~fake).sum()),
        "auc": measured.value,
        "auc_low": measured.low,
        "auc_high": measured.high,
        "log_loss": float(weight @ loss / weight.sum()),
        "false_positive_rate": float((score[~fake] >= thresholds.fake).mean()),
        "true_positive_rate": float((score[fake] >= thresholds.fake).mean()),
        "conclusive_share": float(called.mean()),
    }
