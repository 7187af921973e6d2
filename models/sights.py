"""What a detector looked at, for a person to look at: where each picture lies in the clip, and which ones to show."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from clipwarden.shared.clip import Clip, View
from clipwarden.shared.contracts import Box, Evidence, ExhibitKind, FrameNeed, Look

WORST: Final = 3
LEFT_MOUTH, RIGHT_MOUTH = 3, 4


@dataclass(frozen=True, slots=True)
class Picture:
    """pixels: uint8, grey (H, W) or RGB (H, W, 3). `time_s`, `end_s` and `box` are as in `Exhibit`."""

    kind: ExhibitKind
    pixels: NDArray[np.uint8]
    time_s: float | None = None
    end_s: float | None = None
    box: Box | None = None


@runtime_checkable
class Illustrator(Protocol):
    """A detector that has more to show than what it was shown."""

    def pictures(self, clip: Clip, evidence: Evidence) -> Sequence[Picture]:
        """What it saw in a clip that it gave this evidence for, the most suspicious first."""
        ...


def looks(view: View, scores: NDArray[np.float64], rows: Sequence[int] | None = None) -> tuple[Look, ...]:
    """One look for each row of a view, or for each of `rows`, with its score (N,)."""
    chosen = range(len(view)) if rows is None else rows
    return tuple(
        Look(
            time_s=max(float(view.times_s[row]), 0.0),
            frame=int(view.frames[row]),
            person=int(view.people[row]),
            box=_box(view.boxes[row]),
            score=round(float(score), 4),
        )
        for row, score in zip(chosen, scores, strict=True)
    )


def worst(view: View, found: Sequence[Look], most: int = WORST) -> list[int]:
    """Rows of a view that the looks with the highest scores were at, the highest first."""
    rows = {(int(frame), int(person)): row for row, (frame, person) in _who(view)}
    ranked = sorted(found, key=lambda look: -look.score)
    return [rows[look.frame, look.person] for look in ranked if (look.frame, look.person) in rows][:most]


def shown(kind: ExhibitKind, pixels: NDArray[np.uint8], view: View, row: int, need: FrameNeed) -> Picture:
    """A picture that covers exactly what a row of a view shows."""
    return Picture(kind, pixels, time_s=max(float(view.times_s[row]), 0.0), box=square(view, row, need))


def square(view: View, row: int, need: FrameNeed) -> Box:
    """What of the displayed frame a row of the view shows, to the pixel where frames were decoded at full size."""
    x1, y1, x2, y2 = (float(v) for v in view.boxes[row])
    if need.view == "frame":
        return _box(view.boxes[row])
    if need.view == "face":
        side, twice = max(x2 - x1, y2 - y1) * (1 + need.margin), (x1 + x2, y1 + y2)
    else:
        mouth = view.landmarks[row, LEFT_MOUTH] + view.landmarks[row, RIGHT_MOUTH]
        side, twice = (x2 - x1) * need.margin, (float(mouth[0]), float(mouth[1]))
    whole = max(1, round(side))
    left, top = (round((v - whole) / 2) for v in twice)
    return left, top, left + whole, top + whole


def _box(corners: NDArray[np.float32]) -> Box:
    x1, y1, x2, y2 = (round(float(v)) for v in corners)
    return x1, y1, x2, y2


def _who(view: View) -> enumerate[tuple[int, int]]:
    return enumerate(zip(view.frames.tolist(), view.people.tolist(), strict=True))
