"""What to read of a file: the union of what a pipeline's ready detectors need, decided before decoding."""

from collections.abc import Sequence

import numpy as np

from clipwarden.shared.codes import SkipCode
from clipwarden.shared.contracts import (
    AudioNeed,
    Branch,
    DetectorState,
    FrameNeed,
    Manifest,
    ManifestDetector,
    MediaKind,
    MediaProbe,
    SamplingPlan,
    SoundPlan,
    Span,
    ViewPlan,
)

HEARS = frozenset({Branch.AUDIO, Branch.LIPSYNC})
SEES = frozenset({Branch.VISUAL, Branch.LIPSYNC, Branch.CLIP})


def plan(probe: MediaProbe, manifest: Manifest) -> tuple[SamplingPlan, dict[Branch, SkipCode]]:
    """The sampling plan of the branches that can run, and why each other branch cannot.

    Frames are spread uniformly by decoded frame index, rounded down as in the originals, whatever their time stamps: a
    clip of variable frame rate is looked at where it has pictures, and each picture keeps its time. The first and the
    last window touch the ends of the clip. A clip with fewer frames than a need asks for gives each frame once, and one
    with fewer than the `consecutive` frames of a window has none. However long a clip is, the plan stays as large: its
    frames lie further apart, and of its sound each need says what it wants (`AudioNeed.spans`); spans that touch are
    read once. What only the decoded content can rule out (no face, silence) is found later.
    """
    skips = {branch: code for branch in Branch if (code := _skip(branch, probe, manifest)) is not None}
    running = [d for branch in Branch if branch not in skips for d in manifest.ready(branch)]
    needs = {need.key: need for d in running for need in d.needs.views}
    views = tuple(ViewPlan(need=need, frame_indices=_spread(need, probe.frames)) for need in needs.values())
    heard = [d.needs.audio for d in running if d.needs.audio] if probe.has_audio else []
    return SamplingPlan(views=views, sounds=_sounds(heard, probe.duration_s)), skips


def unready(manifest: Manifest) -> dict[Branch, SkipCode]:
    """Why each branch without a ready detector cannot run, whatever the file."""
    return {b: _not_ready([d for d in manifest.detectors if d.branch is b]) for b in Branch if not manifest.ready(b)}


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
    room = frames - need.consecutive
    if room < 0:
        return ()
    starts = np.linspace(0, room, min(need.count, room + 1), dtype=np.int64)
    return tuple(np.unique(starts[:, None] + np.arange(need.consecutive)).tolist())


def _sounds(needs: Sequence[AudioNeed], duration_s: float) -> tuple[SoundPlan, ...]:
    """The union of the needs' spans, by sample rate."""
    rates = sorted({need.sample_rate_hz for need in needs})
    spans = {r: sorted(s for n in needs if n.sample_rate_hz == r for s in n.spans(duration_s)) for r in rates}
    return tuple(SoundPlan(sample_rate_hz=rate, spans=_merged(spans[rate])) for rate in rates)


def _merged(spans: Sequence[Span]) -> tuple[Span, ...]:
    """Sorted spans, those that overlap or touch made one."""
    merged: list[Span] = []
    for start, end in spans:
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return tuple(merged)
