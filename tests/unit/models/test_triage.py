"""The first look: what it may spare, when a fitted head allows it, and that it never accuses."""

from typing import ClassVar

import numpy as np
import pytest

from clipwarden.models.assess import Loaded, assess
from clipwarden.models.catalogue import GATE
from clipwarden.models.detector import DetectorSpec
from clipwarden.models.fusion.bundle import FusionBundle, Head, Linear, Thresholds
from clipwarden.models.fusion.policies import PREDEFINED
from clipwarden.models.fusion.verdict import judge
from clipwarden.models.triage import decidable, first_look, gate_of, settled
from clipwarden.models.visual.tiny_gate import NEED, TinyGate
from clipwarden.models.weights import WeightFile
from clipwarden.shared.clip import Clip, View
from clipwarden.shared.codes import SkipCode
from clipwarden.shared.contracts import (
    Branch,
    BranchResult,
    DetectorState,
    Evidence,
    Label,
    Manifest,
    ManifestDetector,
    Needs,
    OutcomeStatus,
)
from tests.networks import pictures, write_weights

DIGEST = f"sha256:{'0' * 64}"
COLUMNS = {GATE: "tiny_prob_mean", "cqcc_cnn": "audio_prob_fake", "forensic_mlp": "forensic_score"}


def entry(name: str, branch: Branch = Branch.VISUAL, needs: Needs | None = None) -> ManifestDetector:
    return ManifestDetector(
        name=name, version="1", branch=branch, state=DetectorState.READY, weights=DIGEST, needs=needs or Needs()
    )


EARS = entry("cqcc_cnn", Branch.AUDIO)


def head(*detectors: str, intercept: float = 0.0) -> Head:
    columns = tuple(COLUMNS[name] for name in detectors)
    one, zero = (1.0,) * len(columns), (0.0,) * len(columns)
    return Head(
        name="+".join(detectors), feature_cols=columns, temperature=1.0, fitted_on="tests",
        model=Linear(intercept=intercept, coef=one, mean=zero, scale=one),
        thresholds=dict.fromkeys(PREDEFINED, Thresholds(real=0.3, fake=0.7)),
    )  # fmt: skip


def bundle(*heads: Head) -> FusionBundle:
    return FusionBundle(format=1, policy="balanced", policies=PREDEFINED, heads=heads)


