"""From a network's logits to evidence: which pictures count, statistics over them, and windows on the time axis."""

from dataclasses import fields, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from clipwarden.models.sights import looks
from clipwarden.shared.clip import View
from clipwarden.shared.codes import SkipCode
from clipwarden.shared.contracts import Evidence, Window
from clipwarden.shared.errors import NotApplicable

LEAST_FACE_PX: Final = 40
"""A face whose shorter side is below this was blown up more than it was seen."""

Floats = NDArray[np.float64]


def sigmoid(logits: Floats) -> Floats:
    """Logistic function, element by element."""
    return np.asarray(1 / (1 + np.exp(-np.clip(logits, -700, 700))))


def faces_of(view: View, least: int = 1) -> View:
    """The rows of a face view whose face is large enough.

    Raises NotApplicable without a face, if all are too small, or if fewer than `least` are left.
    """
    if not len(view):
        raise NotApplicable(SkipCode.NO_FACE)
    sides = np.minimum(view.boxes[:, 2] - view.boxes[:, 0], view.boxes[:, 3] - view.boxes[:, 1])
    kept = np.flatnonzero(sides >= LEAST_FACE_PX)
    if not len(kept):
        raise NotApplicable(SkipCode.FACE_TOO_SMALL)
    if len(kept) < least:
        raise NotApplicable(SkipCode.TOO_FEW_FRAMES)
    return (
        view if len(kept) == len(view) else replace(view, **{f.name: getattr(view, f.name)[kept] for f in fields(view)})
    )


def frames_of(view: View, least: int) -> View:
    """A view of frames as it is. Raises NotApplicable if it has fewer than `least`."""
    if len(view) < least:
        raise NotApplicable(SkipCode.TOO_FEW_FRAMES)
    return view


def per_picture(prefix: str, logits: Floats, view: View, duration_s: float, **more: float) -> Evidence:
    """Evidence of a detector that judges picture by picture; its score is the logistic of the mean logit.

    Its features are the mean, maximum and 90th percentile of P(fake) as `<prefix>_prob_…`, and what `more` there is.
    """
    probabilities = sigmoid(logits)
    return Evidence(
        score=float(sigmoid(logits.mean())),
        features={**statistics(prefix, probabilities), **more},
        windows=windows(view.times_s, probabilities, duration_s),
        looks=looks(view, probabilities),
    )


def statistics(prefix: str, probabilities: Floats) -> dict[str, float]:
    """Mean, maximum and 90th percentile, under the names of the 5-way pipeline."""
    return {
        f"{prefix}_prob_mean": float(probabilities.mean()),
        f"{prefix}_prob_max": float(probabilities.max()),
        f"{prefix}_prob_p90": float(np.percentile(probabilities, 90)),
    }


def windows(times_s: Floats, probabilities: Floats, duration_s: float) -> tuple[Window, ...]:
    """One window per picture, from halfway to its neighbour before to halfway to the one after."""
    end = max(duration_s, float(times_s[-1]))
    edges = [0.0, *((times_s[:-1] + times_s[1:]) / 2), end]
    spans = zip(edges, edges[1:], probabilities, strict=False)
    return tuple(Window(start_s=max(a, 0.0), end_s=max(b, 0.0), score=float(p)) for a, b, p in spans)
