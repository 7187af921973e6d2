"""Speech-like sound without words: glottal pulses and noise through moving vowel formants.

A source-filter synthesiser after Klatt (1980), with the mean formants of women of Peterson and Barney (1952),
three resonators in cascade and no zeros. It serves the sample clip and the workers' test of themselves.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

SAMPLE_RATE_HZ = 16000
STEP = SAMPLE_RATE_HZ // 200  # samples per control step: 5 ms

VOWELS_HZ = {
    "i": (310.0, 2790.0, 3310.0),
    "e": (610.0, 2330.0, 2990.0),
    "a": (850.0, 1220.0, 2810.0),
    "o": (590.0, 920.0, 2710.0),
    "u": (370.0, 950.0, 2670.0),
}
BANDWIDTHS_HZ = (70.0, 100.0, 150.0)
ONSETS = ("stop", "fricative", "nasal", "none")


@dataclass(slots=True)
class Controls:
    """Tracks with one value per control step; formants are (N, 3), the others (N,)."""

    formants_hz: NDArray[np.float64]
    voice: NDArray[np.float64]
    noise: NDArray[np.float64]
    pitch_hz: NDArray[np.float64]


def speak(duration_s: float, seed: int) -> NDArray[np.float32]:
    """float32 (N,) mono at SAMPLE_RATE_HZ, peak 0.7; equal arguments give equal samples."""
    rng = np.random.default_rng(seed)
    controls = _phrases(round(duration_s * SAMPLE_RATE_HZ / STEP), rng)
    wave = _resonate(_source(controls, rng), controls.formants_hz)
    scaled: NDArray[np.float64] = 0.7 * wave / np.abs(wave).max()
    return scaled.astype(np.float32)


def loudness(wave: NDArray[np.float32], per_second: float) -> NDArray[np.float64]:
    """Root mean square of consecutive stretches, `per_second` of them each second, scaled to at most 1."""
    hop = round(SAMPLE_RATE_HZ / per_second)
    stretches = wave[: len(wave) // hop * hop].reshape(-1, hop).astype(np.float64)
    level: NDArray[np.float64] = np.sqrt(np.mean(stretches**2, axis=1))
    return level / max(float(level.max()), 1e-9)


def _phrases(steps: int, rng: np.random.Generator) -> Controls:
    formants = np.zeros((0, 3))
    voice, noise = np.zeros(0), np.zeros(0)
    while len(voice) < steps:
        for _ in range(int(rng.integers(4, 8))):
            vowel = VOWELS_HZ[str(rng.choice(list(VOWELS_HZ)))]
            steps_of_vowel, stress = int(rng.integers(22, 44)), float(rng.uniform(0.7, 1))
            level, hiss = _syllable(str(rng.choice(ONSETS)), steps_of_vowel, stress)
            formants = np.vstack([formants, np.tile(vowel, (len(level), 1))])
            voice, noise = np.append(voice, level), np.append(noise, hiss)
        pause = np.zeros(int(rng.integers(40, 80)))
        formants = np.vstack([formants, np.tile(formants[-1], (len(pause), 1))])
        voice, noise = np.append(voice, pause), np.append(noise, pause)
    glide = np.hanning(17) / np.hanning(17).sum()  # 80 ms: the tongue does not jump
    gliding = np.stack([_smooth(track, glide) for track in formants.T], axis=1)
    return Controls(gliding[:steps], voice[:steps], noise[:steps], _pitch(steps, rng))


def _syllable(onset: str, steps: int, stress: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Voice and noise levels of one onset and its vowel."""
    vowel = stress * np.sin(np.linspace(0.15, np.pi - 0.25, steps)) ** 0.5
    quiet, silence = np.full(12, 0.25), np.zeros(12)
    match onset:
        case "stop":
            burst = np.append(np.zeros(10), [0.5, 0.35])
            return np.append(silence, vowel), np.append(burst, 0.02 * vowel)
        case "fricative":
            return np.append(silence, vowel), np.append(0.3 * np.hanning(12), 0.02 * vowel)
        case "nasal":
            return np.append(quiet, vowel), np.append(silence, 0.02 * vowel)
        case _:
            return vowel, 0.02 * vowel


def _pitch(steps: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """About 205 Hz, falling over two seconds and starting anew, with a slow random walk and jitter."""
    seconds = np.arange(steps) * STEP / SAMPLE_RATE_HZ
    fall = 1.08 - 0.08 * (seconds % 2.0)
    walk = _smooth(rng.normal(0, 0.25, steps), np.hanning(101) / np.hanning(101).sum())
    return 205 * fall * (1 + walk + rng.normal(0, 0.006, steps))


def _smooth(track: NDArray[np.float64], kernel: NDArray[np.float64]) -> NDArray[np.float64]:
    half = len(kernel) // 2
    return np.convolve(np.pad(track, half, mode="edge"), kernel, mode="valid")


def _source(controls: Controls, rng: np.random.Generator) -> NDArray[np.float64]:
    """Differentiate Rosenberg's glottal pulse, open for 56 % of a period, and add noise."""
    samples = len(controls.voice) * STEP
    grid, knots = np.arange(samples), np.arange(len(controls.voice)) * STEP
    phase = np.cumsum(np.interp(grid, knots, controls.pitch_hz) / SAMPLE_RATE_HZ) % 1.0
    rise, fall = 0.5 * (1 - np.cos(np.pi * phase / 0.4)), np.cos(np.pi / 2 * (phase - 0.4) / 0.16)
    pulses = np.diff(np.where(phase < 0.4, rise, np.where(phase < 0.56, fall, 0.0)), prepend=0.0)
    hiss = np.diff(rng.normal(0, 0.1, samples), prepend=0.0)
    voice, noise = (np.interp(grid, knots, track) for track in (controls.voice, controls.noise))
    return pulses * voice + hiss * noise


def _resonate(source: NDArray[np.float64], formants_hz: NDArray[np.float64]) -> NDArray[np.float64]:
    """Klatt's two-pole resonators in cascade, their states carried from step to step."""
    wave = source.reshape(-1, STEP)
    for index, bandwidth_hz in enumerate(BANDWIDTHS_HZ):
        radius = np.exp(-np.pi * bandwidth_hz / SAMPLE_RATE_HZ)
        cosines = np.cos(2 * np.pi * formants_hz[:, index] / SAMPLE_RATE_HZ)
        state, out = np.zeros(2), np.empty_like(wave)
        for step, cosine in enumerate(cosines):
            b, c = 2 * radius * cosine, -(radius**2)
            out[step], state = lfilter([1 - b - c], [1, -b, -c], wave[step], zi=state)
        wave = out
    return wave.ravel()
