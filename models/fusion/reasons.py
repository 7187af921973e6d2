"""A verdict's sentences: templates that state only what the evidence says."""

from collections.abc import Iterable, Sequence
from typing import Final

from clipwarden.models.fusion.ranges import NOTABLE_LOG_ODDS
from clipwarden.shared.codes import SENTENCES, SkipCode
from clipwarden.shared.contracts import BranchResult, Contribution, Label, OutcomeStatus, Range, Reason

TOP_LEANINGS: Final = 5
NOT_INSTALLED: Final = {SkipCode.NO_WEIGHTS, SkipCode.DISABLED}
"""True of every clip alike, so no reason for this verdict; the branches say it."""

TEMPLATES: Final[dict[str, str]] = {
    "no_evidence": "No branch could examine this file.",
    "no_head": "No fusion head is fitted for what was found by {detectors}.",
    "leans_fake": "{detector} ({branch}) leans to fake: {log_odds:+.2f} log-odds.",
    "leans_real": "{detector} ({branch}) leans to real: {log_odds:+.2f} log-odds.",
    "nothing_notable": "No detector leans notably to either side.",
    "between_thresholds": "P(fake) lies between {real:.2f} and {fake:.2f}: evidence this weak is often wrong.",
    "gate_alone": "Only the first look was weighed, which may clear a clip and never accuses one.",
    "localised": "The suspicion lies in a short part: {spans}; the rest does not lean to fake.",
    "out_of_domain": "{features} lies outside the range of the clips that the fusion was fitted on.",
    "features_refused": "{detector} ({branch}) reported numbers outside their range and was left out.",
    "not_weighed": "{detectors} examined the file, but no fitted head weighs that with the rest.",
    "detector_failed": "{detector} ({branch}) failed: {sentence}",
}
"""Code → sentence. A branch without evidence has the code "<branch>_<status>", its sentence is that of its own code."""


def reason(code: str, **facts: object) -> Reason:
    return Reason(code=code, text=TEMPLATES[code].format(**facts))


def leanings(contributions: Sequence[Contribution]) -> tuple[Reason, ...]:
    """The strongest contributions first; says so if there is none worth a sentence."""
    notable = [c for c in contributions if abs(c.log_odds) >= NOTABLE_LOG_ODDS]
    if not notable:
        return (reason("nothing_notable"),)
    ranked = sorted(notable, key=lambda c: -abs(c.log_odds))[:TOP_LEANINGS]
    return tuple(
        reason(
            "leans_fake" if c.log_odds > 0 else "leans_real",
            detector=c.detector,
            branch=c.branch,
            log_odds=c.log_odds,
        )
        for c in ranked
    )


def caution(label: Label, real: float, fake: float) -> tuple[Reason, ...]:
    return (reason("between_thresholds", real=real, fake=fake),) if label is Label.INCONCLUSIVE else ()


def place(ranges: Sequence[Range]) -> Reason:
    return reason("localised", spans=", ".join(f"{r.start_s:.1f} to {r.end_s:.1f} s" for r in ranges))


def named(code: str, detectors: Iterable[str]) -> tuple[Reason, ...]:
    """A reason about several detectors or features, none if there are none."""
    names = ", ".join(detectors)
    return (reason(code, detectors=names, features=names),) if names else ()


def missing(results: Sequence[BranchResult]) -> tuple[Reason, ...]:
    """Branches without evidence, and detectors that failed beside others of their branch."""
    branches = (
        Reason(code=f"{r.branch}_{r.status}", text=f"{r.branch} was {r.status}: {SENTENCES.get(r.code, r.code)}")
        for r in results
        if r.code is not None and r.code not in NOT_INSTALLED
    )
    detectors = (
        reason("detector_failed", detector=o.name, branch=r.branch, sentence=SENTENCES.get(o.code, o.code))
        for r in results
        if r.status is OutcomeStatus.OK
        for o in r.detectors
        if o.status is OutcomeStatus.FAILED and o.code is not None
    )
    return (*branches, *detectors)
