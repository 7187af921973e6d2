"""From branch results to a verdict: the largest head whose columns are present, exact contributions, thresholds."""

import math
from collections.abc import Sequence

from clipwarden.models.catalogue import CATALOGUE
from clipwarden.models.fusion.bundle import FusionBundle, Head
from clipwarden.shared.codes import SENTENCES, SkipCode
from clipwarden.shared.contracts import (
    BranchResult,
    Contribution,
    Label,
    Manifest,
    OutcomeStatus,
    Reason,
    Verdict,
)

NOTABLE_LOG_ODDS = 0.1
"""A contribution below this is not worth a sentence."""


NOT_INSTALLED = {SkipCode.NO_WEIGHTS, SkipCode.DISABLED}
"""True of every clip alike, so no reason for this verdict; the branches say it."""


def judge(bundle: FusionBundle, manifest: Manifest, results: Sequence[BranchResult]) -> Verdict:
    """Fuse what the branches found. Never fails for missing branches: without evidence it is inconclusive."""
    features = _features(results)
    coverage, degraded = _coverage(manifest, results)
    head = bundle.largest(set(features))
    if head is None:
        return Verdict(
            label=Label.INCONCLUSIVE,
            probability=None,
            policy=bundle.policy,
            head=None,
            coverage=coverage,
            degraded=degraded,
            baseline_logit=None,
            reasons=(
                Reason(code="no_evidence", text="No branch could examine this file."),
                *_missing(results),
            ),
        )
    baseline, contributions = _contributions(head, features)
    probability = _sigmoid(baseline + sum(c.log_odds for c in contributions))
    label = _label(head, probability)
    return Verdict(
        label=label,
        probability=probability,
        policy=bundle.policy,
        head=head.name,
        coverage=coverage,
        degraded=degraded,
        baseline_logit=baseline,
        contributions=contributions,
        reasons=(*_leanings(contributions), *_caution(head, label), *_missing(results)),
    )


def _features(results: Sequence[BranchResult]) -> dict[str, float]:
    return {
        name: CATALOGUE[name].column(value)
        for result in results
        for outcome in result.detectors
        if outcome.evidence is not None
        for name, value in outcome.evidence.features.items()
        if name in CATALOGUE
    }


def _coverage(manifest: Manifest, results: Sequence[BranchResult]) -> tuple[float, bool]:
    """Branches ok ÷ branches that have weights and that the media allows; whether one of those failed."""
    expected = [r for r in results if manifest.ready(r.branch) and r.status is not OutcomeStatus.SKIPPED]
    ok = sum(r.status is OutcomeStatus.OK for r in expected)
    return (ok / len(expected) if expected else 0.0), ok < len(expected)


def _contributions(head: Head, features: dict[str, float]) -> tuple[float, tuple[Contribution, ...]]:
    """Intercept ÷ T, and coefficient · z ÷ T summed per detector."""
    by_detector: dict[str, float] = {}
    model = head.model
    for name, coef, mean, scale in zip(head.feature_cols, model.coef, model.mean, model.scale, strict=True):
        log_odds = coef * (features[name] - mean) / scale / head.temperature
        detector = CATALOGUE[name].detector
        by_detector[detector] = by_detector.get(detector, 0.0) + log_odds
    branches = {CATALOGUE[name].detector: CATALOGUE[name].branch for name in head.feature_cols}
    return model.intercept / head.temperature, tuple(
        Contribution(branch=branches[d], detector=d, log_odds=v) for d, v in by_detector.items()
    )


def _sigmoid(logit: float) -> float:
    if logit >= 0:
        return 1 / (1 + math.exp(-logit))
    e = math.exp(logit)
    return e / (1 + e)


def _label(head: Head, probability: float) -> Label:
    if probability >= head.thresholds.fake:
        return Label.FAKE
    return Label.REAL if probability <= head.thresholds.real else Label.INCONCLUSIVE


def _leanings(contributions: Sequence[Contribution]) -> tuple[Reason, ...]:
    ranked = sorted(contributions, key=lambda c: -abs(c.log_odds))
    return tuple(
        Reason(
            code=f"leans_{_side(c)}",
            text=f"{c.detector} ({c.branch}) leans to {_side(c)}: {c.log_odds:+.2f} log-odds.",
        )
        for c in ranked
        if abs(c.log_odds) >= NOTABLE_LOG_ODDS
    )


def _side(contribution: Contribution) -> Label:
    return Label.FAKE if contribution.log_odds > 0 else Label.REAL


def _caution(head: Head, label: Label) -> tuple[Reason, ...]:
    if label is not Label.INCONCLUSIVE:
        return ()
    t = head.thresholds
    return (
        Reason(
            code="between_thresholds",
            text=f"P(fake) lies between {t.real:.2f} and {t.fake:.2f}: evidence this weak is often wrong.",
        ),
    )


def _missing(results: Sequence[BranchResult]) -> tuple[Reason, ...]:
    return tuple(
        Reason(code=f"{r.branch}_{r.status}", text=f"{r.branch} was {r.status}: {SENTENCES.get(r.code, r.code)}")
        for r in results
        if r.code is not None and r.code not in NOT_INSTALLED
    )
