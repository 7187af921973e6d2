"""What of a branch's result a stage row holds: scores, features, a few windows, and nothing that grows with the clip.

Fusion reads rows, so a verdict made in one process reads the same.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import numpy as np

from clipwarden.shared.contracts import BranchResult, Evidence, Window

ROW_BYTES: Final = 7_500
FINDINGS_BYTES: Final = 5_000
"""Of a row, what scores and windows may take; the rest is for the names, times and boxes of exhibits."""
MOST_WINDOWS: Final = (32, 16, 8, 4, 2, 1, 0)
MESSAGE_CHARS: Final = 200


def brief(result: BranchResult) -> BranchResult:
    """The result without what grows with the clip: no looks and curves, short messages, and windows and gaps joined."""
    shortened = (_brief(result, most) for most in MOST_WINDOWS)
    return next((r for r in shortened if len(r.as_row().encode()) <= FINDINGS_BYTES), _brief(result, 0))


def joined(windows: Sequence[Window], most: int) -> tuple[Window, ...]:
    """At most that many windows in order of time: neighbours that differ least are made one, with their mean score.

    Those that neither touch nor overlap are joined last. Times are rounded to milliseconds, scores to four places.
    """
    left = sorted(windows, key=lambda w: (w.start_s, w.end_s))
    while len(left) > max(most, 1):
        costs = [abs(a.score - b.score) + (b.start_s > a.end_s) for a, b in pairwise(left)]
        at = int(np.argmin(costs))
        left[at : at + 2] = [_one(left[at], left[at + 1])]
    return tuple(
        Window(start_s=round(w.start_s, 3), end_s=round(w.end_s, 3), score=round(w.score, 4)) for w in left[:most]
    )


def _brief(result: BranchResult, most: int) -> BranchResult:
    outcomes = (
        o.model_copy(update={"evidence": o.evidence and _summary(o.evidence, most), "message": _short(o.message)})
        for o in result.detectors
    )
    return result.model_copy(update={"detectors": tuple(outcomes), "message": _short(result.message)})


def _summary(evidence: Evidence, most: int) -> Evidence:
    longest = sorted(evidence.gaps, key=lambda gap: gap.start_s - gap.end_s)[: most // 4]
    return evidence.model_copy(
        update={
            "windows": joined(evidence.windows, most),
            "gaps": tuple(sorted(longest, key=lambda gap: gap.start_s)),
            "looks": (),
            "curves": (),
        }
    )


def _short(message: str | None) -> str | None:
    return message if message is None or len(message) <= MESSAGE_CHARS else f"{message[: MESSAGE_CHARS - 1]}…"


def _one(a: Window, b: Window) -> Window:
    lasts = np.array([a.end_s - a.start_s, b.end_s - b.start_s]) + 1e-9
    score = float(np.average([a.score, b.score], weights=lasts))
    return Window(start_s=a.start_s, end_s=max(a.end_s, b.end_s), score=min(max(score, 0.0), 1.0))
