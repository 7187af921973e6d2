"""LipFD's windows of five neighbouring frames: which ones a clip gives, and what their scores say of it."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from clipwarden.models.visual.scores import Floats
from clipwarden.shared.clip import View
from clipwarden.shared.codes import SkipCode
from clipwarden.shared.contracts import Evidence, Gap, Span, Window
from clipwarden.shared.errors import NotApplicable

FRAMES: Final = 5
WINDOWS: Final = 10
THRESHOLD: Final = 0.5


@dataclass(frozen=True, slots=True)
class LipFdScores:
    """P(fake) of a clip's windows (K,) in order of time, when each begins and ends, and what was left out."""

    per_window: Floats
    places: tuple[Span, ...]
    gaps: tuple[Gap, ...] = ()

    @property
    def mean(self) -> float:
        return float(self.per_window.mean())

    def evidence(self, feature: str) -> Evidence:
        scored = zip(self.places, self.per_window.tolist(), strict=True)
        return Evidence(
            score=self.mean,
            features={feature: self.mean},
            windows=tuple(Window(start_s=start, end_s=end, score=score) for (start, end), score in scored),
            gaps=self.gaps,
        )

    def as_seed_json(self, processing_time_s: float) -> dict[str, Any]:
        """The result as LipFD's document has it: the mean over the windows decides."""
        scores = self.per_window.tolist()
        return {
            "prediction": _word(self.mean),
            "confidence": self.mean if self.mean >= THRESHOLD else 1 - self.mean,
            "processing_time": processing_time_s,
            "frames_analyzed": len(scores),
            "frame_predictions": [{"index": k, "score": s, "prediction": _word(s)} for k, s in enumerate(scores)],
            "metrics": {"final_average_score": self.mean, "window_scores": scores},
        }


def window_rows(view: View, count: int) -> list[int]:
    """First rows of at most `count` windows of a view of frames, those nearest to an even spread, each once.

    Raises NotApplicable if the view has no five neighbouring frames.
    """
    whole = np.flatnonzero(view.frames[FRAMES - 1 :] - view.frames[: 1 - FRAMES] == FRAMES - 1)
    if not len(whole):
        raise NotApplicable(SkipCode.TOO_FEW_FRAMES)
    wanted = np.linspace(0, int(view.frames[-1]) + 1 - FRAMES, count, dtype=np.int64)
    distances: NDArray[np.int64] = np.abs(view.frames[whole] - wanted[:, None])
    return [int(row) for row in np.unique(whole[distances.argmin(axis=1)])]


def span(view: View, row: int) -> Span:
    """When the window that starts with a row begins and ends: the times of its first and its last frame."""
    return max(float(view.times_s[row]), 0.0), max(float(view.times_s[row + FRAMES - 1]), 0.0)


def _word(score: float) -> str:
    return "FAKE" if score >= THRESHOLD else "REAL"
