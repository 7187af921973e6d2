"""What of a clip's sound a detector judges: overlapping windows with speech in them; and what it makes of their scores.

Silence and music are not judged but named: speech networks give them a score that means nothing.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from clipwarden.models.audio.speech import CHUNK, SpeechNetwork
from clipwarden.shared.clip import Clip, Excerpt
from clipwarden.shared.codes import SkipCode
from clipwarden.shared.contracts import AudioNeed, Evidence, Gap, Window
from clipwarden.shared.errors import NotApplicable

SILENCE_DBFS: Final = -60.0
LEAST_SPEECH: Final = 0.1
"""Share of a window that is speech, below which it is not judged."""

Range = tuple[int, int]
"""First and one past the last; of samples, unless said otherwise."""


@dataclass(frozen=True, slots=True)
class Cut:
    """How a detector cuts sound: windows of `window` samples, `step` apart, at multiples of `grid`."""

    window: int
    step: int
    grid: int = 1


@dataclass(frozen=True, slots=True)
class Heard:
    """What is judged: per excerpt the ranges of its windows, at least one in all; and what is left out.

    `speech_share` is the share of speech in all that was heard, of `heard_s` seconds.
    """

    judged: tuple[tuple[Excerpt, tuple[Range, ...]], ...]
    gaps: tuple[Gap, ...]
    speech_share: float
    heard_s: float
    rate_hz: int

    def evidence(self, feature: str, logits: NDArray[np.float64]) -> Evidence:
        """The finding of a detector that gave the windows these logits, in order: the logistic of their mean."""
        score = _sigmoid(float(np.mean(logits)))
        places = [_span(excerpt, place, self.rate_hz) for excerpt, places in self.judged for place in places]
        scores = [_sigmoid(float(logit)) for logit in logits]
        return Evidence(
            score=score,
            features={feature: score},
            windows=tuple(Window(start_s=a, end_s=b, score=s) for (a, b), s in zip(places, scores, strict=True)),
            gaps=self.gaps,
            facts={"speech_share": round(self.speech_share, 3), "heard_s": round(self.heard_s, 3)},
        )


def listen(clip: Clip, need: AudioNeed, cut: Cut, network: SpeechNetwork) -> Heard:
    """Choose what of the sound at 16 kHz is judged.

    Raises NotApplicable without sound, if all of it is silent, if nobody speaks, or if no stretch lasts
    `need.min_seconds`.
    """
    excerpts = clip.excerpts(need)
    if not excerpts:
        raise NotApplicable(SkipCode.NO_AUDIO)
    long_enough = [e for e in excerpts if len(e.samples) >= need.min_seconds * need.sample_rate_hz]
    if not long_enough:
        raise NotApplicable(SkipCode.AUDIO_TOO_SHORT)
    sorted_out = [_sort(excerpt, cut, network) for excerpt in long_enough]
    judged = tuple((s.excerpt, tuple(s.judged)) for s in sorted_out if s.judged)
    if not judged:
        codes = {code for s in sorted_out for _, code in s.left_out}
        raise NotApplicable(SkipCode.NO_SPEECH if SkipCode.NO_SPEECH in codes else SkipCode.SILENT_AUDIO)
    return Heard(
        judged=judged,
        gaps=tuple(_gaps(sorted_out, need.sample_rate_hz)),
        speech_share=float(np.mean(np.concatenate([s.speech for s in sorted_out]))),
        heard_s=sum(len(e.samples) for e in long_enough) / need.sample_rate_hz,
        rate_hz=need.sample_rate_hz,
    )


def windows_of(length: int, window: int, step: int) -> list[Range]:
    """Ranges of at most `window` that cover 0 … length, each `step` after the one before.

    The last range ends with the length, so it may start less than a step after its neighbour. Any unit will do.
    """
    last = max(length - window, 0)
    starts = [*range(0, last, step), last]
    return [(start, min(start + window, length)) for start in starts]


def level_dbfs(wave: NDArray[np.float32]) -> float:
    """Root mean square of a wave in [-1, 1), in dB of full scale; -inf for digital silence."""
    power = float(np.mean(np.square(wave, dtype=np.float64)))
    return 10 * math.log10(power) if power > 0 else -math.inf


@dataclass(frozen=True, slots=True)
class _Sorted:
    """An excerpt's windows. speech: bool (chunks,)."""

    excerpt: Excerpt
    speech: NDArray[np.bool_]
    judged: list[Range]
    left_out: list[tuple[Range, SkipCode]]


def _sort(excerpt: Excerpt, cut: Cut, network: SpeechNetwork) -> _Sorted:
    wave = excerpt.samples
    length = len(wave) if len(wave) <= cut.window else len(wave) // cut.grid * cut.grid
    ranges = windows_of(length, cut.window, cut.step)
    audible = [(a, b) for a, b in ranges if level_dbfs(wave[a:b]) >= SILENCE_DBFS]
    speech = network.hears(wave) if audible else np.zeros(-(-len(wave) // CHUNK), np.bool_)
    judged = [(a, b) for a, b in audible if speech[a // CHUNK : -(-b // CHUNK)].mean() >= LEAST_SPEECH]
    why = {r: SkipCode.NO_SPEECH if r in audible else SkipCode.SILENT_AUDIO for r in ranges if r not in judged}
    return _Sorted(excerpt, speech, judged, list(why.items()))


def _gaps(sorted_out: Sequence[_Sorted], rate_hz: int) -> Iterable[Gap]:
    """What was left out, windows that overlap or touch and have the same reason made one."""
    merged: list[tuple[float, float, SkipCode]] = []
    for one in sorted_out:
        for place, code in one.left_out:
            start_s, end_s = _span(one.excerpt, place, rate_hz)
            if merged and merged[-1][2] is code and start_s <= merged[-1][1]:
                start_s = merged.pop()[0]
            merged.append((start_s, end_s, code))
    return (Gap(start_s=a, end_s=b, code=code) for a, b, code in merged)


def _span(excerpt: Excerpt, place: Range, rate_hz: int) -> tuple[float, float]:
    """Seconds from the start of the clip, to the millisecond."""
    start_s, end_s = (round(excerpt.start_s + sample / rate_hz, 3) for sample in place)
    return start_s, end_s


def _sigmoid(logit: float) -> float:
    return 1 / (1 + math.exp(-max(min(logit, 700.0), -700.0)))
