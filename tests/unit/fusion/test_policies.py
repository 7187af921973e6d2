"""A policy's bounds hold on the clips, with the confidence it states, or the policy is refused."""

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta, binom

from clipwarden.models.fusion.bundle import Bound, HeldOut, Policy, Thresholds
from clipwarden.models.fusion.faults import FaultCode, FusionFault
from clipwarden.models.fusion.policies import (
    PREDEFINED,
    figures,
    read_policies,
    supported,
    thresholds,
    upper_bound,
    with_policies,
)
from clipwarden.shared.cli import main
from tests.unit.fusion.conftest import BUNDLE, head_of


def held_out(n: int, seed: int = 0) -> HeldOut:
    rng = np.random.default_rng(seed)
    real, fake = np.sort(rng.beta(2, 3, n)), np.sort(rng.beta(3, 2, n))
    return HeldOut(real=tuple(real), fake=tuple(fake), real_groups=n, fake_groups=n)


def bounded(at_most: float, confidence: float | None = None) -> Policy:
    return Policy(
        false_positives=Bound(at_most=at_most, confidence=confidence), misses=Bound(at_most=0.2), margin=0.001
    )


@given(errors=st.integers(0, 60), clips=st.integers(1, 60), confidence=st.floats(0.5, 0.999))
def test_the_upper_bound_is_the_one_of_clopper_and_pearson(errors: int, clips: int, confidence: float) -> None:
    errors = min(errors, clips)
    bound = upper_bound(errors, clips, confidence)
    if errors == clips:
        assert bound == 1
    else:
        assert bound == pytest.approx(beta.ppf(confidence, errors + 1, clips - errors), rel=1e-9)
        assert binom.cdf(errors, clips, bound) == pytest.approx(1 - confidence, rel=1e-6)


@settings(max_examples=40)
@given(n=st.integers(5, 300), at_most=st.floats(0.01, 0.5), seed=st.integers(0, 99))
def test_no_more_real_clips_are_called_fake_than_the_policy_allows(n: int, at_most: float, seed: int) -> None:
    clips = held_out(n, seed)
    t = thresholds(bounded(at_most), clips, "x")
    assert np.mean(np.array(clips.real) >= t.fake) <= at_most
    assert np.mean(np.array(clips.fake) <= t.real) <= 0.2
    assert t.real <= 0.499 < 0.501 <= t.fake


def test_a_confident_bound_holds_in_the_population_as_often_as_it_says() -> None:
    policy, n, worlds = bounded(0.05, 0.9), 100, 2000
    rng = np.random.default_rng(7)
    broken = 0
    for _ in range(worlds):
        real = rng.random(n)  # the share of the population at or above t is 1 - t
        clips = HeldOut(real=tuple(real), fake=(0.1, 0.9), real_groups=n, fake_groups=2)
        broken += 1 - thresholds(policy, clips, "x").fake > 0.05
    assert binom.cdf(broken, worlds, 0.1) < 0.99
    assert broken > 0


def test_a_bound_that_the_clips_cannot_support_is_refused_with_their_number() -> None:
    assert thresholds(bounded(0.05, 0.95), held_out(59), "x").fake > 0.5
    with pytest.raises(FusionFault, match=r"real clips: 58 held-out clips cannot support at most 5\.00%") as refused:
        thresholds(bounded(0.05, 0.95), held_out(58), "x")
    assert refused.value.code == FaultCode.BOUND_UNSUPPORTED
    assert upper_bound(0, 58, 0.95) > 0.05 >= upper_bound(0, 59, 0.95)


def test_clips_that_reach_the_end_of_the_scale_allow_no_threshold_beyond_it() -> None:
    clips = HeldOut(real=(1.0,) * 9, fake=(0.5,) * 9, real_groups=9, fake_groups=9)
    with pytest.raises(FusionFault, match="have probability 1"):
        thresholds(bounded(0.1), clips, "x")


def test_a_head_takes_part_in_the_predefined_policies_that_its_clips_support() -> None:
    assert set(supported(PREDEFINED, held_out(100))) == set(PREDEFINED)
    assert set(supported(PREDEFINED, held_out(30))) == {"balanced"}


