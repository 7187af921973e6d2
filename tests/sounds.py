"""Sounds for the tests of the audio branch, beside `media.speech`: what is not speech, and clips that hold a sound."""

import numpy as np
from numpy.typing import NDArray

from clipwarden.shared.clip import Clip, Sound
from tests.media import RATE_HZ

CHORDS_HZ = ((220.0, 277.2, 329.6), (196.0, 246.9, 293.7), (174.6, 220.0, 261.6), (196.0, 246.9, 329.6))
BEAT_S = 0.5


def noise(seconds: float, seed: int = 0, level: float = 3000) -> NDArray[np.int16]:
    rng = np.random.default_rng(seed)
    return (rng.normal(size=round(seconds * RATE_HZ)) * level).astype(np.int16)


def music(seconds: float) -> NDArray[np.int16]:
    """Plucked chords over a drum on every beat and a bass."""
    t = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    beat, since = np.divmod(t, BEAT_S)
    wave = np.zeros(len(t))
    for k, chord in enumerate(CHORDS_HZ):
        played = beat % len(CHORDS_HZ) == k
        for hz in (chord[0] / 4, *chord):
            tones = sum(np.sin(2 * np.pi * n * hz * t) / n**1.5 for n in range(1, 6))
            wave += played * tones * np.exp(-4 * since)
    drum = np.random.default_rng(0).normal(size=len(t)) * np.exp(-60 * since)
    return (5000 * (wave / 2 + drum)).astype(np.int16)


def clip_of(wave: NDArray[np.int16], duration_s: float | None = None) -> Clip:
    """A clip whose whole sound is this."""
    sounds = {RATE_HZ: Sound.whole(wave)} if len(wave) else {}
    return Clip(sounds=sounds, duration_s=len(wave) / RATE_HZ if duration_s is None else duration_s)
