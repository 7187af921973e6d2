"""Fits a family of fusion heads: one over all detectors, and one for every subset of them, on the same clips.

Logistic regression with the signs that the catalogue allows, one temperature for the family, thresholds by policy.
Every figure comes from clips that had no say in the coefficients, the strength of the regularisation and the
temperature, nor in the detectors that scored them; as in all stacking, the detectors whose scores of other clips a head
is fitted to did learn from them.

A subset's head is fitted on the same clips with columns dropped, held so close to the whole family's that dropping a
detector which said nothing moves no probability by more than DROP_TOLERANCE, whatever the others say.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final

import numpy as np
from scipy.optimize import minimize, minimize_scalar
from scipy.special import expit

from clipwarden.models.catalogue import CATALOGUE, PROBABILITY_EDGE, logit
from clipwarden.models.fusion.bundle import TEMPERATURE_RANGE, Head, HeldOut, Linear
from clipwarden.models.fusion.policies import PREDEFINED, supported
from clipwarden.models.training.head_table import Apart, Bools, Floats, Measured, Table, metrics, unrelated, weights
from clipwarden.shared.errors import ConfigError

STRENGTHS: Final = (100.0, 30.0, 10.0, 3.0, 1.0, 0.3)
"""Weights of the squared coefficients to choose from, for a loss that sums over clips; of equals the first is taken."""
DROP_TOLERANCE: Final = 0.0175
TIE: Final = 4 * DROP_TOLERANCE / 2
"""Most log-odds between a subset's head and the family's: two heads differ by at most twice that, and a probability by
at most a quarter of the log-odds.
"""
DEFAULT_POLICY: Final = "balanced"


@dataclass(frozen=True, slots=True)
class Family:
    """Models by column indices, over shared standardisation, and the temperature they share."""

    models: dict[tuple[int, ...], Linear]
    temperature: float
    strength: float


def fit_family(
    table: Table, fitted_on: str, data: str, families: Mapping[int, Family], apart: Apart | None = None
) -> tuple[Head, ...]:
    """Heads for every subset of the table's detectors, fitted on the rows where all of them have scores.

    A head is measured by the `families` of `by_fold`, on the rows of its branches in `apart` if there are such, else on
    the table. Raises ConfigError if the classes are separated: a temperature would be meaningless.
    """
    family = fit(table)
    held_out = nested(table, families, apart)
    return tuple(_head(table, subset, family, held_out[subset], fitted_on, data) for subset in subsets(table.columns))


def subsets(columns: Sequence[str]) -> list[tuple[int, ...]]:
    """Column indices of every non-empty set of detectors, small sets first."""
    detectors = list(dict.fromkeys(CATALOGUE[c].detector for c in columns))
    chosen = [set(c) for k in range(1, len(detectors) + 1) for c in combinations(detectors, k)]
    return [tuple(i for i, name in enumerate(columns) if CATALOGUE[name].detector in some) for some in chosen]


def fit(table: Table) -> Family:
    """Choose the strength by grouped cross-validation, the temperature on the folds held out, then fit on all rows."""
    whole = table.rows(table.holding(range(len(table.columns))))
    strength = min(STRENGTHS, key=lambda s: _loss(whole, _held_out(whole, s, subsets(table.columns)[-1:])))
    every = subsets(table.columns)
    out = _held_out(whole, strength, every)
    stacked = np.concatenate([out[s] for s in every])
    weight = np.tile(weights(whole), len(every))
    temperature = fit_temperature(stacked, np.tile(whole.fake, len(every)), weight)
    return Family(fit_models(whole, every, strength, temperature), temperature, strength)


def fit_models(
    whole: Table, wanted: Sequence[tuple[int, ...]], strength: float, temperature: float = 1.0
) -> dict[tuple[int, ...], Linear]:
    """The models of the wanted subsets; `temperature` is what their tie to the whole family's is measured at."""
    weight = weights(whole)
    full = fit_linear(whole.columns, whole.x, whole.fake, weight, strength)
    return {
        subset: full
        if len(subset) == len(whole.columns)
        else fit_tied(whole, subset, full, weight, strength, TIE * temperature)
        for subset in wanted
    }


