"""The fit agrees with scikit-learn where no constraint binds, keeps its promises where one does, refuses the rest."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from clipwarden.models.catalogue import CATALOGUE, PROBABILITY_EDGE, logit
from clipwarden.models.fusion.bundle import TEMPERATURE_RANGE, Head, Linear
from clipwarden.models.training.head_table import Apart, Measured, Table, metrics, unrelated, weights
from clipwarden.models.training.heads import (
    DROP_TOLERANCE,
    STRENGTHS,
    TIE,
    by_fold,
    fit,
    fit_family,
    fit_linear,
    fit_models,
    fit_temperature,
    logits,
    nested,
    subsets,
)
from clipwarden.shared.contracts import Branch
from clipwarden.shared.errors import ConfigError

COLUMNS = ("forensic_score", "audio_prob_fake", "sync_prob")
DATA = f"sha256:{'0' * 64}"


def table(signal: float, n: int = 400, columns: tuple[str, ...] = COLUMNS, seed: int = 3) -> Table:
    """Clips in groups of four, groups in five folds; each column leans by `signal` in its own direction."""
    rng = np.random.default_rng(seed)
    fake = rng.random(n) < 0.4
    lean = signal * np.array([CATALOGUE[c].suspicion for c in columns])
    x = rng.normal(size=(n, len(columns))) + lean * fake[:, None]
    return Table(columns, x, fake, np.arange(n) // 4, np.arange(n) // 4 % 5)


def family_of(t: Table, apart: Apart | None = None) -> tuple[Head, ...]:
    return fit_family(t, "seeded numbers", DATA, by_fold(t, apart), apart)


@pytest.fixture(scope="module")
def heads() -> dict[tuple[str, ...], Head]:
    return {h.feature_cols: h for h in family_of(table(0.7))}


@pytest.mark.parametrize("strength", [1.0, 10.0])
def test_the_model_is_the_one_scikit_learn_fits(strength: float) -> None:
    t = table(1.0)
    weight = np.random.default_rng(1).uniform(0.5, 1.5, len(t))
    model = fit_linear(t.columns, t.x, t.fake, weight, strength)
    z = (t.x - np.array(model.mean)) / np.array(model.scale)
    reference = LogisticRegression(C=1 / strength, tol=1e-10, max_iter=1000).fit(z, t.fake, sample_weight=weight)
    np.testing.assert_allclose(model.coef, reference.coef_[0], rtol=1e-4)
    np.testing.assert_allclose(logits(model, t.x), reference.decision_function(z), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("k", [0, 2])
def test_a_score_that_points_the_wrong_way_gets_no_say(k: int) -> None:
    t = table(1.0)
    t.x[:, k] *= -1
    model = fit_linear(t.columns, t.x, t.fake, np.ones(len(t)), 1.0)
    assert model.coef[k] == 0
    assert abs(model.coef[1]) > 0.1


def test_every_class_and_group_weighs_as_it_should() -> None:
    t = table(1.0)
    t.group[:40] = 0
    weight = weights(t)
    assert weight[t.fake].sum() == pytest.approx(weight[~t.fake].sum()) == len(t) / 2
    big, small = weight[:40][t.fake[:40]], weight[40:][t.fake[40:]]
    np.testing.assert_allclose(big[0] / small[0], math.sqrt(4 / 40))


def test_a_row_counts_by_its_share() -> None:
    t = table(1.0)
    shared = Table(t.columns, t.x, t.fake, t.group, t.fold, np.where(np.arange(len(t)) < 200, 3.0, 1.0))
    weight, before = weights(shared), weights(t)
    for side in (t.fake, ~t.fake):
        assert weight[side].sum() == pytest.approx(before[side].sum())
        np.testing.assert_allclose(weight[side][0] / weight[side][-1], 3.0)
    assert len(shared.rows(t.fake).share) == t.fake.sum()


def test_the_slope_is_the_one_scikit_learn_fits_to_the_log_odds() -> None:
    t = table(0.7)
    p = expit(2.5 * t.x[:, 0] - 0.4)
    found = metrics(Measured(t, p))
    reference = LogisticRegression(C=1e9, tol=1e-10, max_iter=1000)
    reference.fit(np.log(p / (1 - p))[:, None], t.fake, sample_weight=weights(t))
    assert found["slope"] == pytest.approx(reference.coef_[0, 0], rel=1e-3)
    assert found["slope_low"] < found["slope"] < found["slope_high"]


def test_a_head_of_one_branch_is_measured_apart_and_fitted_the_same() -> None:
    t, other = table(0.7), table(0.0, 200, seed=9)
    apart = {frozenset({Branch.AUDIO}): other}
    plain, measured = ({h.name: h for h in family_of(t, of)} for of in (None, apart))
    assert {n: h.model for n, h in plain.items()} == {n: h.model for n, h in measured.items()}
    assert measured["cqcc_cnn"].metrics["clips"] == 200
    assert abs(measured["cqcc_cnn"].metrics["auc"] - 0.5) < 0.1 < plain["cqcc_cnn"].metrics["auc"] - 0.5
    assert measured["forensic_mlp"].metrics == plain["forensic_mlp"].metrics


def test_the_temperature_recovers_the_scale_of_the_logits() -> None:
    rng = np.random.default_rng(5)
    x = rng.normal(0, 2, 20000)
    fake = rng.random(20000) < expit(x)
    assert fit_temperature(x * 2.5, fake, np.ones(20000)) == pytest.approx(2.5, rel=0.1)
    assert TEMPERATURE_RANGE[0] <= fit_temperature(x / 10, fake, np.ones(20000)) <= 0.51
    assert 4.99 <= fit_temperature(x * 10, fake, np.ones(20000)) <= TEMPERATURE_RANGE[1]


def test_a_temperature_on_a_separable_set_is_refused() -> None:
    x, fake = np.array([-1.0, -0.5, 0.5, 1.0]), np.array([False, False, True, True])
    with pytest.raises(ConfigError, match="separated"):
        fit_temperature(x, fake, np.ones(4))
    with pytest.raises(ConfigError, match="separated"):
        family_of(table(50.0))


def test_there_is_a_head_for_every_subset_of_detectors_on_the_same_clips(heads: dict[tuple[str, ...], Head]) -> None:
    assert {frozenset(c) for c in heads} == {frozenset(COLUMNS[i] for i in s) for s in subsets(COLUMNS)}
    assert len(heads) == 7
    full = heads[COLUMNS]
    for columns, head in heads.items():
        assert (head.temperature, head.metrics["fitted_clips"], head.data) == (full.temperature, 400, DATA)
        places = [COLUMNS.index(c) for c in columns]
        assert head.model.mean == tuple(full.model.mean[i] for i in places)
        assert head.seen == tuple(full.seen[i] for i in places)


def test_dropping_a_detector_that_said_nothing_moves_no_probability_by_more_than_the_tolerance(
    heads: dict[tuple[str, ...], Head],
) -> None:
    edge = logit(1 - PROBABILITY_EDGE)
    x = np.random.default_rng(0).uniform(-edge, edge, (3000, 3))
    x[:8] = [[a, b, c] for a in (-edge, edge) for b in (-edge, edge) for c in (-edge, edge)]
    for columns, head in heads.items():
        for dropped in columns if len(columns) > 1 else ():
            rest = heads[tuple(c for c in columns if c != dropped)]
            at_prior = x.copy()
            at_prior[:, COLUMNS.index(dropped)] = head.model.mean[columns.index(dropped)]
            moved = np.abs(probability(head, at_prior) - probability(rest, at_prior))
            assert moved.max() <= DROP_TOLERANCE < 0.02


def probability(head: Head, x: np.ndarray) -> np.ndarray:
    return expit(logits(head.model, x[:, [COLUMNS.index(c) for c in head.feature_cols]]) / head.temperature)


def test_a_subset_is_refitted_within_its_tie_and_not_copied() -> None:
    t = table(0.7)
    t.x[:, 1] = 0.8 * t.x[:, 0] + 0.6 * t.x[:, 1]  # what one detector knows the other half knows
    models = fit_models(t, subsets(COLUMNS), 1.0)
    full, alone = models[0, 1, 2], models[0,]
    assert full.coef[0] < alone.coef[0]
    reach = (logit(1 - PROBABILITY_EDGE) + abs(full.mean[0])) / full.scale[0]
    moved = abs(alone.intercept - full.intercept) + abs(alone.coef[0] - full.coef[0]) * reach
    assert 0 < moved <= TIE + 1e-9


def test_a_held_out_probability_has_seen_neither_its_fold_nor_its_group() -> None:
    t = table(0.7)
    before = nested(t, by_fold(t))
    changed = Table(t.columns, t.x.copy(), t.fake.copy(), t.group, t.fold)
    tested = t.fold == 2
    changed.fake[tested] = ~t.fake[tested]
    after = nested(changed, by_fold(changed))
    for subset in before:
        once, again = before[subset].probability, after[subset].probability
        np.testing.assert_array_equal(once[tested], again[tested])
        assert np.abs(once[~tested] - again[~tested]).max() > 1e-4


def test_a_speaker_of_the_tested_fold_is_not_learnt_from_in_another() -> None:
    t = table(0.7)
    speaker = np.where(t.fold == 2, 7, np.where(np.arange(len(t)) % 3 == 0, 7, -1))
    t = replace(t, kin=np.stack([np.full(len(t), -1), speaker], axis=1))
    others = t.rows(t.fold != 2)
    assert unrelated(t, 2, [t]).tolist() == ((t.fold != 2) & (speaker != 7)).tolist()
    assert unrelated(others, 2, [t]).tolist() == (others.kin[:, 1] != 7).tolist()
    changed = replace(t, fake=np.where((t.fold != 2) & (speaker == 7), ~t.fake, t.fake))
    once, again = (by_fold(of)[2] for of in (t, changed))
    assert once == again
    assert once != by_fold(replace(t, kin=None))[2]


def test_clips_that_lack_a_detector_are_measured_and_not_fitted_on() -> None:
    t = table(0.7, columns=COLUMNS[:2])
    whole = fit(t)
    more = Table(
        t.columns,
        np.concatenate([t.x, np.where([True, False], t.x[:100], np.nan)]),
        np.concatenate([t.fake, t.fake[:100]]),
        np.concatenate([t.group, t.group[:100]]),
        np.concatenate([t.fold, t.fold[:100]]),
    )
    assert fit(more).models == whole.models
    by_columns = {h.feature_cols: h for h in family_of(more)}
    assert by_columns["forensic_score",].metrics["clips"] == 500
    assert by_columns["audio_prob_fake",].metrics["clips"] == 400
    assert by_columns["forensic_score",].metrics["fitted_clips"] == 400


def test_the_strength_follows_the_noise() -> None:
    assert fit(table(0.0, n=100)).strength == max(STRENGTHS)
    assert fit(table(1.5, n=600)).strength < max(STRENGTHS)


def test_figures_are_of_held_out_clips_and_calibrated(heads: dict[tuple[str, ...], Head]) -> None:
    full = heads[COLUMNS]
    assert full.metrics["auc_low"] < full.metrics["auc"] < full.metrics["auc_high"]
    assert full.metrics["auc"] > heads["forensic_score",].metrics["auc"]
    assert full.metrics["log_loss"] < math.log(2)
    assert full.metrics["brier"] < 0.25
    assert (len(full.held_out.real), len(full.held_out.fake)) == (np.sum(~table(0.7).fake), np.sum(table(0.7).fake))
    assert set(full.thresholds) == {"balanced", "low-false-positive", "high-recall"}


def test_a_table_that_allows_no_honest_fit_is_refused() -> None:
    t = table(1.0)
    split = Table(t.columns, t.x, t.fake, t.group, np.arange(len(t)) % 5)
    with pytest.raises(ConfigError, match="two folds"):
        family_of(split)
    with pytest.raises(ConfigError, match="one class"):
        family_of(Table(t.columns, t.x, np.zeros_like(t.fake), t.group, t.fold))
    with pytest.raises(ConfigError, match="three folds"):
        family_of(Table(t.columns, t.x, t.fake, t.group, t.fold % 2))


def test_the_same_table_gives_the_same_fit() -> None:
    once, again = (table(0.7, 200) for _ in range(2))
    assert fit(once) == fit(again)
    for first, second in zip(*(nested(t, by_fold(t)).values() for t in (once, again)), strict=True):
        np.testing.assert_array_equal(first.probability, second.probability)


def test_a_column_without_spread_does_not_break_the_fit() -> None:
    t = table(1.0)
    t.x[:, 1] = 0.25
    model = fit_linear(t.columns, t.x, t.fake, np.ones(len(t)), 1.0)
    assert isinstance(model, Linear)
    assert model.scale[1] == 1
