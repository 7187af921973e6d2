"""A neural voice in place of the clip's own speech: hibari-tts (Apache-2.0), the one voice that its package holds.

The package would download its other voices when they are first used; they are never asked for.
"""

from functools import cache
from itertools import cycle, islice
from typing import Any, Final

import numpy as np

from clipwarden.models.audio.mel import SAMPLE_RATE_HZ
from clipwarden.models.audio.speech import CHUNK, speech_network
from clipwarden.models.training.forge.recipe import (
    SHORTEST_SOUND_S,
    Need,
    NotForgeable,
    Parameters,
    Recipe,
    Rng,
    Sources,
    Speech,
    Take,
    Wave,
    uniform,
)
from clipwarden.models.training.forge.sounds import laid_in, levelled, resampled

VOICE: Final = "heart"
WORDS_PER_S: Final = 3.3
SPEEDS: Final = (0.6, 1.6)
"""From slow to fast, 1 being the voice's own speed."""
SENTENCES: Final = (
    "The committee will meet again on Thursday to decide about the bridge.",
    "Please leave your keys at the front desk before noon.",
    "Nobody expected the river to rise so quickly after one night of rain.",
    "She asked for a second opinion, and then for a third.",
    "Our train was late, so we walked the rest of the way.",
    "I have never said anything of the kind, and I never would.",
    "The new school opens in autumn with room for four hundred children.",
    "If you want to sell the house, you should paint the kitchen first.",
    "He promised to call back within an hour, but the phone stayed silent.",
    "Prices fell for the third month in a row, according to the report.",
    "Turn left at the old church, and you will see the garden on your right.",
    "We are going to win this, and we are going to do it together.",
)
_ROUNDS: Final = 3
_SILENCE_DB: Final = 40


def _draw(rng: Rng) -> dict[str, float]:
    return uniform(rng, pace=(0.85, 1.15))


def _say(clip: Take, words: str | None, parameters: Parameters, rng: Rng) -> Speech:
    """As many words as the clip's own speech has room for; those that are given are said again where it has more."""
    start, end = _spoken(clip)
    text = " ".join(rng.permutation(SENTENCES)) if words is None else words
    count = max(round((end - start) / clip.rate_hz * WORDS_PER_S * parameters["pace"]), 1)
    said = " ".join(islice(cycle(text.split()), count))
    if not any(c.isalpha() for phonemes in _speaker().phonemize(said) for c in phonemes):
        raise NotForgeable(f"the neural voice reads English, and there is none in {said!r}")
    return Speech(voice=VOICE, words=said)


def _listen(sources: Sources, _: Parameters, rng: Rng) -> Wave:
    """The voice as long and as loud as the clip's own speech, laid over it; what is before and after stays."""
    assert sources.speech is not None
    clip, wave = sources.clip, sources.clip.wave.copy()
    start, end = _spoken(clip)
    said = _read(sources.speech.words, (end - start) / clip.rate_hz, int(rng.integers(2**31)))
    said = resampled(said, _speaker().sample_rate, clip.rate_hz)
    laid_in(wave, levelled(said, wave[start:end]), start, clip.rate_hz)
    return wave


def _read(words: str, seconds: float, seed: int) -> Wave:
    """The words in so many seconds, if a speed allows it; at the speaker's rate, without silence around them.

    The voice rounds the length of each phoneme, so that the speed is found step by step.
    """
    speaker, speed = _speaker(), 1.0
    for _ in range(_ROUNDS):
        wave = _trimmed(speaker(words, speed=speed, seed=seed))
        speed = float(np.clip(speed * len(wave) / speaker.sample_rate / seconds, *SPEEDS))
    return wave


def _trimmed(wave: Wave) -> Wave:
    import librosa

    return np.asarray(librosa.effects.trim(wave, top_db=_SILENCE_DB)[0], np.float32)


def _spoken(clip: Take) -> tuple[int, int]:
    """The samples from the first to the last speech; all if there is hardly any."""
    heard = np.flatnonzero(speech_network().hears(resampled(clip.wave, clip.rate_hz, SAMPLE_RATE_HZ)))
    chunk = CHUNK * clip.rate_hz / SAMPLE_RATE_HZ
    start, end = (round(heard[0] * chunk), round((heard[-1] + 1) * chunk)) if len(heard) else (0, 0)
    enough = end - start >= SHORTEST_SOUND_S * clip.rate_hz
    return (start, min(end, len(clip.wave))) if enough else (0, len(clip.wave))


@cache
def _speaker() -> Any:
    from hibari import Hibari
    from hibari.voices import voice_path

    return Hibari(VOICE, model=voice_path(VOICE, download_missing=False))


NEURAL_VOICE: Final = Recipe(
    name="neural_voice",
    version=1,
    summary="a neural voice that says something else in place of the clip's speech",
    fakes=frozenset({"audio", "sync"}),
    needs=frozenset({Need.SOUND}),
    draw=_draw,
    say=_say,
    listen=_listen,
    package="hibari",
    wheel="hibari-tts",
)
