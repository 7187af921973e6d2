"""A verdict adds up exactly, never falls when suspicion rises, and exists whatever is missing."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipwarden.models.fusion.bundle import FusionBundle, Head, Linear, Thresholds, read_bundle
from clipwarden.models.fusion.verdict import judge
from clipwarden.shared.contracts import (
    Branch,
    BranchResult,
    DetectorOutcome,
    DetectorState,
    Evidence,
    Label,
    Manifest,
    ManifestDetector,
    OutcomeStatus,
)
from clipwarden.shared.errors import WorkerFault

DIGEST = f"sha256:{'0' * 64}"
COLUMNS = {
    "visual": ("forensic_prob_mean",),
    "audio": ("audio_prob_fake",),
    "visual+audio": ("forensic_prob_mean", "audio_prob_fake"),
}
DETECTOR = {Branch.VISUAL: ("forensic_mlp", "forensic_prob_mean"), Branch.AUDIO: ("cqcc_cnn", "audio_prob_fake")}
probabilities = st.floats(0, 1)


def head(name: str) -> Head:
    k = len(COLUMNS[name])
    return Head(
        name=name,
        feature_cols=COLUMNS[name],
        model=Linear(intercept=-0.2, coef=(0.9, 0.4)[:k], mean=(0.1, -0.3)[:k], scale=(1.2, 0.8)[:k]),
        temperature=1.7,
        thresholds=Thresholds(real=0.3, fake=0.7),
        fitted_on="nothing",
        metrics={},
    )


BUNDLE = FusionBundle(format=1, policy="balanced", heads=tuple(map(head, COLUMNS)))
MANIFEST = Manifest(
    detectors=tuple(
        ManifestDetector(name=name, version="1", branch=branch, state=DetectorState.READY, weights=DIGEST)
        for branch, (name, _) in DETECTOR.items()
    ),
    faces="f",
    fusion=DIGEST,
)


def found(branch: Branch, probability: float) -> BranchResult:
    name, feature = DETECTOR[branch]
    evidence = Evidence(score=probability, features={feature: probability, "something_else": 4.0})
    outcome = DetectorOutcome(name=name, version="1", status=OutcomeStatus.OK, evidence=evidence)
    return BranchResult(branch=branch, status=OutcomeStatus.OK, detectors=(outcome,))


def missing(branch: Branch, status: OutcomeStatus, code: str) -> BranchResult:
    return BranchResult(branch=branch, status=status, code=code)


@given(visual=probabilities, audio=probabilities)
def test_baseline_and_contributions_sum_to_the_logit(visual: float, audio: float) -> None:
    verdict = judge(BUNDLE, MANIFEST, [found(Branch.VISUAL, visual), found(Branch.AUDIO, audio)])
    assert verdict.head == "visual+audio"
    assert verdict.probability is not None
    assert verdict.baseline_logit is not None
    logit = verdict.baseline_logit + sum(c.log_odds for c in verdict.contributions)
    assert math.log(verdict.probability / (1 - verdict.probability)) == pytest.approx(logit, abs=1e-9)


@given(low=probabilities, high=probabilities, audio=probabilities)
def test_more_suspicion_never_lowers_the_probability(low: float, high: float, audio: float) -> None:
    low, high = sorted((low, high))
    for rest in ([], [found(Branch.AUDIO, audio)]):
        calm = judge(BUNDLE, MANIFEST, [found(Branch.VISUAL, low), *rest])
        alarmed = judge(BUNDLE, MANIFEST, [found(Branch.VISUAL, high), *rest])
        assert calm.probability is not None
        assert alarmed.probability is not None
        assert calm.probability <= alarmed.probability


def test_the_order_of_branches_is_irrelevant() -> None:
    results = [found(Branch.VISUAL, 0.8), found(Branch.AUDIO, 0.4)]
    assert judge(BUNDLE, MANIFEST, results).probability == judge(BUNDLE, MANIFEST, results[::-1]).probability


def test_a_head_agrees_with_the_formula_in_the_paper_s_order() -> None:
    logit = math.log(0.8 / 0.2)
    expected = 1 / (1 + math.exp(-(-0.2 + 0.9 * (logit - 0.1) / 1.2) / 1.7))
    assert judge(BUNDLE, MANIFEST, [found(Branch.VISUAL, 0.8)]).probability == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("probability", "label"), [(0.999, Label.FAKE), (0.5, Label.INCONCLUSIVE), (0.001, Label.REAL)]
)
def test_between_the_thresholds_it_is_inconclusive(probability: float, label: Label) -> None:
    assert judge(BUNDLE, MANIFEST, [found(Branch.VISUAL, probability)]).label is label


def test_without_evidence_it_is_inconclusive_and_names_the_reasons() -> None:
    verdict = judge(
        BUNDLE,
        MANIFEST,
        [
            missing(Branch.VISUAL, OutcomeStatus.SKIPPED, "no_face"),
            missing(Branch.AUDIO, OutcomeStatus.SKIPPED, "no_audio"),
        ],
    )
    assert (verdict.label, verdict.probability, verdict.coverage, verdict.degraded) == (
        Label.INCONCLUSIVE,
        None,
        0.0,
        False,
    )
    assert {r.code for r in verdict.reasons} == {"no_evidence", "visual_skipped", "audio_skipped"}


def test_a_failed_branch_degrades_and_a_skipped_one_does_not() -> None:
    failed = judge(
        BUNDLE, MANIFEST, [found(Branch.VISUAL, 0.6), missing(Branch.AUDIO, OutcomeStatus.FAILED, "timeout")]
    )
    assert (failed.coverage, failed.degraded, failed.head) == (0.5, True, "visual")
    skipped = judge(
        BUNDLE, MANIFEST, [found(Branch.VISUAL, 0.6), missing(Branch.AUDIO, OutcomeStatus.SKIPPED, "no_audio")]
    )
    assert (skipped.coverage, skipped.degraded) == (1.0, False)


def test_a_negative_coefficient_is_refused() -> None:
    with pytest.raises(ValueError, match="greater than or equal to 0"):
        Linear(intercept=0, coef=(-0.1,), mean=(0,), scale=(1,))


def test_an_edited_or_broken_bundle_is_refused(tmp_path) -> None:
    path = tmp_path / "bundle.json"
    path.write_text(BUNDLE.model_dump_json())
    bundle, digest = read_bundle(path)
    assert bundle == BUNDLE
    path.write_text(BUNDLE.model_dump_json().replace("1.7", "0.7"))
    with pytest.raises(WorkerFault, match="the pipeline asks for"):
        read_bundle(path, digest)
    path.write_text('{"format": 1, "policy": "p", "heads": []}')
    with pytest.raises(WorkerFault, match="malformed"):
        read_bundle(path)
    with pytest.raises(WorkerFault, match="cannot be read"):
        read_bundle(tmp_path / "nowhere.json")