def with_clips(n: int):
    head = head_of("forensic_mlp").model_copy(update={"held_out": held_out(n)})
    return BUNDLE.model_copy(update={"heads": (head, head_of("cqcc_cnn"))})


def test_an_operator_s_policies_are_computed_for_each_head_and_can_lead(tmp_path: Path) -> None:
    path = tmp_path / "p.toml"
    path.write_text("""
        [policies.night-shift]
        false_positives = {at_most = 0.02, confidence = 0.95}
        misses = {at_most = 0.1}
        [policies.strict]
        thresholds = {real = 0.05, fake = 0.97}
    """)
    bundle = with_policies(with_clips(200), read_policies(path), "strict")
    visual, audio = bundle.heads
    assert visual.thresholds["strict"] == audio.thresholds["strict"] == Thresholds(real=0.05, fake=0.97)
    assert "night-shift" in visual.thresholds
    assert "night-shift" not in audio.thresholds
    assert bundle.policy == "strict"
    with pytest.raises(FusionFault, match="100 held-out clips"):
        with_policies(with_clips(100), read_policies(path))


def test_a_policy_that_no_head_can_follow_cannot_lead() -> None:
    only_known = BUNDLE.model_copy(update={"heads": (head_of("cqcc_cnn"),)})
    with pytest.raises(FusionFault) as refused:
        with_policies(only_known, {"mine": bounded(0.1)}, "mine")
    assert refused.value.code == FaultCode.BOUND_UNSUPPORTED
    with pytest.raises(FusionFault, match="there is no policy"):
        with_policies(BUNDLE, {}, "mine")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[policies]",
        "[policies.balanced]\nthresholds = {real = 0.1, fake = 0.9}",
        "[policies.x]\nthresholds = {real = 0.9, fake = 0.1}",
        "[policies.x]\nthresholds = {real = nan, fake = 0.9}",
        "[policies.x]\nfalse_positives = {at_most = 0.1}",
        "[policies.x]\nfalse_positives = {at_most = 0}\nmisses = {at_most = 0.1}",
        "[policies.'A name']\nthresholds = {real = 0.1, fake = 0.9}",
        "[policies.x]\nthresholds = {real = 0.1, fake = 0.9}\nmargins = 1",
        "not toml",
    ],
)
def test_a_policy_file_that_says_something_else_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "p.toml"
    path.write_text(text)
    with pytest.raises(FusionFault) as refused:
        read_policies(path)
    assert refused.value.code == FaultCode.POLICY_MALFORMED


def test_figures_count_what_the_thresholds_do() -> None:
    bundle = with_policies(with_clips(100), {"mine": Policy(thresholds=Thresholds(real=0.2, fake=0.8))})
    clips = bundle.heads[0].held_out
    mine = next(f for f in figures(bundle) if f.policy == "mine")
    assert (mine.real, mine.called_fake) == (100, sum(p >= 0.8 for p in clips.real))
    assert mine.found == np.mean(np.array(clips.fake) >= 0.8)
    assert mine.false_positive_bound == pytest.approx(beta.ppf(0.95, mine.called_fake + 1, 100 - mine.called_fake))


def test_the_command_tells_the_number_of_real_clips_and_writes_a_bundle_that_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = tmp_path / "p.json", tmp_path / "new.json"
    path.write_text('{"policies": {"strict": {"thresholds": {"real": 0.05, "fake": 0.97}}}}')
    assert main(["fusion", "policies", "--add", str(path), "--default", "strict", "--out", str(out)]) == 0
    told = capsys.readouterr().out
    assert re.search(r"\d+ of \d+ \(\d+ groups\)", told)
    assert "verdicts follow the policy strict" in told
    assert "seed-5way is not fitted" in told
    assert main(["fusion", "policies", "--bundle", str(out)]) == 0
    path.write_text('{"policies": {"sure": {"false_positives": {"at_most": 0.001, "confidence": 0.99},'
                    ' "misses": {"at_most": 0.1}}}}')  # fmt: skip
    assert main(["fusion", "policies", "--add", str(path), "--out", str(out)]) == 2
    assert "cannot support at most 0.10%" in capsys.readouterr().err
