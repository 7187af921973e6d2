"""The vectorised bootstrap against a plain loop, DeLong's interval against its definition."""

import numpy as np
import pytest
from scipy.stats import binomtest, norm
from sklearn.metrics import roc_auc_score

from clipwarden.models.training.evaluation.figures import ranking
from clipwarden.models.training.evaluation.resampling import Interval, delong, exact, intervals, resampled, unbounded


def sample(seed: int, n: int = 90) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    fake = rng.random(n) < 0.5
    return fake, rng.normal(size=n) + fake, rng.integers(0, 25, n)


def test_the_bootstrap_is_that_of_a_plain_loop() -> None:
    fake, score, group = sample(0)
    found = intervals(lambda w: ranking(fake, score, w), group, seed=3, resamples=150)["auc"]
    names, areas = np.unique(group), []
    rng = np.random.default_rng(3)
    for counts in rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=150):
        rows = np.concatenate([np.repeat(np.flatnonzero(group == g), c) for g, c in zip(names, counts, strict=True)])
        areas.append(roc_auc_score(fake[rows], score[rows]))
    assert found.value == pytest.approx(roc_auc_score(fake, score))
    assert [found.low, found.high] == pytest.approx(np.percentile(areas, [2.5, 97.5]).tolist())


def test_related_items_are_drawn_together_and_blocks_change_nothing() -> None:
    group = np.repeat(np.arange(300), 40)
    drawn = np.concatenate(list(resampled(group, seed=1, resamples=250)))
    assert drawn.shape == (250, 12_000)
    assert (drawn.reshape(250, 300, 40).std(axis=2) == 0).all()
    assert drawn.sum(axis=1).tolist() == [12_000] * 250


def test_the_interval_of_independent_items_is_as_wide_as_theory_says() -> None:
    rng = np.random.default_rng(0)
    hit = (rng.random(2000) < 0.3).astype(float)
    found = intervals(lambda w: {"share": w @ hit / w.sum(axis=1)}, np.arange(2000))["share"]
    assert found.high - found.low == pytest.approx(2 * 1.96 * np.sqrt(0.21 / 2000), rel=0.12)


def test_one_label_is_undefined_and_prints_so() -> None:
    found = intervals(lambda w: ranking(np.ones(9, bool), np.arange(9.0), w), np.arange(9))["auc"]
    assert found == Interval(value=None)
    assert str(found) == "undefined"


def test_delong_is_its_definition() -> None:
    fake, first, _ = sample(1)
    second = np.round(first + np.random.default_rng(5).normal(size=len(fake)), 1)
    found = delong(fake, first, second)

    def placements(score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        wins = (score[fake][:, None] > score[~fake]) + 0.5 * (score[fake][:, None] == score[~fake])
        return wins.mean(axis=1), wins.mean(axis=0)

    (over_a, under_a), (over_b, under_b) = placements(first), placements(second)
    m, n = fake.sum(), (~fake).sum()
    spread = np.cov(np.stack([over_a, over_b])) / m + np.cov(np.stack([under_a, under_b])) / n
    width = norm.ppf(0.975) * np.sqrt(spread[0, 0] + spread[1, 1] - 2 * spread[0, 1])
    difference = roc_auc_score(fake, first) - roc_auc_score(fake, second)
    assert [found.value, found.low, found.high] == pytest.approx([difference, difference - width, difference + width])


@pytest.mark.parametrize("groups", [1, 7, 56])
def test_a_share_of_none_or_all_is_bounded_by_the_number_of_groups(groups: int) -> None:
    for value, hits in ((0.0, 0), (1.0, groups)):
        bounds = binomtest(hits, groups).proportion_ci(method="exact")
        found = exact(Interval(value=value, low=value, high=value), groups)
        assert [found.low, found.high] == pytest.approx([bounds.low, bounds.high])
    between = Interval(value=0.2, low=0.1, high=0.4)
    assert exact(between, groups) == between


def test_a_perfect_ranking_of_few_items_is_no_certainty() -> None:
    assert unbounded(Interval(value=1.0, low=1.0, high=1.0)) == Interval(value=1.0)
    between = Interval(value=0.9, low=0.8, high=1.0)
    assert unbounded(between) == between
