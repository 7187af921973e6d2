"""How often a head was wrong is counted on its held-out clips, and told with a verdict in one sentence."""

import pytest
from scipy.stats import binomtest

from clipwarden.models.fusion.bundle import HeldOut, bundle_path, read_bundle
from clipwarden.models.fusion.held_out import error_rates, share
from clipwarden.models.fusion.verdict import judge
from clipwarden.shared.contracts import Label, Thresholds
from tests.unit.fusion.conftest import BUNDLE, MANIFEST, found

SHIPPED = read_bundle(bundle_path())[0]
T = Thresholds(real=0.4, fake=0.6)
CLIPS = HeldOut(real=(0.1, 0.4, 0.5, 0.6), fake=(0.2, 0.55, 0.7, 0.8, 0.9), real_groups=2, fake_groups=3)


@pytest.mark.parametrize(("count", "clips"), [(0, 7), (7, 7), (13, 138), (1, 1), (25, 252)])
def test_the_interval_is_that_of_clopper_and_pearson(count: int, clips: int) -> None:
    expected = binomtest(count, clips).proportion_ci(0.95, "exact")
    told = share(count, clips)
    assert (told.low, told.high) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_clips_on_a_threshold_are_called() -> None:
    told = error_rates(CLIPS, T, Label.FAKE)
    assert told
    counts = [(s.count, s.clips) for s in (told.real_called_fake, told.real_called_real)]
    assert counts == [(1, 4), (2, 4)]
    assert [(s.count, s.clips) for s in (told.fake_called_fake, told.fake_called_real)] == [(3, 5), (1, 5)]
    assert (told.real_groups, told.fake_groups) == (2, 3)


@pytest.mark.parametrize(
    ("label", "said"),
    [
        (Label.FAKE, "Of 4 real clips held out of the fit, 1 (25%"),
        (Label.REAL, "Of 5 fake clips held out of the fit, 1 (20%"),
        (Label.INCONCLUSIVE, "22% stayed open like this one"),
    ],
)
def test_the_sentence_is_about_the_error_that_the_label_risks(label: Label, said: str) -> None:
    told = error_rates(CLIPS, T, label)
    assert told
    assert said in told.text


def test_clips_of_one_truth_alone_tell_nothing() -> None:
    assert error_rates(CLIPS.model_copy(update={"real": ()}), T, Label.FAKE) is None


@pytest.mark.parametrize("policy", SHIPPED.policies)
def test_a_verdict_of_a_shipped_head_says_how_often_it_is_wrong(policy: str) -> None:
    verdict = judge(SHIPPED, MANIFEST, [found("forensic_mlp", 0.9)], policy)
    head = SHIPPED.head(verdict.head or "")
    assert verdict.thresholds == head.thresholds[policy]
    assert head.held_out
    assert verdict.error_rates == error_rates(head.held_out, head.thresholds[policy], verdict.label)
    assert verdict.error_rates
    alarms = verdict.error_rates.real_called_fake
    assert alarms.count == sum(p >= head.thresholds[policy].fake for p in head.held_out.real)


def test_a_head_without_held_out_clips_says_nothing() -> None:
    verdict = judge(BUNDLE, MANIFEST, [found("forensic_mlp", 0.9)])
    assert verdict.head
    assert verdict.error_rates is None