def fit_linear(columns: Sequence[str], x: Floats, fake: Bools, weight: Floats, strength: float) -> Linear:
    """Weighted logistic regression on standardised columns, L2 on the coefficients, signs as the catalogue says."""
    mean = weight @ x / weight.sum()
    scale = np.sqrt(weight @ (x - mean) ** 2 / weight.sum())
    scale[scale < 1e-9] = 1.0
    sides = [_SIGNED[CATALOGUE[c].suspicion] for c in columns]
    theta = _minimum((x - mean) / scale, fake, weight, strength, [(None, None), *sides], np.zeros(len(columns) + 1))
    return Linear(intercept=theta[0], coef=tuple(theta[1:]), mean=tuple(mean), scale=tuple(scale))


_SIGNED: Final = {1: (0.0, None), -1: (None, 0.0), 0: (None, None)}


def fit_tied(whole: Table, subset: Sequence[int], full: Linear, weight: Floats, strength: float, tie: float) -> Linear:
    """The subset's best fit among models whose log-odds stay within `tie` of the full one's part, at any score."""
    chosen = list(subset)
    coef, mean, scale = (np.array(v)[chosen] for v in (full.coef, full.mean, full.scale))
    edge = abs(logit(PROBABILITY_EDGE))
    reach = (edge + abs(mean)) / scale  # the furthest that a logit can lie from the mean, in standard deviations
    room = tie / (len(chosen) + 1) / np.concatenate([[1.0], reach])
    centre = np.concatenate([[full.intercept], coef])
    low, high = centre - room, centre + room
    signs = np.array([0, *(CATALOGUE[whole.columns[i]].suspicion for i in chosen)])
    low, high = np.where(signs > 0, np.maximum(low, 0), low), np.where(signs < 0, np.minimum(high, 0), high)
    z = (whole.x[:, chosen] - mean) / scale
    theta = _minimum(z, whole.fake, weight, strength, list(zip(low, high, strict=True)), centre)
    return Linear(intercept=theta[0], coef=tuple(theta[1:]), mean=tuple(mean), scale=tuple(scale))


def _minimum(
    z: Floats, fake: Bools, weight: Floats, strength: float, bounds: Sequence[tuple[object, object]], start: Floats
) -> list[float]:
    """Intercept and coefficients within the bounds that minimise the penalised, weighted log-loss."""
    sign = np.where(fake, 1.0, -1.0)

    def loss(theta: Floats) -> tuple[float, Floats]:
        margin = sign * (theta[0] + z @ theta[1:])
        pull = -weight * sign * expit(-margin)
        value = weight @ np.logaddexp(0, -margin) + strength / 2 * theta[1:] @ theta[1:]
        return float(value), np.concatenate([[pull.sum()], z.T @ pull + strength * theta[1:]])

    found: list[float] = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds).x.tolist()
    return found


def logits(model: Linear, x: Floats) -> Floats:
    """Log-odds of fake before the temperature, shape (N,), for the model's own columns."""
    standardised = (x - np.array(model.mean)) / np.array(model.scale)
    return np.asarray(model.intercept + standardised @ np.array(model.coef))


def fit_temperature(logit_: Floats, fake: Bools, weight: Floats) -> float:
    """The T in TEMPERATURE_RANGE that minimises the weighted log-loss of sigmoid(logit / T).

    Raises ConfigError if the logits separate the classes: the best T would be 0.
    """
    if not fake.any() or fake.all() or logit_[fake].min() > logit_[~fake].max():
        raise ConfigError("the classes are separated, so no temperature can be fitted: use more, and harder, clips")
    sign = np.where(fake, 1.0, -1.0)

    def loss(temperature: float) -> float:
        return float(weight @ np.logaddexp(0, -sign * logit_ / temperature))

    return float(minimize_scalar(loss, bounds=TEMPERATURE_RANGE, method="bounded").x)


