"""Real pictures and a real voice that do not belong together: a shifted sound, another clip's sound."""

from typing import Final

import numpy as np

from clipwarden.models.training.forge.recipe import Need, NotForgeable, Parameters, Recipe, Rng, Sources, Wave, uniform
from clipwarden.models.training.forge.sounds import JOINT_S, laid_in, levelled, resampled

LEAST_S: Final = 0.12


def _draw_shift(rng: Rng) -> dict[str, float]:
    return {"shift_s": float(rng.choice([-1, 1])) * uniform(rng, length_s=(0.2, 1.0))["length_s"]}


def _shift(sources: Sources, parameters: Parameters, _: Rng) -> Wave:
    """Later for a positive shift; what falls off one end comes in at the other, the joint faded."""
    wave, rate = sources.clip.wave, sources.clip.rate_hz
    by = round(parameters["shift_s"] * rate) % len(wave)
    if min(by, len(wave) - by) < LEAST_S * rate:
        raise NotForgeable(f"{len(wave) / rate:.1f} s of sound shifted by {parameters['shift_s']:.2f} s stay in place")
    shifted = np.roll(wave, by)
    joint = int(JOINT_S * rate)
    shifted[by - joint : by + joint] *= np.abs(np.linspace(-1, 1, 2 * joint, dtype=np.float32))
    return shifted


def _draw_foreign(rng: Rng) -> dict[str, float]:
    return uniform(rng, start=(0.0, 1.0))


def _foreign(sources: Sources, parameters: Parameters, _: Rng) -> Wave:
    """The other clip's sound from some point on, repeated if it is too short, as loud as the own was."""
    assert sources.other is not None
    clip, other = sources.clip, sources.other
    theirs = resampled(other.wave, other.rate_hz, clip.rate_hz)
    spare = max(len(theirs) - len(clip.wave), 0)
    first = int(parameters["start"] * spare)
    heard = np.zeros(len(clip.wave), np.float32)
    step = max(len(theirs) - int(JOINT_S * clip.rate_hz), 1)
    for place in range(0, len(heard), step):
        laid_in(heard, theirs[first : first + len(heard)], place, clip.rate_hz)
    return levelled(heard, clip.wave)


TIME_SHIFT = Recipe(
    name="time_shift",
    version=1,
    summary="the clip's own sound 0.2 to 1 s early or late",
    fakes=frozenset({"sync"}),
    needs=frozenset({Need.PICTURES, Need.SOUND}),
    draw=_draw_shift,
    listen=_shift,
)
FOREIGN_SPEECH = Recipe(
    name="foreign_speech",
    version=1,
    summary="the sound of another clip over these pictures",
    fakes=frozenset({"sync"}),
    needs=frozenset({Need.PICTURES, Need.SOUND, Need.OTHER_SOUND}),
    draw=_draw_foreign,
    listen=_foreign,
)
