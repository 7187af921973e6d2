"""The laboratory: figures, folds that keep kin apart, channels, and networks that learn what is there to learn."""

import csv
import re
from importlib.resources import files

import numpy as np
import pytest
import torch
from skimage import data
from sklearn.metrics import roc_auc_score, roc_curve

from clipwarden.models.audio.cqcc_cnn import CqccNetwork
from clipwarden.models.training.card import FACTS, card_text
from clipwarden.models.training.channel import coded, through_channel
from clipwarden.models.training.cli import TRAINERS
from clipwarden.models.training.cqcc_fit import CqccRecipe, Material, fit_cqcc
from clipwarden.models.training.forensic import ClipFeatures, ForensicRecipe, fit_forensic
from clipwarden.models.training.laundry import laundered
from clipwarden.models.training.measure import auc, eer, measures
from clipwarden.models.training.run_folder import CURVES, RunFolder, ScoreRow, begin_run, cache_name, read_table
from clipwarden.models.training.speech_data import Utterance, training_utterances, weights_of
from clipwarden.models.training.speech_report import protocol_metrics
from clipwarden.models.training.video_data import VideoClip, clip_weights, training_clips
from clipwarden.models.visual.forensic_mlp import ForensicMlp, ForensicNetwork
from clipwarden.shared.cli import main
from clipwarden.shared.errors import ConfigError


def _scores(seed, ties=False):
    rng = np.random.default_rng(seed)
    fake = rng.random(200) < 0.4
    scores = rng.normal(size=200) + fake
    return fake, np.round(scores * 2) if ties else scores


@pytest.mark.parametrize("ties", [False, True])
def test_auc_is_that_of_scikit_learn(ties):
    fake, scores = _scores(1, ties)
    assert auc(fake, scores) == pytest.approx(roc_auc_score(fake, scores))


@pytest.mark.parametrize("ties", [False, True])
def test_eer_lies_where_misses_equal_false_alarms(ties):
    fake, scores = _scores(2, ties)
    alarms, hits, _ = roc_curve(fake, scores, drop_intermediate=False)
    rate = eer(fake, scores)
    assert np.interp(rate, alarms, hits) == pytest.approx(1 - rate)


def test_perfect_and_reversed_scores_have_the_extreme_rates():
    fake = np.array([True, True, False, False])
    assert eer(fake, np.array([3.0, 2.0, 1.0, 0.0])) == 0.0
    assert eer(fake, np.array([0.0, 1.0, 2.0, 3.0])) == 1.0
    assert eer(fake, np.zeros(4)) == 0.5


