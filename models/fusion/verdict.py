"""From branch results to a verdict: the largest head whose columns are present, exact contributions, thresholds."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from clipwarden.models.catalogue import CATALOGUE, GATE
from clipwarden.models.fusion import reasons
from clipwarden.models.fusion.bundle import FusionBundle, Head
from clipwarden.models.fusion.faults import FaultCode, FusionFault
from clipwarden.models.fusion.held_out import error_rates
from clipwarden.models.fusion.ranges import is_localised, merged, stretches
from clipwarden.shared.codes import SkipCode
from clipwarden.shared.contracts import (
    Alternative,
    Branch,
    BranchResult,
    Contribution,
    ErrorRates,
    Label,
    Manifest,
    OutcomeStatus,
    Reason,
    Thresholds,
    Verdict,
)


@dataclass(frozen=True, slots=True)
class Findings:
    """Features of the catalogue that detectors reported, raw; and the detectors whose numbers were refused."""

    features: dict[str, float]
    refused: tuple[tuple[Branch, str], ...]


@dataclass(frozen=True, slots=True)
class Case:
    """One analysis before the bench: what was found, and how much of what could have been."""

    policy: str
    results: Sequence[BranchResult]
    found: Findings
    coverage: float
    degraded: bool

    @property
    def gaps(self) -> tuple[Reason, ...]:
        """What is missing from the verdict, and why."""
        refused = (reasons.reason("features_refused", branch=b, detector=d) for b, d in self.found.refused)
        return (*refused, *reasons.missing(self.results))


def judge(
    bundle: FusionBundle, manifest: Manifest, results: Sequence[BranchResult], policy: str | None = None
) -> Verdict:
    """Fuse what the branches found, by the bundle's own policy or another of it.

    Never fails for missing branches or senseless features: without evidence the verdict is inconclusive. Raises
    FusionFault for a policy that the bundle does not have.
    """
    chosen = policy or bundle.policy
    if chosen not in bundle.policies:
        raise FusionFault(FaultCode.UNKNOWN_POLICY, f"the bundle has no policy {chosen}")
    case = Case(chosen, results, findings(results), *_coverage(manifest, results))
    verdict = _judged(bundle, case)
    others = (_judged(bundle, replace(case, policy=name)) for name in bundle.policies if name != chosen)
    return verdict.model_copy(
        update={
            "error_rates": _error_rates(bundle, verdict),
            "alternatives": tuple(
                Alternative(policy=v.policy, label=v.label, probability=v.probability, head=v.head) for v in others
            ),
        }
    )


def _judged(bundle: FusionBundle, case: Case) -> Verdict:
    head = bundle.largest(set(case.found.features), case.policy)
    return _undecided(case) if head is None else _decided(case, head)


def findings(results: Sequence[BranchResult]) -> Findings:
    """Collect features; one that is not finite or out of its range discredits all of its detector's."""
    features: dict[str, float] = {}
    refused: list[tuple[Branch, str]] = []
    for result in results:
        for outcome in result.detectors:
            if outcome.evidence is None:
                continue
            named = {
                name: value
                for name, value in outcome.evidence.features.items()
                if name in CATALOGUE and CATALOGUE[name].detector == outcome.name
            }
            if all(CATALOGUE[name].holds(value) for name, value in named.items()):
                features |= named
            else:
                refused.append((result.branch, outcome.name))
    return Findings(features, tuple(refused))


def _undecided(case: Case) -> Verdict:
    detectors = sorted(_detectors(case.found.features))
    return Verdict(
        label=Label.INCONCLUSIVE,
        probability=None,
        policy=case.policy,
        head=None,
        coverage=case.coverage,
        degraded=case.degraded,
        baseline_logit=None,
        reasons=(*(reasons.named("no_head", detectors) or (reasons.reason("no_evidence"),)), *case.gaps),
    )


