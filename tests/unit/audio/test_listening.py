"""Which windows of a sound are judged, and what is said of the others."""

from itertools import pairwise

import numpy as np
import pytest

from clipwarden.models.audio.listening import Cut, level_dbfs, listen, windows_of
from clipwarden.models.audio.speech import speech_network
from clipwarden.shared.clip import Clip, Sound
from clipwarden.shared.codes import SkipCode
from clipwarden.shared.contracts import AudioNeed
from clipwarden.shared.errors import NotApplicable
from tests.media import RATE_HZ, silence, speech
from tests.sounds import clip_of, music, noise

NEED = AudioNeed(seconds=30, min_seconds=1, window_s=6)
CUT = Cut(4 * RATE_HZ, 2 * RATE_HZ)


def heard(clip, cut=CUT):
    return listen(clip, NEED, cut, speech_network())


def judged_s(found):
    return [(e.start_s + a / RATE_HZ, e.start_s + b / RATE_HZ) for e, places in found.judged for a, b in places]


@pytest.mark.parametrize("length", [200, 400, 401, 600, 3750])
def test_windows_cover_the_length_and_are_equally_long(length):
    ranges = windows_of(length, 400, 200)
    assert ranges[0][0] == 0
    assert ranges[-1][1] == length
    assert {end - start for start, end in ranges} == {min(length, 400)}
    assert all(0 < b[0] - a[0] <= 200 for a, b in pairwise(ranges))


def test_a_clip_of_speech_is_judged_from_first_to_last_sample():
    found = heard(clip_of(speech(11)))
    assert judged_s(found) == [(0, 4), (2, 6), (4, 8), (6, 10), (7, 11)]
    assert found.gaps == ()
    assert found.heard_s == 11
    assert 0.5 < found.speech_share < 1


def test_windows_keep_to_the_grid():
    found = heard(clip_of(speech(11)[:-80]), Cut(4 * RATE_HZ, 2 * RATE_HZ, grid=256))
    places = [place for _, ranges in found.judged for place in ranges]
    assert all(a % 256 == 0 for a, b in places)
    assert {b - a for a, b in places} == {4 * RATE_HZ}


def test_a_long_clip_is_heard_from_its_first_to_its_last_second():
    wave = np.tile(speech(10), 20)
    places = judged_s(heard(clip_of(wave)))
    assert len(places) == 10
    assert places[0] == (0, 4)
    assert places[-1] == (196, 200)
    assert all(b[0] - a[0] == 2 for a, b in zip(places[::2], places[1::2], strict=True))


def test_music_before_speech_is_left_out_and_named():
    found = heard(clip_of(np.concatenate([music(8), speech(8)])))
    assert [(g.start_s, g.end_s, g.code) for g in found.gaps] == [(0, 8, SkipCode.NO_SPEECH)]
    assert judged_s(found)[-1] == (12, 16)
    assert all(end > 8 for _, end in judged_s(found))


def test_silence_and_music_are_told_apart():
    found = heard(clip_of(np.concatenate([speech(4), silence(8), music(8)])))
    assert [g.code for g in found.gaps] == [SkipCode.SILENT_AUDIO, SkipCode.NO_SPEECH]


def test_gaps_in_different_stretches_of_a_long_clip_stay_apart():
    wave = np.concatenate([speech(10), np.tile(music(20), 9), speech(10)])
    gaps = heard(clip_of(wave)).gaps
    assert len(gaps) > 1
    assert all(a.end_s < b.start_s for a, b in pairwise(gaps))


@pytest.mark.parametrize(
    ("wave", "code"),
    [
        (np.zeros(0, np.int16), SkipCode.NO_AUDIO),
        (speech(0.3), SkipCode.AUDIO_TOO_SHORT),
        (silence(3), SkipCode.SILENT_AUDIO),
        (noise(3, level=20), SkipCode.SILENT_AUDIO),
        (music(9), SkipCode.NO_SPEECH),
        (noise(5), SkipCode.NO_SPEECH),
        (np.concatenate([music(5), silence(9)]), SkipCode.NO_SPEECH),
        (np.full(48_000, 12_000, np.int16), SkipCode.NO_SPEECH),
    ],
    ids=["nothing", "0.3 s", "digital silence", "faint noise", "music", "noise", "music, then silence", "constant"],
)
def test_what_cannot_be_judged_is_skipped(wave, code):
    with pytest.raises(NotApplicable) as skip:
        heard(clip_of(wave))
    assert skip.value.code == code


def test_a_sound_that_ends_before_the_clip_is_judged_as_far_as_it_goes():
    wave = speech(5)
    assert judged_s(heard(clip_of(wave, duration_s=20))) == [(0, 4), (1, 5)]


def test_of_a_long_clip_only_stretches_with_sound_are_judged():
    wave = np.concatenate([speech(6), speech(6, 1), speech(0.5, 2)])
    sound = Sound(wave, np.array([0, 48.5, 97]), np.array([96_000, 96_000, 8_000]))
    places = judged_s(heard(Clip(sounds={RATE_HZ: sound}, duration_s=200)))
    assert places == [(0, 4), (2, 6), (48.5, 52.5), (50.5, 54.5)]


def test_evidence_is_the_logistic_of_the_mean_logit_with_a_window_per_logit():
    found = heard(clip_of(np.concatenate([speech(6), music(9)])))
    count = len(judged_s(found))
    logits = np.linspace(-2, 3, count)
    evidence = found.evidence("a_feature", logits)
    assert evidence.score == pytest.approx(1 / (1 + np.exp(-logits.mean())))
    assert evidence.features == {"a_feature": evidence.score}
    assert [w.score for w in evidence.windows] == pytest.approx((1 / (1 + np.exp(-logits))).tolist())
    assert [(w.start_s, w.end_s) for w in evidence.windows] == judged_s(found)
    assert evidence.gaps == found.gaps
    assert evidence.facts["heard_s"] == 15
    assert 0.1 < evidence.facts["speech_share"] < 0.5


def test_the_evidence_of_two_minutes_fits_into_its_row():
    wave = np.tile(speech(12), 10)
    found = listen(clip_of(wave), AudioNeed(seconds=120, window_s=9.6), Cut(102_400, 51_200, 256), speech_network())
    logits = np.random.default_rng(0).normal(size=len(judged_s(found)))
    assert len(found.evidence("a_feature", logits).model_dump_json()) < 4096


def test_level_is_in_decibels_of_full_scale():
    assert level_dbfs(np.full(100, 0.1, np.float32)) == pytest.approx(-20, abs=1e-4)
    assert level_dbfs(np.zeros(10, np.float32)) == -np.inf
