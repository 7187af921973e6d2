"""Heads for every subset of four detectors of four branches, and what branches may have found."""

import math
from itertools import combinations

from clipwarden.models.catalogue import CATALOGUE
from clipwarden.models.fusion.bundle import SEEDS, FusionBundle, Head, Linear, Thresholds
from clipwarden.models.fusion.policies import PREDEFINED
from clipwarden.shared.contracts import (
    Branch,
    BranchResult,
    DetectorOutcome,
    DetectorState,
    Evidence,
    Manifest,
    ManifestDetector,
    OutcomeStatus,
    Window,
)

DIGEST = f"sha256:{'0' * 64}"
FEATURE = {
    "forensic_mlp": "forensic_score",
    "cqcc_cnn": "audio_prob_fake",
    "av_sync": "sync_prob",
    "clip_adapter": "clip_adapter_prob_fake",
}
COEF = {"forensic_mlp": 0.9, "cqcc_cnn": 0.4, "av_sync": -0.6, "clip_adapter": 0.7}
MEAN = {"forensic_mlp": 0.1, "cqcc_cnn": -0.3, "av_sync": 0.5, "clip_adapter": 0.0}
SCALE = {"forensic_mlp": 1.2, "cqcc_cnn": 0.8, "av_sync": 1.5, "clip_adapter": 2.0}
BRANCH = {name: CATALOGUE[feature].branch for name, feature in FEATURE.items()}


def head_of(*detectors: str) -> Head:
    return Head(
        name="+".join(detectors),
        feature_cols=tuple(FEATURE[d] for d in detectors),
        model=Linear(
            intercept=-0.2,
            coef=tuple(COEF[d] for d in detectors),
            mean=tuple(MEAN[d] for d in detectors),
            scale=tuple(SCALE[d] for d in detectors),
        ),
        temperature=1.7,
        thresholds=dict.fromkeys(PREDEFINED, Thresholds(real=0.3, fake=0.7)),
        seen=((-6.0, 6.0),) * len(detectors),
        fitted_on="nothing",
    )


SUBSETS = [some for k in range(1, 5) for some in combinations(FEATURE, k)]
BUNDLE = FusionBundle(
    format=1,
    policy="balanced",
    policies=PREDEFINED,
    heads=tuple(head_of(*some) for some in SUBSETS),
    unfitted=SEEDS,
)
MANIFEST = Manifest(
    detectors=tuple(
        ManifestDetector(name=name, version="1", branch=branch, state=DetectorState.READY, weights=DIGEST)
        for name, branch in BRANCH.items()
    ),
    faces="f",
    fusion=DIGEST,
)


def ok(detector: str, features: dict[str, float], score: float, windows: tuple[Window, ...] = ()) -> DetectorOutcome:
    """An outcome as a detector would report it; unlike a detector's own, its features may be senseless."""
    evidence = Evidence.model_construct(score=score, features=features, windows=windows)
    return DetectorOutcome.model_construct(
        name=detector, version="1", status=OutcomeStatus.OK, code=None, evidence=evidence
    )


def found(detector: str, value: float, windows: tuple[Window, ...] = ()) -> BranchResult:
    """The branch of a detector, which reports its feature, and one that the catalogue does not know."""
    score = 1 - value if COEF[detector] < 0 else value
    outcome = ok(detector, {FEATURE[detector]: value, "something_else": 4.0}, score, windows)
    return BranchResult(branch=BRANCH[detector], status=OutcomeStatus.OK, detectors=(outcome,))


def missing(branch: Branch, status: OutcomeStatus, code: str) -> BranchResult:
    return BranchResult(branch=branch, status=status, code=code)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))
