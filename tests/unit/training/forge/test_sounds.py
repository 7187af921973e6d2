"""Each recipe for the sound does what it says of pitch, phase, order and time, at the same length and level."""

from dataclasses import replace

import librosa
import numpy as np
import pytest
from scipy.linalg import solve, toeplitz
from scipy.signal import lfilter

from clipwarden.models.training import channel
from clipwarden.models.training.forge.recipe import NotForgeable, Sources, Take, seeded
from clipwarden.models.training.forge.recipes import RECIPES, installed
from clipwarden.models.training.forge.sounds import frames_of, laid_in, levelled, overlapped, pitch
from clipwarden.models.training.forge.voices import _formants_moved, _predictor
from tests.media import RATE_HZ, speech

VOICES = [n for n in ("griffin_lim", "phase_vocoder", "lpc", "world", "conversion", "splice") if installed(RECIPES[n])]


def take(wave, rate_hz=RATE_HZ):
    return Take("sha256:" + "0" * 64, 0, 0.0, 0, 0, np.asarray(wave, np.float32), rate_hz)


def spoken(seconds, seed=0):
    return speech(seconds, seed).astype(np.float32) / 32768


def heard(name, wave, other=None, seed=0, rate_hz=RATE_HZ, **parameters):
    recipe, rng = RECIPES[name], seeded(seed, name)
    drawn = recipe.draw(rng) | parameters
    sources = Sources(take(wave, rate_hz), None if other is None else take(other))
    return recipe.listen(sources, drawn, rng)


def tone(hertz, seconds=1.0, rate_hz=RATE_HZ):
    t = np.arange(round(seconds * rate_hz)) / rate_hz
    return sum(np.sin(2 * np.pi * k * hertz * t) / k for k in range(1, 12)).astype(np.float32) * 0.2


@pytest.mark.parametrize("name", VOICES)
def test_a_made_voice_differs_and_keeps_length_and_level(name):
    wave = spoken(1.0)
    made = heard(name, wave)
    assert made.dtype == np.float32
    assert len(made) == len(wave)
    assert np.abs(made).max() < 1.0
    assert np.sqrt(np.mean(made**2)) == pytest.approx(np.sqrt(np.mean(wave**2)), rel=0.25)
    assert np.corrcoef(made, wave)[0, 1] < 0.98


@pytest.mark.parametrize("name", ["griffin_lim", "phase_vocoder", "lpc", *(["world"] if "world" in VOICES else [])])
def test_a_vocoder_copy_says_the_same(name):
    wave = spoken(1.0)
    mels = [librosa.power_to_db(librosa.feature.melspectrogram(y=w, sr=RATE_HZ, n_mels=24), top_db=50) for w in
            (wave, heard(name, wave))]  # fmt: skip
    assert np.corrcoef(mels[0].ravel(), mels[1].ravel())[0, 1] > 0.75


