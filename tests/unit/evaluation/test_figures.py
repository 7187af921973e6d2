"""Figures against scikit-learn, and weights against the repetition of items that they stand for."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, brier_score_loss, log_loss, roc_auc_score, roc_curve

from clipwarden.models.fusion.replay import LABELS
from clipwarden.models.training.evaluation.figures import (
    Judged,
    all_figures,
    balanced,
    calibration,
    decisions,
    ranking,
    source_matched,
)
from clipwarden.models.training.measure import eer
from clipwarden.shared.contracts import Label


def sample(seed: int, n: int = 200, digits: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Labels and scores with many ties, as rounding makes them."""
    rng = np.random.default_rng(seed)
    fake = rng.random(n) < 0.4
    score = 1 / (1 + np.exp(-(1.5 * rng.normal(size=n) + fake - 0.3)))
    return fake, score.round(digits)


def judged(fake: np.ndarray, score: np.ndarray, source: np.ndarray | None = None) -> Judged:
    label = np.where(score >= 0.6, LABELS.index(Label.FAKE), np.where(score <= 0.3, LABELS.index(Label.REAL), 1))
    return Judged(fake, score, label.astype(np.int8), np.zeros(len(fake), int) if source is None else source)


@pytest.mark.parametrize("digits", [1, 2, 8])
@pytest.mark.parametrize("seed", range(3))
def test_ranking_is_that_of_scikit_learn(seed: int, digits: int) -> None:
    fake, score = sample(seed, digits=digits)
    times = np.random.default_rng(seed).integers(0, 4, len(fake))
    found = {name: value[0] for name, value in ranking(fake, score, times[None].astype(float)).items()}
    y, s = np.repeat(fake, times), np.repeat(score, times)
    fpr, tpr, _ = roc_curve(y, s, drop_intermediate=False)
    assert found["auc"] == pytest.approx(roc_auc_score(y, s), abs=1e-12)
    assert found["average_precision"] == pytest.approx(average_precision_score(y, s), abs=1e-12)
    assert found["fpr_at_95_tpr"] == pytest.approx(fpr[tpr >= 0.95].min(), abs=1e-12)
    assert found["eer"] == pytest.approx(eer(y, s), abs=1e-12)


@pytest.mark.parametrize("even", [False, True])
def test_calibration_is_that_of_scikit_learn(even: bool) -> None:
    fake, score = sample(1)
    score = score.clip(0.01, 0.99)
    weight = np.ones((1, len(fake)))
    weight = balanced(fake, weight) if even else weight
    found = {name: value[0] for name, value in calibration(fake, score, weight).items()}
    each = weight[0]
    assert found["brier"] == pytest.approx(brier_score_loss(fake, score, sample_weight=each), abs=1e-12)
    assert found["log_loss"] == pytest.approx(log_loss(fake, score, sample_weight=each), abs=1e-9)
    logit = np.log(score / (1 - score))[:, None]
    refit = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(logit, fake, sample_weight=each)
    assert found["calibration_slope"] == pytest.approx(refit.coef_[0, 0], abs=1e-4)
    assert found["calibration_intercept"] == pytest.approx(refit.intercept_[0], abs=1e-4)
    gaps = []
    for b in range(10):
        of = (score >= b / 10) & (score < (b + 1) / 10)
        gaps.append(abs((each[of] * (score[of] - fake[of])).sum()) / each.sum())
    assert found["ece"] == pytest.approx(sum(gaps), abs=1e-12)


def test_balanced_weights_give_both_labels_half() -> None:
    fake = np.array([True, False, False, False])
    even = balanced(fake, np.ones((2, 4)))
    np.testing.assert_allclose(even, [[2, 2 / 3, 2 / 3, 2 / 3]] * 2)


def test_decisions_count_what_labels_say() -> None:
    fake = np.array([True, True, True, False, False, False, False, False])
    label = np.array([2, 1, 0, 2, 0, 0, 0, 1], np.int8)
    some = Judged(fake, np.full(8, 0.5), label, np.zeros(8, int))
    found = {name: value[0] for name, value in decisions(some, np.ones((1, 8))).items()}
    assert found == {
        "accuracy": pytest.approx(4 / 6),
        "conclusive": pytest.approx(6 / 8),
        "tpr_at_threshold": pytest.approx(1 / 3),
        "fpr_at_threshold": pytest.approx(1 / 5),
        "missed_at_threshold": pytest.approx(1 / 3),
    }


def test_source_matched_auc_averages_over_sources_with_both_labels() -> None:
    fake, score = sample(2)
    source = np.random.default_rng(0).integers(-1, 5, len(fake))
    source[fake & (source == 4)] = 3
    areas = [roc_auc_score(fake[source == k], score[source == k]) for k in range(4)]
    assert source_matched(judged(fake, score, source), np.ones((1, 200)))[0] == pytest.approx(np.mean(areas))


def test_a_source_that_is_drawn_again_counts_again() -> None:
    fake, score = sample(3)
    source = np.arange(200) % 6
    times = np.random.default_rng(4).integers(0, 4, (20, 6))
    times[0] = [0, 3, 0, 1, 0, 0]
    areas = [roc_auc_score(fake[source == k], score[source == k]) for k in range(6)]
    expected = [np.mean([area for k, area in enumerate(areas) for _ in range(draw[k])]) for draw in times]
    found = source_matched(judged(fake, score, source), times[:, source].astype(float))
    np.testing.assert_allclose(found, expected)


def test_without_both_labels_ranking_is_undefined_and_the_rest_stands() -> None:
    fake, score = np.ones(20, bool), np.linspace(0.1, 0.9, 20)
    found = {name: value[0] for name, value in all_figures(judged(fake, score), np.ones((1, 20))).items()}
    for name in ("auc", "eer", "average_precision", "fpr_at_95_tpr", "calibration_slope", "fpr_at_threshold"):
        assert np.isnan(found[name]), name
    assert found["tpr_at_threshold"] == pytest.approx(0.35, abs=0.1)
    assert found["brier"] == pytest.approx(((1 - score) ** 2).mean())


def test_a_separated_set_has_no_slope() -> None:
    fake = np.arange(20) >= 10
    found = calibration(fake, np.linspace(0.05, 0.95, 20), np.ones((1, 20)))
    assert np.isnan(found["calibration_slope"][0])
    assert np.isnan(found["calibration_intercept"][0])
