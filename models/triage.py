"""The first look: whether the tiny gate, run before everything else, may spare a clip the costlier detectors.

It has seen faces and heard nothing. So it spares what looks at pictures, never what only listens, and only where a
fitted head can decide by what is left. What it clears is called real or left open, never fake.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, runtime_checkable

from clipwarden.models.assess import Loaded, outcome
from clipwarden.models.catalogue import CATALOGUE, GATE
from clipwarden.models.fusion.bundle import FusionBundle
from clipwarden.shared.clip import Clip
from clipwarden.shared.codes import SENTENCES, SkipCode
from clipwarden.shared.contracts import Branch, DetectorOutcome, Evidence, Manifest, ManifestDetector, OutcomeStatus

SPARED: Final = (Branch.LIPSYNC, Branch.CLIP)
"""Branches that a first look may skip; of its own branch it spares all detectors but itself."""


@runtime_checkable
class Gate(Protocol):
    """A detector whose evidence may be clear enough to spare the others."""

    def cleared(self, evidence: Evidence) -> bool:
        """Whether everything in the clip it gave this evidence for is confidently real."""
        ...


@dataclass(frozen=True, slots=True)
class FirstLook:
    """The gate's outcome on a clip, and whether it is confident that all it saw is real."""

    outcome: DetectorOutcome
    cleared: bool


def first_look(gate: Loaded, clip: Clip, passing: tuple[type[Exception], ...] = ()) -> FirstLook:
    """Run the gate. Raises as `assess` does."""
    found = outcome(gate, clip, passing)
    clear = found.evidence is not None and isinstance(gate.detector, Gate) and gate.detector.cleared(found.evidence)
    return FirstLook(found, clear)


def gate_of(manifest: Manifest) -> ManifestDetector | None:
    """The gate of a pipeline, None if it is not ready there."""
    return next((d for d in manifest.ready(Branch.VISUAL) if d.name == GATE), None)


def decidable(bundle: FusionBundle, listening: Sequence[ManifestDetector], policy: str | None = None) -> bool:
    """Whether the bundle's heads can judge, by this policy or its own, what is left when the gate spares the rest.

    `listening` are the detectors of sound that run all the same. There must be a head for the gate alone, since they
    may find nothing to judge, and if there are any, one that weighs the gate together with some of them.
    """
    heads = [
        {CATALOGUE[name].detector for name in head.feature_cols}
        for head in bundle.heads
        if (policy or bundle.policy) in head.thresholds
    ]
    heard = {d.name for d in listening}
    return {GATE} in heads and (not heard or any(GATE in h and h & heard and h <= heard | {GATE} for h in heads))


def settled(
    entries: Sequence[ManifestDetector], found: Sequence[DetectorOutcome], gated: bool
) -> Mapping[str, DetectorOutcome]:
    """The outcomes of a branch's detectors that are known beforehand: found already, or spared by what was found."""
    known = {o.name: o for o in found if any((o.name, o.weights) == (e.name, e.weights) for e in entries)}
    return {**{e.name: _spared(e) for e in entries if gated and known}, **known}


def _spared(entry: ManifestDetector) -> DetectorOutcome:
    return DetectorOutcome(
        name=entry.name,
        version=entry.version,
        weights=entry.weights,
        status=OutcomeStatus.SKIPPED,
        code=SkipCode.GATED,
        message=SENTENCES[SkipCode.GATED],
    )
