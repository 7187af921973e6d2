"""What to read of a file: the union of what a pipeline's ready detectors need, decided before decoding."""

from collections.abc import Sequence

import numpy as np

from clipwarden.shared.codes import SkipCode
from clipwarden.shared.contracts import (
    Branch,
    DetectorState,
    FrameNeed,
    Manifest,
    ManifestDetector,
    MediaKind,
    MediaProbe,
    SamplingPlan,
    ViewPlan,
)

HEARS = frozenset({Branch.AUDIO, Branch.LIPSYNC})
SEES = frozenset({Branch.VISUAL, Branch.LIPSYNC, Branch.CLIP})


def plan(probe: MediaProbe, manifest: Manifest) -> tuple[SamplingPlan, dict[Branch, SkipCode]]:
    """The sampling plan of the branches that can run, and why each other branch cannot.

    Frames are spread uniformly by decoded frame index, whatever their time stamps; a clip with fewer frames
    than a need asks for gives each frame once. Sound is read up to the longest need. What only the decoded
    content can rule out (no face, silence) is found later.
    """
    skips = {branch: code for branch in Branch if (code := _skip(branch, probe, manifest)) is not None}
    running = [d for branch in Branch if branch not in skips for d in manifest.ready(branch)]
    needs = {d.needs.frames.key: d.needs.frames for d in running if d.needs.frames}
    views = tuple(ViewPlan(need=need, frame_indices=_spread(need, probe.frames)) for need in needs.values())
    seconds = max((d.needs.audio.seconds for d in running if d.needs.audio), default=0.0)
    return SamplingPlan(views=views, audio_seconds=seconds if probe.has_audio else 0.0), skips


def _skip(branch: Branch, probe: MediaProbe, manifest: Manifest) -> SkipCode | None:
    ready = manifest.ready(branch)
    if not ready:
        return _not_ready([d for d in manifest.detectors if d.branch is branch])
    if branch in SEES and probe.kind is MediaKind.AUDIO:
        return SkipCode.NOT_APPLICABLE
    if branch in HEARS and not probe.has_audio:
        return SkipCode.NO_AUDIO
    if branch in HEARS and probe.duration_s < shortest_sound_s(ready):
        return SkipCode.AUDIO_TOO_SHORT
    return None


def _not_ready(detectors: Sequence[ManifestDetector]) -> SkipCode:
    switched_off = any(d.state is DetectorState.DISABLED for d in detectors)
    return SkipCode.DISABLED if switched_off else SkipCode.NO_WEIGHTS


def shortest_sound_s(detectors: Sequence[ManifestDetector]) -> float:
    """Seconds of sound below which none of the detectors can judge."""
    return min((d.needs.audio.min_seconds if d.needs.audio else 0.0 for d in detectors), default=0.0)


def _spread(need: FrameNeed, frames: int) -> tuple[int, ...]:
    count = min(need.count, frames)
    return tuple(np.unique(np.linspace(0, frames - 1, count).round().astype(np.int64)).tolist()) if count else ()
