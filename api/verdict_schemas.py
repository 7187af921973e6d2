"""What the JSON of `/v1` says of a verdict: its terms, what it rests on, and how often such verdicts err."""

from typing import Self

from pydantic import Field

from clipwarden.api.schema import ReasonView, View
from clipwarden.shared.contracts import Alternative, Branch, Label, Verdict


class ContributionView(View):
    branch: Branch
    detector: str
    log_odds: float


class RangeView(View):
    """A suspicious stretch of the clip, merged over branches; `peak` is the highest score in it, uncalibrated."""

    start_s: float
    end_s: float
    branches: list[Branch]
    peak: float


class ThresholdsView(View):
    """Fake at or above `fake`, real at or below `real`, inconclusive between."""

    real: float
    fake: float


class ShareView(View):
    """So many of so many clips; the true share lies between `low` and `high` with a confidence of 95 %."""

    count: int
    clips: int
    low: float
    high: float


class ErrorRatesView(View):
    """How often such verdicts were right and wrong on clips that the head was not fitted on.

    Intervals take clips as independent, though they come from so many groups of related ones only. `text` says it in
    one or two sentences, for the label of this verdict.
    """

    real_called_fake: ShareView
    real_called_real: ShareView
    fake_called_fake: ShareView
    fake_called_real: ShareView
    real_groups: int
    fake_groups: int
    text: str


class VerdictView(View):
    """`probability` is that of fake, calibrated; `baseline_logit` plus all `log_odds` is its logit, exactly."""

    label: Label
    probability: float | None
    policy: str
    head: str | None
    thresholds: ThresholdsView | None
    error_rates: ErrorRatesView | None = Field(description="Null where the head came without clips to count")
    coverage: float
    degraded: bool
    baseline_logit: float | None
    contributions: list[ContributionView]
    reasons: list[ReasonView]
    ranges: list[RangeView]
    localised: bool = Field(description="Whether short ranges carry the evidence")
    out_of_domain: bool | None = Field(description="Whether a feature lies outside what the head was fitted on")

    @classmethod
    def from_domain(cls, verdict: Verdict) -> Self:
        return cls(
            label=verdict.label,
            probability=verdict.probability,
            policy=verdict.policy,
            head=verdict.head,
            thresholds=ThresholdsView(**verdict.thresholds.model_dump()) if verdict.thresholds else None,
            error_rates=ErrorRatesView.model_validate(verdict.error_rates.model_dump())
            if verdict.error_rates
            else None,
            coverage=verdict.coverage,
            degraded=verdict.degraded,
            baseline_logit=verdict.baseline_logit,
            contributions=[ContributionView(**c.model_dump()) for c in verdict.contributions],
            reasons=[ReasonView(**r.model_dump()) for r in verdict.reasons],
            ranges=[RangeView(**r.model_dump()) for r in verdict.ranges],
            localised=verdict.localised,
            out_of_domain=verdict.out_of_domain,
        )


class WhatIfView(View):
    """What one policy says of the evidence."""

    policy: str
    label: Label
    probability: float | None
    head: str | None

    @classmethod
    def from_domain(cls, said: Alternative) -> Self:
        return cls(policy=said.policy, label=said.label, probability=said.probability, head=said.head)
