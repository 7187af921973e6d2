"""Log-mel energies against librosa, and the picture of a sound."""

import librosa
import numpy as np
import pytest

from clipwarden.models.audio.mel import log_mel, spectrogram
from tests.media import RATE_HZ, speech
from tests.sounds import music, noise

SOUNDS = {
    "speech": lambda: speech(4),
    "music": lambda: music(4),
    "noise": lambda: noise(4),
    "half silence": lambda: np.concatenate([speech(2), np.zeros(2 * RATE_HZ, np.int16)]),
    "digital silence": lambda: np.zeros(4 * RATE_HZ, np.int16),
    "an odd number of samples": lambda: speech(3)[:-123],
}


@pytest.mark.parametrize("name", SOUNDS)
def test_levels_are_librosas(name):
    wave = SOUNDS[name]().astype(np.float32) / 32768
    power = librosa.feature.melspectrogram(y=wave, sr=16_000, n_fft=1024, hop_length=256, n_mels=80)
    expected = librosa.power_to_db(power, ref=np.max)
    found = log_mel(wave)
    assert found.dtype == np.float32
    assert found.shape == expected.shape == (80, 1 + len(wave) // 256)
    np.testing.assert_allclose(found, expected, atol=80 * 1e-4)


def test_four_seconds_have_251_columns():
    assert log_mel(np.zeros(64_000, np.float32)).shape == (80, 251)


def _tone(hz, seconds):
    return np.sin(2 * np.pi * hz * np.arange(round(seconds * RATE_HZ)) / RATE_HZ).astype(np.float32)


def test_the_picture_shows_low_tones_below_and_time_to_the_right():
    picture = spectrogram(np.concatenate([_tone(200, 20), _tone(6000, 20)]))
    assert picture.dtype == np.uint8
    assert picture.shape == (80, 256)
    assert picture[:, 60].argmax() > 70
    assert picture[:, 200].argmax() < 15
    assert picture.max() == 255


def test_a_short_sound_has_a_narrow_picture():
    assert spectrogram(_tone(400, 1)).shape == (80, 63)


def test_a_click_is_still_seen_in_the_picture_of_minutes():
    wave = np.zeros(120 * RATE_HZ, np.float32)
    wave[60 * RATE_HZ] = 1
    picture = spectrogram(wave)
    assert set(np.flatnonzero(picture.max(axis=0) == 255)) & {127, 128}
    assert np.median(picture) == 0


def test_the_picture_of_silence_is_black():
    assert spectrogram(np.zeros(RATE_HZ, np.float32)).max() == 0


def test_the_picture_is_the_decibels_of_librosa():
    wave = speech(4).astype(np.float32) / 32768
    power = librosa.feature.melspectrogram(y=wave, sr=16_000, n_fft=1024, hop_length=256, n_mels=80)
    expected = (librosa.power_to_db(power, ref=np.max)[::-1] / 80 + 1) * 255
    assert np.abs(spectrogram(wave) - expected).max() <= 0.51