class Untouchable:
    """A detector that must not be run."""

    spec: ClassVar[DetectorSpec]

    def assess(self, clip: Clip) -> Evidence:  # noqa: ARG002 - the protocol's
        raise AssertionError("it was run")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_weights(GATE, tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def clip():
    boxes = np.array([[0, 0, 60, 60]] * 3, np.float32)
    return Clip(views={NEED.key: View.of(pictures(3, 256, seed=6), np.arange(3.0), boxes)}, duration_s=3.0)


def gate(weights, clear_below: str = "0") -> Loaded:
    options = {**weights.options, "clear_below": clear_below}
    return Loaded(entry(GATE), TinyGate.load(WeightFile(weights.path, weights.digest, options), "cpu"))


def test_the_first_look_clears_a_clip_exactly_if_every_patch_of_it_is_below_the_bound(weights, clip):
    detector = gate(weights).detector
    highest = float(detector.patches(detector.maps(clip.view(NEED).images)).max())
    assert not first_look(gate(weights, f"{highest - 1e-6:.9f}"), clip).cleared
    assert first_look(gate(weights, f"{highest + 1e-6:.9f}"), clip).cleared


def test_without_a_face_nothing_is_cleared(weights):
    view = View.of(np.zeros((0, 256, 256, 3), np.uint8), np.zeros(0), np.zeros((0, 4), np.float32))
    look = first_look(gate(weights, "1"), Clip(views={NEED.key: view}))
    assert (look.cleared, look.outcome.code) == (False, SkipCode.NO_FACE)


def test_the_gate_of_a_pipeline_counts_only_if_it_is_ready():
    manifest = Manifest(detectors=(entry("forensic_mlp"), entry(GATE)), faces="f", fusion=DIGEST)
    assert gate_of(manifest) == entry(GATE)
    off = entry(GATE).model_copy(update={"state": DetectorState.NO_WEIGHTS, "weights": None})
    assert gate_of(manifest.model_copy(update={"detectors": (off,)})) is None


@pytest.mark.parametrize(
    ("heads", "listening", "expected"),
    [
        ([head("forensic_mlp")], [], False),
        ([head(GATE, "forensic_mlp")], [], False),
        ([head(GATE)], [], True),
        ([head(GATE)], [EARS], False),
        ([head(GATE, "cqcc_cnn")], [EARS], False),
        ([head(GATE), head("cqcc_cnn")], [EARS], False),
        ([head(GATE), head(GATE, "cqcc_cnn")], [EARS], True),
        ([head(GATE), head(GATE, "forensic_mlp", "cqcc_cnn")], [EARS], False),
    ],
)
def test_without_fitted_heads_for_what_is_left_nothing_may_be_spared(heads, listening, expected):
    assert decidable(bundle(*heads), listening) is expected


def test_nothing_is_spared_for_a_policy_that_no_head_can_follow():
    assert decidable(bundle(head(GATE)), [], "balanced")
    assert not decidable(bundle(head(GATE)), [], "another")


def test_the_bundle_that_ships_spares_nothing():
    from clipwarden.models.fusion.bundle import bundle_path, read_bundle

    assert not decidable(read_bundle(bundle_path())[0], [])


def test_what_was_found_before_is_not_computed_again(weights, clip):
    found = first_look(gate(weights), clip).outcome
    loaded = [Loaded(entry(GATE), Untouchable()), Loaded(entry("forensic_mlp"), Untouchable())]
    known = settled([one.entry for one in loaded], [found], gated=True)
    result = assess(Branch.VISUAL, clip, loaded, known=known)
    assert (result.status, result.detectors[0]) == (OutcomeStatus.OK, found)
    assert (result.detectors[1].status, result.detectors[1].code) == (OutcomeStatus.SKIPPED, SkipCode.GATED)


def test_a_finding_of_other_weights_is_not_taken_over(weights, clip):
    found = first_look(gate(weights), clip).outcome.model_copy(update={"weights": f"sha256:{'1' * 64}"})
    assert settled([entry(GATE), entry("forensic_mlp")], [found], gated=True) == {}


def test_ungated_only_the_gate_itself_is_settled(weights, clip):
    found = first_look(gate(weights), clip).outcome
    assert settled([entry(GATE), entry("forensic_mlp")], [found], gated=False) == {GATE: found}


def _verdict(weights, clip, heads, gated, voice=None):
    manifest = Manifest(detectors=(entry(GATE), entry("forensic_mlp"), EARS), faces="f", fusion=DIGEST)
    found = first_look(gate(weights), clip).outcome
    loaded = [Loaded(entry(GATE), Untouchable()), Loaded(entry("forensic_mlp"), Untouchable())]
    known = settled([one.entry for one in loaded], [found], gated)
    if not gated:
        loaded = loaded[:1]
    results = [
        assess(Branch.VISUAL, clip, loaded, known=known),
        BranchResult(branch=Branch.AUDIO, status=OutcomeStatus.SKIPPED, code=SkipCode.NO_AUDIO),
    ]
    if voice is not None:
        heard = Evidence(score=voice, features={"audio_prob_fake": voice})
        outcome = found.model_copy(update={"name": "cqcc_cnn", "evidence": heard})
        results[1] = BranchResult(branch=Branch.AUDIO, status=OutcomeStatus.OK, detectors=(outcome,))
    return judge(bundle(*heads), manifest, results)


@pytest.mark.parametrize(("intercept", "label"), [(-20.0, Label.REAL), (20.0, Label.INCONCLUSIVE)])
def test_a_spared_clip_is_real_or_inconclusive_and_never_fake(weights, clip, intercept, label):
    verdict = _verdict(weights, clip, [head(GATE, intercept=intercept)], gated=True)
    assert (verdict.label, verdict.head) == (label, GATE)
    assert (intercept > 0) == ("gate_alone" in {reason.code for reason in verdict.reasons})


def test_without_triage_the_gate_weighs_like_any_detector(weights, clip):
    assert _verdict(weights, clip, [head(GATE, intercept=20.0)], gated=False).label is Label.FAKE


def test_what_was_heard_may_still_accuse_a_spared_clip(weights, clip):
    heads = [head(GATE), head(GATE, "cqcc_cnn", intercept=20.0)]
    assert _verdict(weights, clip, heads, gated=True, voice=0.99).label is Label.FAKE