@pytest.mark.parametrize("rate_hz", [8000, 48000])
def test_the_shortest_sound_can_be_made_at_any_rate(rate_hz):
    wave = (0.1 * np.random.default_rng(0).standard_normal(rate_hz // 2)).astype(np.float32)
    for name in VOICES:
        made = heard(name, wave, rate_hz=rate_hz)
        assert len(made) == len(wave)
        assert np.isfinite(made).all()


def test_conversion_moves_the_pitch_by_as_much_as_it_records():
    made = heard("conversion", tone(150), semitones=4.0, formants=1.1)
    found = np.median(librosa.yin(made[2000:-2000], fmin=70, fmax=400, sr=RATE_HZ))
    assert 12 * np.log2(found / 150) == pytest.approx(4.0, abs=0.2)


def test_formants_move_and_the_pitch_stays():
    noise = np.random.default_rng(0).standard_normal(RATE_HZ)
    radius, angle = 0.93, 2 * np.pi * 1000 / RATE_HZ
    wave = (0.01 * lfilter([1], [1, -2 * radius * np.cos(angle), radius**2], noise)).astype(np.float32)
    power = np.abs(librosa.stft(_formants_moved(wave, RATE_HZ, 1.2), n_fft=512)).mean(axis=1)
    assert np.argmax(power) * RATE_HZ / 512 == pytest.approx(1200, abs=80)
    moved = _formants_moved(tone(160), RATE_HZ, 1.2)
    assert np.median(librosa.yin(moved, fmin=70, fmax=400, sr=RATE_HZ)) == pytest.approx(160, rel=0.02)


def test_a_splice_is_made_of_the_sound_itself():
    wave = np.linspace(-0.5, 0.5, 2 * RATE_HZ, dtype=np.float32)
    made = heard("splice", wave, pieces=1.0, length_s=0.3)
    changed = np.flatnonzero(made != wave)
    assert 0.2 * RATE_HZ < len(changed) <= 0.3 * RATE_HZ
    inner = changed[len(changed) // 4 : -len(changed) // 4]
    np.testing.assert_allclose(np.diff(made[inner]), np.diff(wave)[0], atol=1e-6)


@pytest.mark.parametrize("shift_s", [0.3, -0.7])
def test_a_shift_is_as_long_as_it_records(shift_s):
    wave = spoken(2.0)
    made = heard("time_shift", wave, shift_s=shift_s)
    echo = np.fft.irfft(np.fft.rfft(made) * np.conj(np.fft.rfft(wave)))
    assert np.argmax(echo) == round(shift_s * RATE_HZ) % len(wave)


def test_a_shift_that_would_leave_the_sound_in_place_is_refused():
    with pytest.raises(NotForgeable, match=r"0.9 s of sound shifted by -0.90 s stay in place"):
        heard("time_shift", spoken(0.9), shift_s=-0.9)


def test_drawn_shifts_are_a_fifth_to_one_second_to_either_side():
    drawn = [RECIPES["time_shift"].draw(seeded(k))["shift_s"] for k in range(40)]
    assert all(0.2 <= abs(s) <= 1.0 for s in drawn)
    assert {np.sign(s) for s in drawn} == {-1, 1}


@pytest.mark.parametrize("seconds", [0.4, 3.0])
def test_foreign_speech_is_the_other_clips_at_this_ones_length(seconds):
    wave, theirs = spoken(1.0, 1), spoken(seconds, 2)
    made = heard("foreign_speech", wave, theirs, start=0.0)
    assert len(made) == len(wave)
    early = slice(1000, 5000)
    assert np.corrcoef(made[early], theirs[early])[0, 1] > 0.99
    assert np.sqrt(np.mean(made**2)) == pytest.approx(np.sqrt(np.mean(wave**2)), rel=0.05)


def test_the_predictor_solves_the_normal_equations():
    row = spoken(0.1)[:480] * np.hanning(480)
    echo = np.array([np.dot(row[: 480 - k], row[k:]) for k in range(19)])
    echo[0] *= 1.0001
    reference = solve(toeplitz(echo[:-1]), echo[1:])
    np.testing.assert_allclose(_predictor(row, 18)[1:], -reference, rtol=1e-6, atol=1e-8)


def test_the_pitch_is_that_of_the_tone_and_noise_has_none():
    hertz, voiced = pitch(tone(180), RATE_HZ, 160)
    assert voiced[5:-5].all()
    np.testing.assert_allclose(hertz[5:-5], 180, rtol=0.02)
    noise = np.random.default_rng(0).standard_normal(RATE_HZ).astype(np.float32)
    assert pitch(noise, RATE_HZ, 160)[1].mean() < 0.1


def test_stretches_add_up_to_the_wave_again():
    wave = spoken(0.5).astype(np.float64)
    rows = frames_of(wave, 640, 160) * np.hanning(641)[:-1]
    np.testing.assert_allclose(overlapped(rows, 160, len(wave)), wave, atol=1e-9)


def test_a_piece_is_laid_in_without_a_step():
    wave = np.zeros(RATE_HZ, np.float32)
    laid_in(wave, np.ones(4000, np.float32), 5000, RATE_HZ)
    assert np.abs(np.diff(wave)).max() < 0.02
    assert not wave[:5000].any()
    assert not wave[9000:].any()


def test_levels_match_and_never_clip():
    quiet, peaky = spoken(0.5) * 0.1, np.zeros(8000)
    peaky[::400] = 1.0
    assert np.sqrt(np.mean(levelled(peaky, quiet) ** 2)) == pytest.approx(np.sqrt(np.mean(quiet**2)), rel=1e-3)
    assert np.abs(levelled(peaky, spoken(0.5) * 2)).max() < 1


def test_a_random_channel_is_the_one_its_name_says():
    wave = spoken(0.5)
    drawn, named = np.random.default_rng(7), np.random.default_rng(7)
    through = channel.through_channel(wave, drawn)
    name = ("mp3", "aac", "opus", "noise", "narrow", "room")[named.integers(6)]
    assert np.array_equal(through, channel.through(name, wave, named))


def test_a_telephone_carries_no_more_than_4_khz_and_the_mu_laws_noise():
    wave = spoken(0.5)
    line = channel.through("telephone", wave, np.random.default_rng(0))
    power = np.abs(np.fft.rfft(line)) ** 2
    assert power[len(power) * 9 // 16 :].sum() < 1e-3 * power.sum()
    assert np.corrcoef(line, wave)[0, 1] > 0.9


def test_clipping_flattens_the_peaks():
    loud = channel.through("clipped", spoken(0.5), np.random.default_rng(0))
    assert np.mean(np.abs(loud) > 0.999 * np.abs(loud).max()) > 0.002


def test_nothing_of_a_silent_take_counts_as_sound():
    assert not take(np.zeros(100)).has_sound
    assert not take([]).has_sound
    assert replace(take(np.zeros(0)), frames=3, fps=25.0).loudness.tolist() == [0, 0, 0]
