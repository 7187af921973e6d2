"""A clip that every healthy detector can judge, to tell a sick machine from difficult clips."""

from collections.abc import Sequence

import numpy as np

from clipwarden.models.assess import Loaded, assess
from clipwarden.shared.clip import Clip, View
from clipwarden.shared.contracts import Branch, FrameNeed, Needs, OutcomeStatus
from clipwarden.shared.errors import WorkerFault

SAMPLE_RATE_HZ = 16_000
LEAST_SECONDS = 4.0


def known_clip(needs: Sequence[Needs]) -> Clip:
    """Seeded noise in every view and in the sound, as much as the detectors ask for. Scores on it mean nothing."""
    rng = np.random.default_rng(0)
    seconds = max((n.audio.min_seconds for n in needs if n.audio), default=0.0)
    samples = round(max(seconds, LEAST_SECONDS) * SAMPLE_RATE_HZ)
    return Clip(
        views={n.frames.key: _noise(n.frames, rng) for n in needs if n.frames},
        wave=rng.normal(0, 3000, samples).astype(np.int16),
        sample_rate_hz=SAMPLE_RATE_HZ,
        duration_s=samples / SAMPLE_RATE_HZ,
    )


def self_test(branch: Branch, detectors: Sequence[Loaded]) -> None:
    """Judge the known clip with every detector. Raises WorkerFault naming those that could not."""
    if not detectors:
        return
    result = assess(branch, known_clip([loaded.entry.needs for loaded in detectors]), detectors)
    sick = [f"{o.name} ({o.code}: {o.message})" for o in result.detectors if o.status is not OutcomeStatus.OK]
    if sick:
        raise WorkerFault(f"the self-test failed: {'; '.join(sick)}")


def _noise(need: FrameNeed, rng: np.random.Generator) -> View:
    side, n = need.size_px, need.count
    return View(
        images=rng.integers(0, 256, (n, side, side, 3), dtype=np.uint8),
        times_s=np.linspace(0, 1, n),
        boxes=np.tile(np.array([0, 0, side, side], np.float32), (n, 1)),
    )
