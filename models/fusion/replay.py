"""Many verdicts at once: labels and probabilities from stored features, with array arithmetic instead of `judge`.

Gives what `judge` gives for the same features, up to the last digits of the sum; a test holds the two together. Where a
head of the gate alone decides, the gate is taken to have spared the clip the rest, and does not accuse.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clipwarden.models.catalogue import CATALOGUE, GATE, PROBABILITY_EDGE
from clipwarden.models.fusion.bundle import FusionBundle, Head
from clipwarden.models.fusion.faults import FaultCode, FusionFault
from clipwarden.shared.contracts import Label

Floats = NDArray[np.float64]
LABELS = (Label.REAL, Label.INCONCLUSIVE, Label.FAKE)
"""Labels by code."""
INCONCLUSIVE = LABELS.index(Label.INCONCLUSIVE)


@dataclass(frozen=True, slots=True)
class Replayed:
    """label: int8 (N,) index into LABELS; probability: (N,) NaN without a head; head: int16 (N,) index, -1 for none."""

    label: NDArray[np.int8]
    probability: Floats
    head: NDArray[np.int16]


def columns_of(bundle: FusionBundle) -> tuple[str, ...]:
    """Every feature that a head of the bundle reads, and those that can discredit them, in the catalogue's order."""
    detectors = {CATALOGUE[name].detector for head in bundle.heads for name in head.feature_cols}
    return tuple(name for name, feature in CATALOGUE.items() if feature.detector in detectors)


def replay(bundle: FusionBundle, columns: Sequence[str], values: Floats, policy: str | None = None) -> Replayed:
    """Judge N analyses. values: (N, columns) raw features as `columns_of(bundle)` orders them, NaN where there is none.

    Raises FusionFault for a policy that the bundle does not have.
    """
    chosen = policy or bundle.policy
    if chosen not in bundle.policies:
        raise FusionFault(FaultCode.UNKNOWN_POLICY, f"the bundle has no policy {chosen}")
    usable = _usable(columns, values)
    n = len(values)
    out = Replayed(np.full(n, INCONCLUSIVE, np.int8), np.full(n, np.nan), np.full(n, -1, np.int16))
    fitting = [(k, head) for k, head in enumerate(bundle.heads) if chosen in head.thresholds]
    for k, head in sorted(fitting, key=lambda item: -len(item[1].feature_cols)):
        wanted = [columns.index(name) for name in head.feature_cols]
        rows = np.flatnonzero((out.head < 0) & usable[:, wanted].all(axis=1))
        p = _probability(head, values[np.ix_(rows, np.array(wanted))])
        t = head.thresholds[chosen]
        out.head[rows], out.probability[rows] = k, p
        accuses = {CATALOGUE[name].detector for name in head.feature_cols} != {GATE}
        out.label[rows] = INCONCLUSIVE + (accuses & (p >= t.fake)).astype(np.int8) - (p <= t.real).astype(np.int8)
    return out


def _usable(columns: Sequence[str], values: Floats) -> NDArray[np.bool_]:
    """Which values count: present, and no value of their detector out of its range. Shape (N, columns)."""
    features = [CATALOGUE[name] for name in columns]
    low, high = (np.array([getattr(f, side) for f in features]) for side in ("low", "high"))
    present = ~np.isnan(values)
    wrong = present & ~((values >= low) & (values <= high))
    for detector in {f.detector for f in features} if wrong.any() else ():
        of = np.array([f.detector == detector for f in features])
        present[np.ix_(wrong[:, of].any(axis=1), of)] = False
    return present


def _probability(head: Head, raw: Floats) -> Floats:
    x = raw
    if head.inputs == "catalogue":
        p = np.clip(raw, PROBABILITY_EDGE, 1 - PROBABILITY_EDGE)
        logits = np.array([CATALOGUE[name].transform == "logit" for name in head.feature_cols])
        x = np.where(logits, np.log(p / (1 - p)), raw)
    model = head.model
    weighed = (x - np.array(model.mean)) / np.array(model.scale) @ np.array(model.coef)
    return np.asarray(1 / (1 + np.exp(-np.clip((model.intercept + weighed) / head.temperature, -700, 700))))
