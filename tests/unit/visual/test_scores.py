"""From logits to evidence: which faces count, and what is said of them."""

import numpy as np
import pytest

from clipwarden.models.visual.scores import faces_of, frames_of, per_picture, sigmoid
from clipwarden.shared.clip import View
from clipwarden.shared.codes import SkipCode
from clipwarden.shared.errors import NotApplicable


def _view(*sides):
    n = len(sides)
    boxes = np.array([[5, 5, 5 + side, 5 + 2 * side] for side in sides], np.float32).reshape(n, 4)
    return View.of(np.zeros((n, 8, 8, 3), np.uint8), np.arange(n, dtype=np.float64), boxes)


@pytest.mark.parametrize(
    ("sides", "least", "code"),
    [
        ((), 1, SkipCode.NO_FACE),
        ((39, 12), 1, SkipCode.FACE_TOO_SMALL),
        ((80, 39, 80), 3, SkipCode.TOO_FEW_FRAMES),
    ],
)
def test_faces_that_cannot_be_judged_are_a_skip_with_its_reason(sides, least, code):
    with pytest.raises(NotApplicable) as skip:
        faces_of(_view(*sides), least)
    assert skip.value.code == code


def test_faces_under_40_pixels_are_left_out():
    assert faces_of(_view(40, 39, 90)).times_s.tolist() == [0.0, 2.0]


def test_too_few_frames_are_a_skip():
    assert len(frames_of(_view(9, 9), 2)) == 2
    with pytest.raises(NotApplicable) as skip:
        frames_of(_view(9), 2)
    assert skip.value.code == SkipCode.TOO_FEW_FRAMES


def test_the_score_is_the_logistic_of_the_mean_logit():
    logits = np.array([-2.0, 0.5, 3.0])
    evidence = per_picture("vit", logits, _view(50, 50, 50), 2.5)
    p = 1 / (1 + np.exp(-logits))
    assert evidence.score == pytest.approx(1 / (1 + np.exp(-0.5)))
    expected = {"vit_prob_mean": p.mean(), "vit_prob_max": p.max(), "vit_prob_p90": np.percentile(p, 90)}
    assert evidence.features == pytest.approx(expected)
    assert [(w.start_s, w.end_s) for w in evidence.windows] == [(0.0, 0.5), (0.5, 1.5), (1.5, 2.5)]
    assert [w.score for w in evidence.windows] == pytest.approx(p.tolist())


def test_extreme_logits_neither_overflow_nor_leave_the_range():
    assert sigmoid(np.array([-1e9, 0.0, 1e9])).tolist() == pytest.approx([0.0, 0.5, 1.0])
