"""A clip that every healthy detector can judge, to tell a sick machine from difficult clips."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from clipwarden.models.assess import Loaded, assess
from clipwarden.shared.clip import Clip, Sound, View
from clipwarden.shared.codes import SkipCode
from clipwarden.shared.contracts import Branch, DetectorOutcome, FrameNeed, Needs, OutcomeStatus
from clipwarden.shared.errors import WorkerFault

LEAST_SECONDS = 4.0


def known_clip(needs: Sequence[Needs]) -> Clip:
    """Seeded noise in every view and babble as sound, as much as the detectors ask for. Scores on it mean nothing."""
    rng = np.random.default_rng(0)
    seconds = max([LEAST_SECONDS, *(n.audio.min_seconds for n in needs if n.audio)])
    rates = sorted({n.audio.sample_rate_hz for n in needs if n.audio})
    return Clip(
        views={view.key: _noise(view, rng) for n in needs for view in n.views},
        sounds={rate: Sound.whole(_babble(seconds, rate)) for rate in rates},
        duration_s=seconds,
    )


def self_test(branch: Branch, detectors: Sequence[Loaded]) -> None:
    """Judge the known clip with every detector. Raises WorkerFault naming those that could not.

    One that says that it judges no such clip at all is well.
    """
    if not detectors:
        return
    result = assess(branch, known_clip([loaded.entry.needs for loaded in detectors]), detectors)
    sick = [f"{o.name} ({o.code}: {o.message})" for o in result.detectors if _is_sick(o)]
    if sick:
        raise WorkerFault(f"the self-test failed: {'; '.join(sick)}")


def _is_sick(outcome: DetectorOutcome) -> bool:
    return outcome.status is not OutcomeStatus.OK and outcome.code != SkipCode.NOT_APPLICABLE


def _noise(need: FrameNeed, rng: np.random.Generator) -> View:
    n = need.count * need.consecutive
    images = rng.integers(0, 256, (n, need.size_px, need.size_px, 3), dtype=np.uint8)
    return View.of(images, times_s=np.linspace(0, 1, n))


def _babble(seconds: float, rate_hz: int) -> NDArray[np.int16]:
    from scipy.signal import resample_poly

    from clipwarden.shared.local.voice import SAMPLE_RATE_HZ, speak

    wave = resample_poly(speak(seconds, seed=0), rate_hz, SAMPLE_RATE_HZ)
    return np.asarray(wave * 32767, np.int16)