def test_intervals_are_wider_when_clips_come_in_groups():
    fake, scores = np.repeat(_scores(3)[0], 5), np.repeat(_scores(3)[1], 5)
    grouped = measures(fake, scores, [str(k // 5) for k in range(1000)], 0).auc
    single = measures(fake, scores, [str(k) for k in range(1000)], 0).auc
    assert grouped.value == single.value
    assert grouped.low <= grouped.value <= grouped.high
    assert grouped.high - grouped.low > 1.7 * (single.high - single.low)


def _utterance(**changes):
    facts = {
        "path": "a.flac",
        "fake": True,
        "kin": "system",
        "family": "vits",
        "group": "g",
        "source_fold": 0,
        "family_fold": 1,
        "modern": False,
        "channel": "none",
    }
    return Utterance(**{**facts, **changes})


def test_a_spoof_is_tested_by_its_family_and_trains_only_where_neither_fold_is_tested():
    spoof, real = _utterance(), _utterance(fake=False, source_fold=3, family_fold=None)
    assert spoof.test_fold == 1
    assert [spoof.trains(k) for k in range(5)] == [False, False, True, True, True]
    assert real.test_fold == 3
    assert [real.trains(k) for k in range(5)] == [True, True, True, False, True]


def test_a_speaker_of_the_tested_fold_does_not_train_in_another() -> None:
    ann = [_utterance(path=f"ann {k}", fake=False, group="ann", source_fold=k, family_fold=None) for k in (0, 2)]
    bob = _utterance(path="bob", fake=False, group="bob", source_fold=2, family_fold=None)
    assert training_utterances([*ann, bob], 0) == [2]
    assert training_utterances([*ann, bob], 2) == []
    assert training_utterances([*ann, bob], 1) == [0, 1, 2]
    assert training_utterances([*ann, bob], 0, speakers_apart=False) == [1, 2]


def test_a_protocol_is_measured_on_utterances_as_they_are_and_through_a_channel() -> None:
    several = [_utterance(path=str(k), fake=k % 2 == 0, group=str(k), modern=k < 4) for k in range(12)]
    right = np.array([1.0 if u.fake else -1.0 for u in several])
    found = protocol_metrics(several, np.stack([right, -right, 0 * right], axis=1), 0)
    assert {name: part["auc"]["value"] for name, part in found.items()} == {
        "all": 1.0,
        "modern": 1.0,
        "all_copied": 0.0,
        "modern_copied": 0.0,
    }
    assert (found["all"]["real"], found["modern"]["real"]) == (6, 2)


def test_utterances_of_frequent_systems_weigh_less_and_labels_balance():
    several = [_utterance(kin="a")] * 9 + [_utterance(kin="b")] + [_utterance(fake=False, kin="s")] * 3
    weights = weights_of(several)
    assert weights[0] == pytest.approx(weights[9] / 3)
    assert weights[:10].sum() == pytest.approx(0.5)
    assert weights[10:].sum() == pytest.approx(0.5)


def _clip(path, fold, fake=True, identity="", matched_group="", group="g"):
    return VideoClip(path, fake, group, fold, identity, matched_group, "none", "repository")


def test_clips_that_share_a_person_or_footage_with_the_test_do_not_train():
    tested = [_clip("t1", 0, identity="ann"), _clip("t2", 0, matched_group="scene")]
    others = [
        _clip("same person", 1, identity="ann"),
        _clip("same footage", 2, matched_group="scene"),
        _clip("nobody known", 3),
        _clip("someone else", 4, identity="bob", matched_group="other"),
    ]
    kept = training_clips([*tested, *others], tested)
    assert [c.path for c in kept] == ["nobody known", "someone else"]


def _wave(seconds=2.0):
    t = np.arange(round(seconds * 16000)) / 16000
    return (0.3 * np.sin(2 * np.pi * 300 * t) * (1 + np.sin(2 * np.pi * 3 * t)) / 2).astype(np.float32)


@pytest.mark.parametrize("seed", range(12))
def test_a_channel_keeps_the_rhythm_of_the_sound_and_its_range(seed):
    wave = _wave()
    changed = through_channel(wave, np.random.default_rng(seed))
    assert changed.dtype == np.float32
    assert abs(len(changed) - len(wave)) < 2400
    assert np.abs(changed).max() <= 1
    envelopes = [np.abs(w[:24000]).reshape(-1, 400).mean(axis=1) for w in (wave, changed)]
    assert max(np.corrcoef(envelopes[0][: 60 - k], envelopes[1][k:60])[0, 1] for k in range(5)) > 0.6
    np.testing.assert_array_equal(changed, through_channel(wave, np.random.default_rng(seed)))


@pytest.mark.parametrize(("codec", "container"), [("libmp3lame", "mp3"), ("aac", "adts"), ("libopus", "ogg")])
def test_a_codec_is_lossy_but_close(codec, container):
    wave = _wave()
    decoded = coded(wave, codec, container, 32_000)
    lags = [np.corrcoef(wave[:20000], decoded[k : k + 20000])[0, 1] for k in range(0, 2400, 4)]
    assert 0.9 < max(lags) < 1.0


def test_laundering_keeps_the_picture_and_changes_its_pixels():
    picture = np.ascontiguousarray(data.astronaut()[:256, 100:356])
    washed = laundered(picture, 300, np.random.default_rng(0))
    assert washed.shape == picture.shape
    difference = np.abs(washed.astype(float) - picture).mean()
    assert 0.5 < difference < 20
    np.testing.assert_array_equal(washed, laundered(picture, 300, np.random.default_rng(0)))


def _separable(rng, fake):
    plain = np.abs(rng.normal(5 + 3 * fake, 1, size=(6, 12)))
    return ClipFeatures(_clip(f"c{rng.random()}", 0, fake, group=str(rng.integers(5))), plain, plain + 0.1)


def test_the_forensic_fit_learns_what_separates_and_is_seeded():
    rng = np.random.default_rng(0)
    material = [_separable(rng, k % 2 == 0) for k in range(40)]
    recipe = ForensicRecipe(steps=60, batch=64)
    networks, losses = [], []
    for _ in range(2):
        torch.manual_seed(3)
        networks.append(ForensicNetwork())
        losses.append(list(fit_forensic(networks[-1], material, recipe, 3)))
    network, again = networks
    assert losses[0] == losses[1]
    assert len(losses[0]) == 60
    assert not network.training
    held_out = [_separable(rng, k % 2 == 0) for k in range(20)]
    logits = np.array([ForensicMlp(network, "cpu").predict(f.plain).mean() for f in held_out])
    assert auc(np.array([f.clip.fake for f in held_out]), logits) > 0.95
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), again.parameters(), strict=True))


def test_clip_weights_balance_the_labels():
    clips = [_clip(str(k), 0, fake=k < 6, group="big" if k < 4 else str(k)) for k in range(9)]
    weights = clip_weights(clips)
    assert weights[:6].sum() == pytest.approx(0.5)
    assert weights[0] == pytest.approx(weights[4] / 2)


