"""The constant-Q transform and its cepstra against librosa, and against the formulas in double precision."""

import librosa
import numpy as np
import pytest
from scipy.fft import dct

from clipwarden.models.audio.cqcc import SHORTEST, cqcc
from clipwarden.models.audio.cqt import BINS, HOP, LOWEST_HZ, SAMPLE_RATE_HZ, cqt
from tests.media import speech
from tests.sounds import music, noise

SOUNDS = {
    "speech": lambda: speech(7.3, seed=1),
    "music": lambda: music(5),
    "noise": lambda: noise(4),
    "speech between silences": lambda: np.concatenate(
        [np.zeros(20000, np.int16), speech(3), np.zeros(30000, np.int16)]
    ),
    "a click": lambda: np.eye(1, SHORTEST, 777, dtype=np.int16)[0] * np.int16(30000),
    "clipped speech": lambda: np.clip(speech(4).astype(int) * 20, -32768, 32767).astype(np.int16),
    "faint noise": lambda: noise(4, level=2),
    "an odd number of samples": lambda: speech(4)[:-79],
}


def reference(wave):
    """The 5-way pipeline's features of a wave of at least 3.2 s, by librosa and SciPy: CQT, then 90 rows."""
    spectrum = librosa.cqt(wave, sr=16_000, hop_length=256, fmin=20.0, n_bins=96, bins_per_octave=12)
    log_power = np.log(np.abs(spectrum).astype(np.float64) ** 2 + 1e-12)
    cepstra = dct(log_power, type=2, axis=0, norm="ortho")[:30]
    slopes = [librosa.feature.delta(cepstra, order=order) for order in (1, 2)]
    return spectrum, np.concatenate([cepstra, *slopes])


@pytest.mark.parametrize("name", SOUNDS)
def test_spectrum_and_rows_are_librosas(name):
    wave = SOUNDS[name]().astype(np.float32) / 32768
    spectrum, rows = reference(wave)
    found = cqt(wave)
    assert found.shape == spectrum.shape == (96, 1 + len(wave) // 256)
    assert np.abs(found - spectrum).max() <= 1e-5 * np.abs(spectrum).max()
    for part in (slice(0, 30), slice(30, 60), slice(60, 90)):
        assert np.abs(cqcc(wave)[part] - rows[part]).max() <= 1e-4 * np.abs(rows[part]).max()


def _inner_products(wave, k, frames):
    """Bin k of a constant-Q transform at some hops: the inner product with a Hann-windowed tone of unit length."""
    hz = LOWEST_HZ * 2 ** (k / 12)
    ratio = 2 ** (1 / 12)
    length = SAMPLE_RATE_HZ / (hz * (ratio**2 - 1) / (ratio**2 + 1))
    n = np.arange(-int(length // 2), int(length // 2))
    window = 0.5 + 0.5 * np.cos(2 * np.pi * n / length)
    kernel = window / window.sum() * np.exp(-2j * np.pi * hz * n / SAMPLE_RATE_HZ)
    padded = np.pad(wave, len(n))
    starts = frames * HOP + len(n) + n[0]
    return np.array([np.sum(padded[start : start + len(n)] * kernel) for start in starts]) * np.sqrt(length)


def test_a_bin_is_the_inner_product_with_its_tone():
    t, frames = np.arange(4 * SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ, np.arange(40, 160)
    wave = sum(np.sin(2 * np.pi * LOWEST_HZ * 2 ** (k / 12) * t) for k in (40, 60, 80)) / 4
    found = np.abs(cqt(wave.astype(np.float32)))
    for k in (40, 60, 80):
        np.testing.assert_allclose(found[k, frames], np.abs(_inner_products(wave, k, frames)), rtol=0.03)


def test_every_tone_is_loudest_in_its_bin():
    t = np.arange(4 * SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ
    for k in range(0, BINS, 5):
        found = np.abs(cqt(np.sin(2 * np.pi * LOWEST_HZ * 2 ** (k / 12) * t).astype(np.float32)))
        assert found[:, 125].argmax() == k


def test_sound_below_3_2_seconds_is_repeated():
    wave = noise(1.3).astype(np.float32) / 32768
    np.testing.assert_array_equal(cqcc(wave), cqcc(np.concatenate([wave] * 3)[:SHORTEST]))
