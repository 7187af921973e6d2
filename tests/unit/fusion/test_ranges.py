"""Suspicious windows become ranges over all branches, in the head's own terms."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipwarden.models.fusion.ranges import MOST_RANGES
from clipwarden.models.fusion.verdict import judge
from clipwarden.shared.contracts import Branch, Verdict, Window
from tests.unit.fusion.conftest import BUNDLE, MANIFEST, found, head_of


def windows(*scores: float, seconds: float = 1.0) -> tuple[Window, ...]:
    return tuple(Window(start_s=k * seconds, end_s=(k + 1) * seconds, score=s) for k, s in enumerate(scores))


def mean(scores: tuple[float, ...]) -> float:
    """The logistic of the mean logit, which is what a detector reports of its windows."""
    return 1 / (1 + math.exp(-sum(math.log(s / (1 - s)) for s in scores) / len(scores)))


def seen(*scores: float) -> Verdict:
    return judge(BUNDLE, MANIFEST, [found("forensic_mlp", mean(scores), windows(*scores))])


def test_windows_of_several_branches_that_touch_are_one_range_with_its_peak() -> None:
    visual = found("forensic_mlp", 0.6, windows(0.2, 0.9, 0.95, 0.2, 0.2, 0.8))
    audio = found(
        "cqcc_cnn", 0.6, (Window(start_s=2.5, end_s=3.5, score=0.97), Window(start_s=4.0, end_s=4.5, score=0.1))
    )
    ranges = judge(BUNDLE, MANIFEST, [visual, audio]).ranges
    assert [(r.start_s, r.end_s, r.branches, r.peak) for r in ranges] == [
        (1.0, 3.5, (Branch.VISUAL, Branch.AUDIO), 0.97),
        (5.0, 6.0, (Branch.VISUAL,), 0.8),
    ]


def test_a_calm_clip_has_no_ranges() -> None:
    verdict = seen(0.3, 0.4, 0.45, 0.5)
    assert (verdict.ranges, verdict.localised) == ((), False)


def test_a_short_range_in_a_clip_that_leans_to_real_is_localised_and_said() -> None:
    verdict = seen(0.2, 0.2, 0.98, 0.2, 0.3, 0.2, 0.2, 0.25)
    assert verdict.localised
    assert [(r.start_s, r.end_s) for r in verdict.ranges] == [(2.0, 3.0)]
    assert "2.0 to 3.0 s" in next(r.text for r in verdict.reasons if r.code == "localised")


@pytest.mark.parametrize("scores", [(0.9,) * 8, (0.2, 0.9, 0.9, 0.9, 0.2, 0.2, 0.2, 0.2), (0.98, *[0.53] * 7)])
def test_what_is_long_or_suspicious_elsewhere_is_not_localised(scores: tuple[float, ...]) -> None:
    verdict = seen(*scores)
    assert verdict.ranges
    assert not verdict.localised


def test_being_in_sync_is_no_suspicion_and_out_of_sync_is() -> None:
    def synced(sync: float) -> Verdict:
        return judge(BUNDLE, MANIFEST, [found("av_sync", sync, windows(1 - sync, 1 - sync))])

    assert synced(0.95).ranges == ()
    assert [(r.start_s, r.end_s) for r in synced(0.05).ranges] == [(0.0, 2.0)]


def test_a_still_has_no_stretch_and_a_detector_without_weight_no_say() -> None:
    still = found("forensic_mlp", 0.95, (Window(start_s=0, end_s=0, score=0.95),))
    assert judge(BUNDLE, MANIFEST, [still]).ranges == ()
    deaf = head_of("cqcc_cnn")
    deaf = deaf.model_copy(update={"model": deaf.model.model_copy(update={"coef": (0.0,)})})
    loud = found("cqcc_cnn", 0.99, windows(0.99))
    assert judge(BUNDLE.model_copy(update={"heads": (deaf,)}), MANIFEST, [loud]).ranges == ()


def test_a_raw_head_finds_ranges_by_raw_scores() -> None:
    raw = BUNDLE.model_copy(update={"heads": (head_of("cqcc_cnn").model_copy(update={"inputs": "raw"}),)})
    verdict = judge(raw, MANIFEST, [found("cqcc_cnn", 0.5, windows(0.1, 0.9))])
    assert [(r.start_s, r.end_s) for r in verdict.ranges] == [(1.0, 2.0)]


@given(scores=st.lists(st.floats(0.01, 0.99), min_size=1, max_size=80))
def test_ranges_are_few_ordered_apart_and_hold_every_loud_window_they_can(scores: list[float]) -> None:
    verdict = seen(*scores)
    assert len(verdict.ranges) <= MOST_RANGES
    assert all(a.end_s < b.start_s for a, b in zip(verdict.ranges, verdict.ranges[1:], strict=False))
    assert all(r.peak >= 0.5 and 0 <= r.start_s < r.end_s <= len(scores) for r in verdict.ranges)
    assert len(verdict.model_dump_json()) < 4000
