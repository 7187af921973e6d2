"""A verdict adds up exactly, never falls when suspicion rises, and exists whatever is missing."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipwarden.models.catalogue import CATALOGUE, logit
from clipwarden.models.fusion.bundle import FusionBundle, Thresholds, bundle_path, read_bundle
from clipwarden.models.fusion.faults import FaultCode, FusionFault
from clipwarden.models.fusion.verdict import judge, sigmoid, weigh
from clipwarden.shared.codes import SENTENCES
from clipwarden.shared.contracts import Branch, BranchResult, DetectorOutcome, Label, OutcomeStatus
from tests.unit.fusion.conftest import (
    BUNDLE,
    COEF,
    FEATURE,
    MANIFEST,
    MEAN,
    SCALE,
    SUBSETS,
    found,
    head_of,
    missing,
    ok,
)

SHIPPED = read_bundle(bundle_path())[0]
probabilities = st.floats(0, 1)
clips = st.fixed_dictionaries({}, optional=dict.fromkeys(FEATURE, probabilities))
every_score = st.fixed_dictionaries(dict.fromkeys(FEATURE, probabilities))


def results_of(clip: dict[str, float]) -> list[BranchResult]:
    return [found(detector, value) for detector, value in clip.items()]


def shuffled(bundle: FusionBundle, order: list[int]) -> FusionBundle:
    """The same heads with columns in another order."""

    def turn(values):
        return tuple(values[i] for i in order if i < len(values))

    heads = []
    for head in bundle.heads:
        model = head.model.model_copy(
            update={name: turn(getattr(head.model, name)) for name in ("coef", "mean", "scale")}
        )
        heads.append(
            head.model_copy(update={"feature_cols": turn(head.feature_cols), "model": model, "seen": turn(head.seen)})
        )
    return bundle.model_copy(update={"heads": tuple(heads)})


@given(clip=clips)
def test_every_subset_of_detectors_yields_a_verdict_that_adds_up(clip: dict[str, float]) -> None:
    verdict = judge(BUNDLE, MANIFEST, results_of(clip))
    if not clip:
        assert (verdict.label, verdict.probability, verdict.head) == (Label.INCONCLUSIVE, None, None)
        return
    assert verdict.probability is not None
    assert verdict.baseline_logit is not None
    total = verdict.baseline_logit + sum(c.log_odds for c in verdict.contributions)
    assert math.log(verdict.probability / (1 - verdict.probability)) == pytest.approx(total, abs=1e-9)
    assert {c.detector for c in verdict.contributions} == set(clip)
    assert set(verdict.head.split("+")) == set(clip)


@given(clip=every_score, order=st.permutations(range(4)))
def test_the_order_of_columns_and_branches_is_irrelevant(clip: dict[str, float], order: list[int]) -> None:
    results = results_of(clip)
    straight = judge(BUNDLE, MANIFEST, results)
    turned = judge(shuffled(BUNDLE, order), MANIFEST, [results[i] for i in order])
    assert (turned.probability, turned.contributions) == (straight.probability, straight.contributions)


@settings(max_examples=40)
@given(low=probabilities, high=probabilities, rest=every_score)
@pytest.mark.parametrize("head", BUNDLE.heads + SHIPPED.heads, ids=lambda h: h.name)
def test_raising_a_fake_score_never_lowers_the_probability_in_any_head(head, low, high, rest) -> None:
    low, high = sorted((low, high))
    names = {FEATURE[d]: v for d, v in rest.items()}
    features = {name: names.get(name, 0.5) for name in head.feature_cols}
    for name in head.feature_cols:
        calm, alarmed = (total(head, {**features, name: value}) for value in (low, high))
        if CATALOGUE[name].suspicion < 0:
            calm, alarmed = alarmed, calm
        assert calm <= alarmed


def total(head, features: dict[str, float]) -> float:
    baseline, contributions = weigh(head, features)
    return sigmoid(math.fsum([baseline, *(c.log_odds for c in contributions)]))


@given(scores=st.lists(probabilities, min_size=8, max_size=8))
def test_dropping_a_shipped_detector_at_its_prior_moves_the_probability_less_than_two_hundredths(scores) -> None:
    by_columns = {frozenset(head.feature_cols): head for head in SHIPPED.heads}
    for columns, head in by_columns.items():
        given_ = dict(zip(head.feature_cols, scores, strict=False))
        for dropped in columns if len(columns) > 1 else ():
            mean = head.model.mean[head.feature_cols.index(dropped)]
            neutral = {**given_, dropped: 1 / (1 + math.exp(-mean))}
            rest = by_columns[columns - {dropped}]
            assert abs(total(head, neutral) - total(rest, neutral)) < 0.02


def test_the_shipped_bundle_has_a_head_for_every_subset_of_its_detectors() -> None:
    columns = {c for head in SHIPPED.heads for c in head.feature_cols}
    assert len(columns) >= 2
    assert len(SHIPPED.heads) == 2 ** len(columns) - 1
    assert all(head.thresholds.keys() == SHIPPED.policies.keys() for head in SHIPPED.heads)
    assert all(0.5 <= head.temperature <= 5 for head in SHIPPED.heads)


def test_a_head_agrees_with_the_formula() -> None:
    value = {"forensic_mlp": 0.8, "cqcc_cnn": 0.3, "av_sync": 0.9}
    z = sum(COEF[d] * (math.log(v / (1 - v)) - MEAN[d]) / SCALE[d] for d, v in value.items())
    expected = 1 / (1 + math.exp(-(-0.2 + z) / 1.7))
    assert judge(BUNDLE, MANIFEST, results_of(value)).probability == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_saturated_score_is_an_edge_and_not_an_infinity(value: float) -> None:
    verdict = judge(BUNDLE, MANIFEST, [found("forensic_mlp", value)])
    expected = 0.9 * (logit(value) - 0.1) / 1.2 / 1.7
    assert verdict.contributions[0].log_odds == pytest.approx(expected)


@pytest.mark.parametrize(("value", "label"), [(0.999, Label.FAKE), (0.5, Label.INCONCLUSIVE), (0.001, Label.REAL)])
def test_between_the_thresholds_it_is_inconclusive(value: float, label: Label) -> None:
    verdict = judge(BUNDLE, MANIFEST, [found("forensic_mlp", value)])
    assert verdict.label is label
    assert ("between_thresholds" in {r.code for r in verdict.reasons}) == (label is Label.INCONCLUSIVE)


def test_another_policy_gives_another_label_for_the_same_probability() -> None:
    lenient = {"balanced": Thresholds(real=0.3, fake=0.7), "high-recall": Thresholds(real=0.1, fake=0.55)}
    head = head_of("forensic_mlp").model_copy(update={"thresholds": lenient})
    bundle = BUNDLE.model_copy(update={"heads": (head,)})
    results = [found("forensic_mlp", 0.8)]
    labels = {policy: judge(bundle, MANIFEST, results, policy).label for policy in lenient}
    assert labels == {"balanced": Label.INCONCLUSIVE, "high-recall": Label.FAKE}
    assert judge(bundle, MANIFEST, results, "high-recall").policy == "high-recall"
    assert judge(bundle, MANIFEST, results, "low-false-positive").head is None
    with pytest.raises(FusionFault) as refused:
        judge(bundle, MANIFEST, results, "none")
    assert refused.value.code == FaultCode.UNKNOWN_POLICY


def test_without_evidence_it_is_inconclusive_and_names_the_reasons() -> None:
    results = [
        missing(Branch.VISUAL, OutcomeStatus.SKIPPED, "no_face"),
        missing(Branch.AUDIO, OutcomeStatus.FAILED, "timeout"),
        missing(Branch.CLIP, OutcomeStatus.SKIPPED, "no_weights"),
    ]
    verdict = judge(BUNDLE, MANIFEST, results)
    assert (verdict.label, verdict.probability, verdict.coverage) == (Label.INCONCLUSIVE, None, 0.0)
    assert (verdict.degraded, verdict.ranges, verdict.localised) == (True, (), False)
    assert {r.code for r in verdict.reasons} == {"no_evidence", "visual_skipped", "audio_failed"}
    assert any(SENTENCES["no_face"] in r.text for r in verdict.reasons)


def test_evidence_that_no_head_weighs_is_inconclusive_and_says_so() -> None:
    outcome = ok("mel_resnet18", {"mel_resnet18_prob_fake": 0.9}, 0.9)
    alone = BranchResult(branch=Branch.AUDIO, status=OutcomeStatus.OK, detectors=(outcome,))
    verdict = judge(BUNDLE, MANIFEST, [alone])
    assert verdict.head is None
    assert verdict.reasons[0].code == "no_head"
    assert "mel_resnet18" in verdict.reasons[0].text
    beside = judge(BUNDLE, MANIFEST, [found("forensic_mlp", 0.8), alone])
    assert "not_weighed" in {r.code for r in beside.reasons}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1.5, -0.1])
def test_senseless_features_discredit_their_detector_and_nothing_else(value: float) -> None:
    bad = ok("forensic_mlp", {"forensic_score": 0.9, "forensic_prob_max": value}, 0.9)
    visual = BranchResult(branch=Branch.VISUAL, status=OutcomeStatus.OK, detectors=(bad,))
    beside = judge(BUNDLE, MANIFEST, [visual, found("cqcc_cnn", 0.8)])
    assert beside.head == "cqcc_cnn"
    assert "features_refused" in {r.code for r in beside.reasons}
    alone = judge(BUNDLE, MANIFEST, [visual])
    assert (alone.label, alone.probability) == (Label.INCONCLUSIVE, None)


def test_a_feature_counts_only_from_the_detector_it_belongs_to() -> None:
    impostor = ok("cqcc_cnn", {"forensic_score": 0.99}, 0.99)
    result = BranchResult(branch=Branch.AUDIO, status=OutcomeStatus.OK, detectors=(impostor,))
    assert judge(BUNDLE, MANIFEST, [result]).head is None


def test_a_failed_branch_degrades_and_a_skipped_one_does_not() -> None:
    failed = judge(
        BUNDLE, MANIFEST, [found("forensic_mlp", 0.6), missing(Branch.AUDIO, OutcomeStatus.FAILED, "poison")]
    )
    assert (failed.coverage, failed.degraded, failed.head) == (0.5, True, "forensic_mlp")
    skip = missing(Branch.AUDIO, OutcomeStatus.SKIPPED, "no_audio")
    skipped = judge(BUNDLE, MANIFEST, [found("forensic_mlp", 0.6), skip])
    assert (skipped.coverage, skipped.degraded) == (1.0, False)


def test_a_detector_that_failed_beside_another_of_its_branch_is_told() -> None:
    broken = DetectorOutcome(name="frame_vit", version="1", status=OutcomeStatus.FAILED, code="out_of_memory")
    fine = found("forensic_mlp", 0.6)
    both = fine.model_copy(update={"detectors": (*fine.detectors, broken)})
    told = {r.code: r.text for r in judge(BUNDLE, MANIFEST, [both]).reasons}
    assert told["detector_failed"] == f"frame_vit (visual) failed: {SENTENCES['out_of_memory']}"


def test_reasons_are_the_strongest_contributions_first_with_their_log_odds() -> None:
    verdict = judge(BUNDLE, MANIFEST, results_of({"forensic_mlp": 0.99, "cqcc_cnn": 0.2, "av_sync": 0.62}))
    leaning = [r for r in verdict.reasons if r.code.startswith("leans")]
    assert [r.code for r in leaning] == ["leans_fake", "leans_real"]
    share = {c.detector: c.log_odds for c in verdict.contributions}
    assert leaning[0].text == f"forensic_mlp (visual) leans to fake: {share['forensic_mlp']:+.2f} log-odds."
    quiet = judge(BUNDLE, MANIFEST, [found("forensic_mlp", 0.53)])
    assert "nothing_notable" in {r.code for r in quiet.reasons}


def test_features_outside_the_training_range_are_told_and_an_unknown_range_is_not_guessed() -> None:
    inside, outside = (judge(BUNDLE, MANIFEST, [found("cqcc_cnn", v)]) for v in (0.9, 0.9999))
    assert (inside.out_of_domain, outside.out_of_domain) == (False, True)
    assert "audio_prob_fake" in next(r.text for r in outside.reasons if r.code == "out_of_domain")
    unknown = BUNDLE.model_copy(update={"heads": (head_of("cqcc_cnn").model_copy(update={"seen": None}),)})
    assert judge(unknown, MANIFEST, [found("cqcc_cnn", 0.9999)]).out_of_domain is None


def test_the_largest_head_is_used_and_an_unfitted_one_never() -> None:
    every = {name: 0.5 for head in BUNDLE.unfitted for name in head.feature_cols}
    assert BUNDLE.largest(set(every), "balanced").name == "cqcc_cnn+av_sync"
    assert len(SUBSETS) == len(BUNDLE.heads) == 15


@given(clip=clips, policy=st.sampled_from(sorted(SHIPPED.policies)))
def test_every_other_policy_is_answered_beside_the_verdict(clip: dict[str, float], policy: str) -> None:
    verdict = judge(SHIPPED, MANIFEST, results_of(clip), policy)
    assert {a.policy for a in verdict.alternatives} == SHIPPED.policies.keys() - {policy}
    for other in verdict.alternatives:
        alone = judge(SHIPPED, MANIFEST, results_of(clip), other.policy)
        assert (other.label, other.probability, other.head) == (alone.label, alone.probability, alone.head)
