"""The fit agrees with scikit-learn where the constraint does not bind, and refuses what it cannot calibrate."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from clipwarden.models.training.heads import TEMPERATURE_RANGE, Table, fit_head, fit_linear, fit_temperature, logits
from clipwarden.shared.errors import ConfigError


def table(signal: float, n: int = 400, columns: tuple[str, ...] = ("forensic_prob_mean", "audio_prob_fake")) -> Table:
    rng = np.random.default_rng(3)
    fake = rng.random(n) < 0.5
    x = rng.normal(size=(n, len(columns))) + signal * fake[:, None]
    return Table(columns, x, fake, np.arange(n) // 4, np.arange(n) // 4 % 5)


def test_the_model_is_the_one_scikit_learn_fits() -> None:
    t = table(1.0)
    weight = np.random.default_rng(1).uniform(0.5, 1.5, len(t.fake))
    model = fit_linear(t.x, t.fake, weight)
    z = (t.x - np.array(model.mean)) / np.array(model.scale)
    reference = LogisticRegression(C=1.0, tol=1e-10, max_iter=1000).fit(z, t.fake, sample_weight=weight)
    np.testing.assert_allclose(model.coef, reference.coef_[0], rtol=1e-4)
    np.testing.assert_allclose(logits(model, t.x), reference.decision_function(z), rtol=1e-3, atol=1e-4)


def test_a_score_that_points_the_wrong_way_gets_no_say() -> None:
    t = table(1.0)
    x = t.x.copy()
    x[:, 1] *= -1
    model = fit_linear(x, t.fake, np.ones(len(t.fake)))
    assert model.coef[0] > 0.1
    assert model.coef[1] == 0


def test_the_temperature_recovers_the_scale_of_the_logits() -> None:
    rng = np.random.default_rng(5)
    logit = rng.normal(0, 2, 20000)
    fake = rng.random(20000) < 1 / (1 + np.exp(-logit))
    assert fit_temperature(logit * 2.5, fake, np.ones(20000)) == pytest.approx(2.5, rel=0.1)
    assert TEMPERATURE_RANGE[0] <= fit_temperature(logit / 10, fake, np.ones(20000)) <= 0.51


def test_the_error_shares_of_the_policy_hold_out_of_fold() -> None:
    head = fit_head("h", table(0.8), "seeded numbers")
    assert head.metrics["false_positive_rate"] <= 0.105
    assert head.metrics["auc_low"] < head.metrics["auc"] < head.metrics["auc_high"]
    assert head.thresholds.real < 0.5 < head.thresholds.fake


def test_a_separable_set_and_a_single_class_are_refused() -> None:
    with pytest.raises(ConfigError, match="separated"):
        fit_head("h", table(50.0), "seeded numbers")
    t = table(1.0)
    with pytest.raises(ConfigError, match="one class"):
        fit_head("h", Table(t.columns, t.x, np.zeros_like(t.fake), t.group, t.fold), "seeded numbers")
