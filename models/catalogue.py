"""The canonical catalogue of features: every name a detector may report, and how it enters a fusion head."""

import math
from dataclasses import dataclass
from typing import Literal

from clipwarden.shared.contracts import Branch

PROBABILITY_EDGE = 1e-4
"""Probabilities are kept this far from 0 and 1 before the logit, so that one saturated score cannot decide alone."""


@dataclass(frozen=True, slots=True)
class Feature:
    """`low` and `high` bound the raw value; `transform` is applied before a head standardises it."""

    name: str
    branch: Branch
    detector: str
    low: float
    high: float
    meaning: str
    transform: Literal["logit", "identity"] = "logit"

    def column(self, value: float) -> float:
        """The value as a fusion head sees it. ValueError if it is not finite or out of range."""
        if not (math.isfinite(value) and self.low <= value <= self.high):
            raise ValueError(f"{self.name} must be in [{self.low}, {self.high}], got {value}")
        if self.transform == "identity":
            return value
        p = min(max(value, PROBABILITY_EDGE), 1 - PROBABILITY_EDGE)
        return math.log(p / (1 - p))


def _probability(name: str, branch: Branch, detector: str, meaning: str) -> Feature:
    return Feature(name, branch, detector, 0.0, 1.0, meaning)


CATALOGUE: dict[str, Feature] = {
    feature.name: feature
    for feature in (
        _probability(
            "forensic_score",
            Branch.VISUAL,
            "forensic_mlp",
            "logistic of the forensic MLP's mean logit over face crops",
        ),
        _probability(
            "forensic_prob_mean",
            Branch.VISUAL,
            "forensic_mlp",
            "mean over face crops of the forensic MLP's P(fake)",
        ),
        _probability(
            "forensic_prob_max",
            Branch.VISUAL,
            "forensic_mlp",
            "largest P(fake) of a face crop by the forensic MLP",
        ),
        _probability(
            "forensic_prob_p90",
            Branch.VISUAL,
            "forensic_mlp",
            "90th percentile over face crops of the forensic MLP's P(fake)",
        ),
        _probability(
            "audio_prob_fake",
            Branch.AUDIO,
            "cqcc_cnn",
            "logistic of the CQCC network's mean logit of spoofed speech over windows",
        ),
    )
}
"""Feature name → feature."""