def by_fold(table: Table, apart: Apart | None = None) -> dict[int, Family]:
    """For each fold the family fitted to rows that share nothing with it, in the table or apart.

    Raises ConfigError for a group in two folds, fewer than three folds, one class only, or separated classes.
    """
    _check(table)
    tested = [table, *(apart or {}).values()]
    return {fold: fit(table.rows(unrelated(table, fold, tested))) for fold in np.unique(table.fold).tolist()}


def nested(table: Table, families: Mapping[int, Family], apart: Apart | None = None) -> dict[tuple[int, ...], Measured]:
    """What every head says of each fold's rows, in the fold's own family."""
    chosen = {subset: _measured_on(table, subset, apart or {}) for subset in subsets(table.columns)}
    found = {subset: Measured(rows, np.full(len(rows), np.nan)) for subset, rows in chosen.items()}
    for fold, family in families.items():
        for subset, model in family.models.items():
            test = found[subset].table.fold == fold
            x = found[subset].table.x[test][:, list(subset)]
            found[subset].probability[test] = expit(logits(model, x) / family.temperature)
    return found


def _measured_on(table: Table, subset: tuple[int, ...], apart: Apart) -> Table:
    of = apart.get(frozenset(CATALOGUE[table.columns[i]].branch for i in subset), table)
    return of.rows(of.holding(subset))


def _held_out(whole: Table, strength: float, wanted: Sequence[tuple[int, ...]]) -> dict[tuple[int, ...], Floats]:
    """Logits (N,) of complete rows by models of rows of the other folds that share nothing with them."""
    found = {subset: np.empty(len(whole)) for subset in wanted}
    for fold in np.unique(whole.fold).tolist():
        models, test = fit_models(whole.rows(unrelated(whole, fold, [whole])), wanted, strength), whole.fold == fold
        for subset in wanted:
            found[subset][test] = logits(models[subset], whole.x[test][:, list(subset)])
    return found


def _loss(whole: Table, held_out: dict[tuple[int, ...], Floats]) -> float:
    sign = np.where(whole.fake, 1.0, -1.0)
    return sum(float(weights(whole) @ np.logaddexp(0, -sign * out)) for out in held_out.values())


def _check(table: Table) -> None:
    whole = table.rows(table.holding(range(len(table.columns))))
    if len(np.unique(whole.fold)) < 3:
        raise ConfigError("fusion needs three folds or more: one to test on, one to calibrate on, one to fit on")
    for fold in np.unique(whole.fold):
        if set(whole.fake[whole.fold == fold]) != {True, False}:
            raise ConfigError("a fold holds one class only")
    pairs = {(g, f) for g, f in zip(table.group.tolist(), table.fold.tolist(), strict=True)}
    if len(pairs) != len(np.unique(table.group)):
        raise ConfigError("a group lies in two folds, so clips would be calibrated on their relatives")


def _head(table: Table, subset: tuple[int, ...], family: Family, held_out: Measured, fitted_on: str, data: str) -> Head:
    whole = table.rows(table.holding(range(len(table.columns))))
    seen = whole.x[:, list(subset)]
    return Head(
        name=head_name(table.columns, subset),
        feature_cols=tuple(table.columns[i] for i in subset),
        model=family.models[subset],
        temperature=family.temperature,
        thresholds=supported(PREDEFINED, _held(held_out)),
        seen=tuple(zip(seen.min(axis=0).tolist(), seen.max(axis=0).tolist(), strict=True)),
        held_out=_held(held_out),
        fitted_on=fitted_on,
        data=data,
        metrics={"fitted_clips": float(len(whole)), "strength": family.strength, **metrics(held_out)},
    )


def head_name(columns: Sequence[str], subset: Sequence[int]) -> str:
    """The detectors of the subset's columns."""
    return "+".join(dict.fromkeys(CATALOGUE[columns[i]].detector for i in subset))


def _held(measured: Measured) -> HeldOut:
    table, probability = measured.table, measured.probability
    real, fake = ~table.fake, table.fake
    return HeldOut(
        real=tuple(np.sort(probability[real]).round(6).tolist()),
        fake=tuple(np.sort(probability[fake]).round(6).tolist()),
        real_groups=len(np.unique(table.group[real])),
        fake_groups=len(np.unique(table.group[fake])),
    )
