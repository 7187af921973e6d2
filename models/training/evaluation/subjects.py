"""What is measured: the fused verdict, each detector by its own head, each baseline; and heads with branches left out.

All of it is recomputed from stored features by the fusion's own code, without running a detector.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from clipwarden.models.catalogue import CATALOGUE
from clipwarden.models.fusion.bundle import FusionBundle, Head
from clipwarden.models.fusion.replay import INCONCLUSIVE, LABELS, columns_of, replay
from clipwarden.models.training.evaluation.baselines import BASELINES, baseline
from clipwarden.models.training.evaluation.figures import Bools, Codes, Floats, Judged
from clipwarden.models.training.evaluation.ledger import Scores, branches_of
from clipwarden.shared.contracts import Branch, Label

FUSED: Final = "fused"
HALF: Final = 0.5


@dataclass(frozen=True, slots=True)
class Subject:
    """score: (N,) P(fake), NaN where there is none; label: (N,) codes of `replay.LABELS`; `thresholds` in words."""

    name: str
    score: Floats
    label: NDArray[np.int8]
    thresholds: str

    @property
    def present(self) -> Bools:
        return ~np.isnan(self.score)


def judged(scores: Scores, subject: Subject, rows: Bools) -> Judged:
    """The subject's part of the chosen rows, as the figures take it."""
    return Judged(scores.fake[rows], subject.score[rows], subject.label[rows], source_codes(scores)[rows])


def source_codes(scores: Scores) -> Codes:
    names, codes = np.unique(scores.text["source"], return_inverse=True)
    return np.asarray(np.where(names[codes] == "", -1, codes))


def fused(scores: Scores) -> Subject:
    """The verdicts as they were given."""
    codes = {label.value: k for k, label in enumerate(LABELS)}
    label = np.array([codes.get(str(v), INCONCLUSIVE) for v in scores.text["verdict"]], np.int8)
    return Subject(FUSED, scores.number["probability"], label, "the verdicts as given")


def of_detector(scores: Scores, name: str, bundle: FusionBundle) -> Subject:
    """A detector alone: P(fake) and label by its own head if one is fitted, else its raw score and one half."""
    alone = recomputed(scores, bundle, {name}, name)
    if alone.present.any():
        return alone
    return by_half(name, np.where(scores.examined, scores.score(name), np.nan))


def by_half(name: str, score: Floats) -> Subject:
    label = np.where(score >= HALF, LABELS.index(Label.FAKE), LABELS.index(Label.REAL)).astype(np.int8)
    return Subject(name, score, label, "raw score, fake from 0.5: no head is fitted for it")


def of_baseline(scores: Scores, name: str, seed: int) -> Subject:
    return by_half(name, baseline(scores, name, seed))


def baselines(scores: Scores, seed: int) -> list[Subject]:
    return [of_baseline(scores, name, seed) for name in BASELINES]


def recomputed(scores: Scores, bundle: FusionBundle, detectors: set[str], name: str) -> Subject:
    """Verdicts by the bundle as if only these detectors had reported anything."""
    columns = columns_of(bundle)
    n = len(scores)
    nothing = np.full(n, np.nan)
    kept = [scores.number.get(c, nothing) if CATALOGUE[c].detector in detectors else nothing for c in columns]
    found = replay(bundle, columns, np.stack(kept, axis=1))
    heads = [bundle.heads[k] for k in np.unique(found.head[found.head >= 0])]
    said = "; ".join(_thresholds(bundle, head) for head in heads)
    return Subject(name, np.where(scores.examined, found.probability, np.nan), found.label, said)


def _thresholds(bundle: FusionBundle, head: Head) -> str:
    t = head.thresholds[bundle.policy]
    return f"head {head.name}, policy {bundle.policy}: fake from {t.fake:.3f}, real to {t.real:.3f}"


@dataclass(frozen=True, slots=True)
class Variant:
    """A head, or the fusion without a branch; `why_not` says why it has no figures."""

    name: str
    ways: int
    subject: Subject | None
    why_not: str = ""


def variants(scores: Scores, bundle: FusionBundle) -> list[Variant]:
    """Each fitted head alone by its number of detectors, the 5-way pipeline's, and the fusion less one branch."""
    found = [_of_head(scores, bundle, head) for head in sorted(bundle.heads, key=lambda h: len(_detectors(h)))]
    found += [
        Variant(head.name, len({CATALOGUE[c].detector for c in head.feature_cols}), None, "not fitted in this bundle")
        for head in bundle.unfitted
    ]
    return found + _less_one_branch(scores, bundle)


def _of_head(scores: Scores, bundle: FusionBundle, head: Head) -> Variant:
    ways = len(_detectors(head))
    if bundle.policy not in head.thresholds:
        return Variant(head.name, ways, None, f"takes no part in the policy {bundle.policy}")
    alone = bundle.model_copy(update={"heads": (head,)})
    subject = recomputed(scores, alone, _detectors(head), head.name)
    return Variant(head.name, ways, subject if subject.present.any() else None, "its features were not reported")


def _less_one_branch(scores: Scores, bundle: FusionBundle) -> list[Variant]:
    """Only for branches that the fusion weighs here, and only where another is left."""
    weighed = branches_of([d for d in scores.detectors if d in {x for h in bundle.heads for x in _detectors(h)}])
    present: Sequence[Branch] = sorted(set(weighed.values()), key=list(Branch).index)
    found = []
    for branch in present if len(present) > 1 else ():
        rest = {name for name, of in weighed.items() if of is not branch}
        subject = recomputed(scores, bundle, rest, f"without {branch}")
        why_not = "" if subject.present.any() else "no head is fitted for what is left"
        found.append(Variant(subject.name, len(rest), None if why_not else subject, why_not))
    return found


def _detectors(head: Head) -> set[str]:
    return {CATALOGUE[c].detector for c in head.feature_cols}