def test_the_cqcc_fit_learns_what_separates():
    rng = np.random.default_rng(1)
    fake = np.arange(24) % 2 == 0

    def rows(label):
        ripple = 2.0 * label * np.sin(np.arange(70) * 1.5)
        return (rng.normal(size=(90, 70)) + ripple).astype(np.float32)

    material = Material([[rows(f), rows(f)] for f in fake], fake, np.full(24, 1 / 24))
    recipe = CqccRecipe(steps=40, batch=12, frames=48, masked_frames=6)
    network = CqccNetwork(recipe.dropout)
    losses = list(fit_cqcc(network, material, recipe, 0))
    assert len(losses) == 40
    assert losses[-1] < losses[0]
    assert not network.training
    unseen = torch.from_numpy(np.stack([rows(f) for f in fake]))
    with torch.inference_mode():
        logits = network(unseen).numpy().astype(np.float64)
    assert auc(fake, logits) > 0.9


def test_a_run_folder_refuses_another_configuration(tmp_path):
    RunFolder(tmp_path / "run", {"seed": 0})
    RunFolder(tmp_path / "run", {"seed": 0})
    with pytest.raises(ConfigError, match="another configuration"):
        RunFolder(tmp_path / "run", {"seed": 1})


def test_scores_are_written_in_the_order_of_their_paths(tmp_path):
    run = RunFolder(tmp_path, {})
    run.write_scores("scores.csv", [ScoreRow("b", "fake", "g", 1, 0.5), ScoreRow("a", "real", "h", 0, -1.25, 1)])
    rows = list(csv.DictReader((tmp_path / "scores.csv").read_text("utf-8").splitlines()))
    assert [r["path"] for r in rows] == ["a", "b"]
    assert list(rows[0]) == ["path", "label", "group", "fold", "score_logit", "modern"]
    assert float(rows[0]["score_logit"]) == -1.25


def test_a_card_carries_the_run_s_figures(tmp_path):
    fake, scores = _scores(4)
    part = measures(fake, scores, [str(k) for k in range(200)], 0).model_dump()
    run = RunFolder(tmp_path, {"seed": 7, "recipe": {"steps": 3}})
    run.write_json("metrics.json", {"all": part, "folds": {"0": part}})
    run.write_json("data.json", {"fake": 5, "real": 6, "licences": {"MIT": 11}})
    card = card_text("cqcc_cnn", run)
    assert f"| all, pooled | {part['real']} | {part['fake']} | 200 | {part['auc']['value']:.3f} [" in card
    assert "--seed 7" in card
    assert "- 11 x MIT" in card
    assert set(FACTS) == set(TRAINERS)


def test_an_unfinished_run_has_no_card(tmp_path):
    with pytest.raises(ConfigError, match="not finished"):
        card_text("cqcc_cnn", RunFolder(tmp_path, {}))


def test_a_folder_without_the_tables_is_refused_by_name(tmp_path, capsys):
    assert main(["train", "cqcc_cnn", "--data", str(tmp_path), "--out", str(tmp_path / "run")]) == 2
    assert "folds.csv cannot be read" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("table", ["folds.csv", "manifest.csv"])
def test_a_run_under_other_folds_or_on_other_media_is_another_run(tmp_path, table):
    for name in ("folds.csv", "manifest.csv"):
        (tmp_path / name).write_text("path,sha256,fold\na,aa,0\n")
    for _ in range(2):
        begin_run(tmp_path / "run", "x", 0, ForensicRecipe(), tmp_path)
    (tmp_path / table).write_text("path,sha256,fold\na,bb,1\n")
    with pytest.raises(ConfigError, match="another configuration"):
        begin_run(tmp_path / "run", "x", 0, ForensicRecipe(), tmp_path)


def test_a_network_that_is_trained_anew_has_one_curve(tmp_path):
    run = RunFolder(tmp_path, {})
    run.write_curve("fold-0", [0.7, 0.6])
    run.write_curve("fold-1", [0.5])
    run.write_curve("fold-0", [0.123456789])
    rows = [(r["network"], r["step"], r["loss"]) for r in read_table(tmp_path / CURVES, ("network", "step", "loss"))]
    assert rows == [("fold-1", "1", "0.5"), ("fold-0", "1", "0.123457")]


def test_items_of_one_name_in_two_folders_are_two_in_a_cache():
    assert cache_name("a/1.mp4") != cache_name("b/1.mp4")
    assert cache_name("a/1.mp4").startswith("1-")


def test_what_was_tried_once_stays_in_the_card_and_its_figures_are_in_no_code(tmp_path):
    heading = "## Tried once, not reproduced by the command"
    installed = files("clipwarden.models").joinpath("cards/frame_stats.md").read_text("utf-8")
    once = installed.split(heading)[1].split("\n## ")[0]
    fake, scores = _scores(4)
    part = measures(fake, scores, [str(k) for k in range(200)], 0).model_dump()
    run = RunFolder(tmp_path, {"seed": 7, "recipe": {"steps": 3}})
    run.write_json("metrics.json", {"all": part, "folds": {}})
    run.write_json("data.json", {"fake": 5, "real": 6, "licences": {}})
    assert once.strip()
    assert once.strip() in card_text("frame_stats", run)
    assert not any(re.search(r"\b0\.\d{3}\b", facts.recipe + facts.failures) for facts in FACTS.values())
