"""Where in a clip the suspicion lies: windows in a head's log-odds, merged over branches into ranges."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Final

from clipwarden.models.catalogue import CATALOGUE, logit
from clipwarden.models.fusion.bundle import Head
from clipwarden.shared.contracts import Branch, BranchResult, Evidence, Range

NOTABLE_LOG_ODDS: Final = 0.1
"""A contribution or window below this is not worth a sentence or a range."""
MOST_RANGES: Final = 16
"""The verdict's row stays small; of more ranges those with the highest peaks are kept."""
SHORT_SHARE: Final = 0.25
"""A manipulation is localised if its ranges last at most this share of what was examined."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """A detector's window: `score` as the detector gave it, `log_odds` what the head would make of it alone."""

    branch: Branch
    start_s: float
    end_s: float
    score: float
    log_odds: float

    @property
    def suspicious(self) -> bool:
        return self.score >= 0.5 and self.log_odds >= NOTABLE_LOG_ODDS


def stretches(head: Head, shares: Mapping[str, float], results: Sequence[BranchResult]) -> list[Stretch]:
    """Windows of the detectors that the head weighs; `shares` holds each detector's log-odds over the whole clip.

    A window is weighed as if the detector's columns had moved with its score from the clip's to the window's. That is
    exact for a detector with one column that is its score, and an approximation for statistics such as a maximum.
    """
    found: list[Stretch] = []
    for result in results:
        for outcome in result.detectors:
            if outcome.evidence is not None and outcome.name in shares:
                slope = _slope(head, outcome.name)
                found += _weighed(head, result.branch, outcome.evidence, shares[outcome.name], slope)
    return found


def _slope(head: Head, detector: str) -> float:
    """Log-odds per unit by which a detector's columns move towards fake; never negative."""
    model = head.model
    return sum(
        coef * CATALOGUE[name].suspicion / scale / head.temperature
        for name, coef, scale in zip(head.feature_cols, model.coef, model.scale, strict=True)
        if CATALOGUE[name].detector == detector
    )


def _weighed(head: Head, branch: Branch, evidence: Evidence, share: float, slope: float) -> Iterable[Stretch]:
    raw = head.inputs == "raw"
    whole = evidence.score if raw else logit(evidence.score)
    for w in evidence.windows:
        if w.end_s > w.start_s:
            moved = (w.score if raw else logit(w.score)) - whole
            yield Stretch(branch, w.start_s, w.end_s, w.score, share + slope * moved)


def merged(found: Sequence[Stretch]) -> tuple[Range, ...]:
    """Ranges covered by suspicious windows of any branch, in order of time; windows that touch are one range."""
    groups: list[list[Stretch]] = []
    end_s = -1.0
    for stretch in sorted((s for s in found if s.suspicious), key=lambda s: s.start_s):
        if not groups or stretch.start_s > end_s:
            groups.append([])
        groups[-1].append(stretch)
        end_s = max(end_s, stretch.end_s)
    loudest = sorted(map(_range, groups), key=lambda r: -r.peak)[:MOST_RANGES]
    return tuple(sorted(loudest, key=lambda r: r.start_s))


def _range(group: Sequence[Stretch]) -> Range:
    seen = {s.branch for s in group}
    return Range(
        start_s=group[0].start_s,
        end_s=max(s.end_s for s in group),
        branches=tuple(b for b in Branch if b in seen),
        peak=max(s.score for s in group),
    )


def is_localised(found: Sequence[Stretch], ranges: Sequence[Range]) -> bool:
    """Whether short ranges carry the evidence: they last at most SHORT_SHARE, and the rest does not lean to fake."""
    calm = [s.log_odds for s in found if not s.suspicious]
    if not ranges or not calm:
        return False
    examined_s = max(s.end_s for s in found) - min(s.start_s for s in found)
    return sum(r.end_s - r.start_s for r in ranges) <= SHORT_SHARE * examined_s and fmean(calm) <= 0