def _decided(case: Case, head: Head) -> Verdict:
    features, thresholds = case.found.features, head.thresholds[case.policy]
    baseline, contributions = weigh(head, features)
    probability = sigmoid(math.fsum([baseline, *(c.log_odds for c in contributions)]))
    label = _label(thresholds, probability)
    alone = label is Label.FAKE and _by_the_gate_alone(case.results, contributions)
    label = Label.INCONCLUSIVE if alone else label
    shares = {c.detector: c.log_odds for c in contributions}
    windows = stretches(head, shares, case.results)
    ranges = merged(windows)
    localised = is_localised(windows, ranges)
    strange = _outside(head, features)
    return Verdict(
        label=label,
        probability=probability,
        policy=case.policy,
        head=head.name,
        thresholds=thresholds,
        coverage=case.coverage,
        degraded=case.degraded,
        baseline_logit=baseline,
        contributions=contributions,
        reasons=(
            *reasons.leanings(contributions),
            *((reasons.reason("gate_alone"),) if alone else reasons.caution(label, thresholds.real, thresholds.fake)),
            *((reasons.place(ranges),) if localised else ()),
            *reasons.named("out_of_domain", strange),
            *reasons.named("not_weighed", sorted(_detectors(features) - shares.keys())),
            *case.gaps,
        ),
        ranges=ranges,
        localised=localised,
        out_of_domain=None if head.seen is None else bool(strange),
    )


def weigh(head: Head, features: Mapping[str, float]) -> tuple[float, tuple[Contribution, ...]]:
    """Intercept ÷ T, and coefficient · z ÷ T summed per detector, in the catalogue's order of branches."""
    parts: dict[tuple[Branch, str], list[float]] = {}
    model = head.model
    for name, coef, mean, scale in zip(head.feature_cols, model.coef, model.mean, model.scale, strict=True):
        z = (head.column(name, features[name]) - mean) / scale
        feature = CATALOGUE[name]
        parts.setdefault((feature.branch, feature.detector), []).append(coef * z / head.temperature)
    order = sorted(parts, key=lambda key: (list(Branch).index(key[0]), key[1]))
    return model.intercept / head.temperature, tuple(
        Contribution(branch=key[0], detector=key[1], log_odds=math.fsum(parts[key])) for key in order
    )


def sigmoid(logit: float) -> float:
    if logit >= 0:
        return 1 / (1 + math.exp(-logit))
    e = math.exp(max(logit, -700.0))
    return e / (1 + e)


def _label(thresholds: Thresholds, probability: float) -> Label:
    if probability >= thresholds.fake:
        return Label.FAKE
    return Label.REAL if probability <= thresholds.real else Label.INCONCLUSIVE


def _error_rates(bundle: FusionBundle, verdict: Verdict) -> ErrorRates | None:
    held_out = bundle.head(verdict.head).held_out if verdict.head else None
    return error_rates(held_out, verdict.thresholds, verdict.label) if held_out and verdict.thresholds else None


def _by_the_gate_alone(results: Sequence[BranchResult], contributions: Sequence[Contribution]) -> bool:
    """Whether the gate spared the clip all else that would have been weighed: it may clear, and never accuse."""
    codes = {code for r in results for code in (r.code, *(d.code for d in r.detectors))}
    return SkipCode.GATED in codes and {c.detector for c in contributions} == {GATE}


def _coverage(manifest: Manifest, results: Sequence[BranchResult]) -> tuple[float, bool]:
    """Branches ok ÷ branches that have weights and that the media allows; whether one of those failed."""
    expected = [r for r in results if manifest.ready(r.branch) and r.status is not OutcomeStatus.SKIPPED]
    ok = sum(r.status is OutcomeStatus.OK for r in expected)
    return (ok / len(expected) if expected else 0.0), ok < len(expected)


def _outside(head: Head, features: Mapping[str, float]) -> list[str]:
    """The head's columns that lie outside what it saw in training."""
    if head.seen is None:
        return []
    return [
        name
        for name, (low, high) in zip(head.feature_cols, head.seen, strict=True)
        if not low <= head.column(name, features[name]) <= high
    ]


def _detectors(features: Iterable[str]) -> set[str]:
    return {CATALOGUE[name].detector for name in features}
