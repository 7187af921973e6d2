"""Training for frames: the discriminant, what may train with what, and the command from clips to a card."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from clipwarden.models.training.card import card_text
from clipwarden.models.training.clip_cache import ClipCache
from clipwarden.models.training.discriminant import best_slope, fit_direction, scaling
from clipwarden.models.training.frames import Described, FramesRecipe, fit_frames
from clipwarden.models.training.measure import auc
from clipwarden.models.training.run_folder import AS_IT_IS, CODED, THINNED, RunFolder, read_table
from clipwarden.models.training.video_data import VideoClip, read_clips
from clipwarden.models.training.video_report import left_out, left_out_auc, operation
from clipwarden.models.visual.frame_stats import COUNT, FrameStats
from clipwarden.models.weights import WeightFile, file_digest
from clipwarden.shared.cli import main
from tests.networks import pictures


def _clip(path, fake=True, repository="r", group="g", identity="", matched_group=""):
    return VideoClip(path, fake, group, 0, identity, matched_group, "none", repository)


@pytest.mark.parametrize("width", [20, 120])
def test_the_direction_is_that_of_scikit_learn(width):
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(50, width)) @ rng.normal(size=(width, width))
    fake = rng.random(50) < 0.4
    rows[fake] += 0.8
    weights = np.where(fake, 0.5 / fake.sum(), 0.5 / (~fake).sum())
    reference = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.3, priors=[0.5, 0.5]).fit(rows, fake)
    direction = fit_direction(rows, fake, weights, 0.3)
    np.testing.assert_allclose(direction.weight, reference.coef_[0], rtol=1e-6)
    assert direction.bias == pytest.approx(reference.intercept_[0], rel=1e-6)


def test_a_weight_counts_like_repetition():
    rng = np.random.default_rng(1)
    rows, fake = rng.normal(size=(20, 6)), np.arange(20) % 2 == 0
    often = rng.integers(1, 4, 20)
    repeated = fit_direction(
        np.repeat(rows, often, axis=0), np.repeat(fake, often), np.full(often.sum(), 1 / often.sum()), 0.4
    )
    weighed = fit_direction(rows, fake, often / often.sum(), 0.4)
    np.testing.assert_allclose(weighed.weight, repeated.weight, rtol=1e-9)
    for one, other in zip(
        scaling(rows, often / often.sum()),
        scaling(np.repeat(rows, often, 0), np.full(often.sum(), 1 / often.sum())),
        strict=True,
    ):
        np.testing.assert_allclose(one, other)


def test_scatter_between_groups_counts_as_much_as_is_said():
    rng = np.random.default_rng(5)
    centres = np.repeat(rng.normal(size=(10, 6)) * 3, 8, axis=0)
    rows, fake, groups = rng.normal(size=(80, 6)) + centres, np.arange(80) < 40, np.repeat(np.arange(10).astype(str), 8)
    weights = np.full(80, 1 / 80)
    whole = fit_direction(rows, fake, weights, 0.2)
    np.testing.assert_allclose(fit_direction(rows, fake, weights, 0.2, groups).weight, whole.weight, rtol=1e-9)
    within = rows - centres - np.repeat((rows - centres).reshape(10, 8, 6).mean(axis=1), 8, axis=0)
    between = rows[fake].mean(axis=0) - rows[~fake].mean(axis=0)
    scatter = 0.8 * within.T @ within / 80 + 0.2 * np.eye(6) * np.square(within).sum() / 80 / 6
    found = fit_direction(rows, fake, weights, 0.2, groups, 0.0)
    np.testing.assert_allclose(found.weight, np.linalg.solve(scatter, between), rtol=1e-9)


def test_the_slope_has_the_least_log_loss():
    rng = np.random.default_rng(2)
    logits = rng.normal(size=4000) * 2
    fake = rng.random(4000) < 1 / (1 + np.exp(-0.3 * logits))
    assert best_slope(logits, fake, np.full(4000, 1 / 4000)) == pytest.approx(0.3, abs=0.03)


def test_what_is_learnt_separates_clips_that_were_not_seen():
    rng = np.random.default_rng(3)
    towards = rng.normal(size=COUNT)

    def described(k):
        fake = k % 2 == 0
        rows = (rng.normal(size=(2, 3, COUNT)) + 0.15 * fake * towards).astype(np.float32)
        return Described(_clip(str(k), fake, group=f"{fake} {k // 4}"), tuple(rows))

    network = fit_frames([described(k) for k in range(60)], FramesRecipe(), slope=0.5)
    unseen = [described(k) for k in range(40)]
    logits = np.array([network(torch.from_numpy(d.versions[0])).mean().item() for d in unseen])
    assert auc(np.array([d.clip.fake for d in unseen]), logits) > 0.95


def test_a_repository_is_left_out_with_its_generators_people_and_footage():
    tested = [
        _clip("f", repository="here", group="generator", identity="ann"),
        _clip("r", fake=False, repository="here", group="here", matched_group="scene"),
    ]
    others = [
        _clip("same generator", repository="a", group="generator"),
        _clip("same person", repository="b", group="b", identity="ann"),
        _clip("same footage", fake=False, repository="c", group="c", matched_group="scene"),
        _clip("apart", repository="d", group="d", identity="bob"),
        _clip("apart too", fake=False, repository="e", group="e"),
    ]
    [(of, kept)] = left_out([*tested, *others])
    assert of == tested
    assert [c.path for c in kept] == ["apart", "apart too"]


def test_the_left_out_figure_is_the_mean_over_repositories():
    clips = [_clip(f"{r}{k}", k < 2, repository=r) for r in "ab" for k in range(4)]
    right, wrong = np.array([2.0, 1.0, 0.0, -1.0]), np.array([-1.0, 0.0, 1.0, 2.0])
    found = left_out_auc(clips, np.concatenate([right, wrong]), 0)
    assert found["repositories"] == 2
    assert found["auc"]["value"] == 0.5
    assert (found["auc"]["low"], found["auc"]["high"]) == (0.0, 1.0)


def test_thresholds_come_from_the_other_folds():
    rng = np.random.default_rng(4)
    fake, fold = np.arange(2000) % 2 == 0, np.arange(2000) % 5
    plain = rng.normal(size=2000) + fake
    found = operation(fake, fold, {"plain": plain, "moved": plain + 5})
    assert found["plain"]["real_called_fake"] == pytest.approx(0.1, abs=0.03)
    assert found["plain"]["fake_called_real"] == pytest.approx(0.1, abs=0.03)
    assert found["moved"]["real_called_fake"] > 0.95
    for shares in found.values():
        assert shares["fake_called_fake"] + shares["fake_called_real"] + shares["fake_inconclusive"] == pytest.approx(1)
    outlier = np.where(fold == 0, plain + 100, plain)
    assert operation(fake, fold, {"plain": outlier})["plain"]["real_called_fake"] == pytest.approx(0.2)


def test_the_command_makes_weights_scores_figures_and_a_card(video_corpus, tmp_path):
    out = tmp_path / "run"
    command = ["train", "frame_stats", "--data", str(video_corpus), "--out", str(out), "--jobs", "1"]
    assert main(command) == 0
    metrics = json.loads((out / "metrics.json").read_text("utf-8"))
    assert metrics["all"]["auc"]["value"] == 1.0
    assert (metrics["all"]["real"], metrics["all"]["fake"]) == (5, 5)
    assert set(metrics["operation"]) == {AS_IT_IS, THINNED, CODED}
    from_all = [np.load(file).shape[0] for file in (out / "numbers").glob("*.as_it_is.npy")]
    assert sorted(set(from_all)) == [0, 4], "all faces of a clip are judged"
    rows = read_table(out / "scores.csv", ("path", "label", "fold", "score_logit"))
    assert len(rows) == 10
    weights = out / "frame_stats.safetensors"
    first = load_file(weights)
    detector = FrameStats.load(WeightFile(weights, file_digest(weights)), "cpu")
    assert np.isfinite(detector.predict(pictures(2, 224))).all()
    text = card_text("frame_stats", RunFolder(out, json.loads((out / "config.json").read_text("utf-8"))))
    assert "left out in turn" in text
    assert "are called fake" in text
    assert main(command) == 0
    assert all(torch.equal(first[name], tensor) for name, tensor in load_file(weights).items())


def test_a_copy_differs_from_its_clip_and_a_clip_without_faces_has_no_rows(video_corpus, tmp_path):
    clips = [c for c in read_clips(video_corpus) if c.path in {"clips/1.mp4", "clips/far.mp4"}]
    cache = ClipCache(video_corpus, tmp_path, FrameStats.spec, lambda view: view.images, 1)
    assert len(list(cache.fill(clips))) == 4
    head, far = clips
    plain, coded = cache.rows(head), cache.rows(head, CODED)
    assert plain.shape == coded.shape == (4, 224, 224, 3)
    assert 0.2 < np.abs(plain.astype(float) - coded).mean() < 40
    assert len(cache.rows(far)) == len(cache.rows(far, CODED)) == 0
    changed = plain.copy()
    assert len(list(cache.fill(clips))) == 4
    np.testing.assert_array_equal(cache.rows(head), changed)
