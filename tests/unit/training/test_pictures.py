"""Training for networks of single faces and over faces: one real step of each, and what the draws and fits promise."""

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.progress import Progress
from safetensors.torch import load_file

from clipwarden.models.backbones.resnet18 import ResNet18
from clipwarden.models.checkpoint import facts_of, save_from
from clipwarden.models.training import bilstm, gate, picture_fit
from clipwarden.models.training.bilstm import BiLstmRecipe, FaceSequence, fit_bilstm, mean_logits
from clipwarden.models.training.gate import GATE
from clipwarden.models.training.measure import auc
from clipwarden.models.training.picture_fit import ClipPictures
from clipwarden.models.training.picture_run import fit_network, train_pictures
from clipwarden.models.training.resnet import RESNET
from clipwarden.models.training.run_folder import CURVES, read_table
from clipwarden.models.training.video_data import VideoClip
from clipwarden.models.visual.frame_resnet18 import FrameResNet18
from clipwarden.models.visual.temporal_bilstm import BiLstmNetwork, TemporalBiLstm
from clipwarden.models.visual.tiny_gate import TinyGate
from clipwarden.models.weights import WeightFile, file_digest
from clipwarden.shared.cli import main
from clipwarden.shared.errors import WorkerFault
from tests.networks import made, pictures

KINDS = {"tiny_gate": GATE, "frame_resnet18": RESNET}


def _clip(k, fake):
    return VideoClip(str(k), fake, f"{fake} {k // 4}", 0, "", "", "none", "repository")


def _grainy(rng, fake, count=2):
    """Noise, blown up twofold for the fakes: what a decoder of half the size leaves behind."""
    side = 48 if fake else 96
    small = rng.integers(0, 256, (count, side, side, 3), np.uint8)
    return small.repeat(96 // side, axis=1).repeat(96 // side, axis=2)


def _material(rng, count):
    return [ClipPictures(_clip(k, k % 2 == 0), *(_grainy(rng, k % 2 == 0) for _ in range(2))) for k in range(count)]


@pytest.mark.parametrize("name", KINDS)
def test_one_step_of_the_recipe_moves_every_parameter(name):
    of = replace(KINDS[name], recipe=replace(KINDS[name].recipe, steps=1, batch=2, side_px=64))
    material = _material(np.random.default_rng(0), 4)
    with Progress(disable=True) as progress:
        network, losses = fit_network(of, material, 3, progress, name)
        again, _ = fit_network(of, material, 3, progress, name)
    torch.manual_seed(3)
    untrained = of.network()
    assert not network.training
    assert len(losses) == 1
    moved = [not torch.equal(a, b) for a, b in zip(network.parameters(), untrained.parameters(), strict=True)]
    assert all(moved)
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), again.parameters(), strict=True))


def test_the_gate_learns_what_separates():
    rng = np.random.default_rng(1)
    of = replace(GATE, recipe=replace(GATE.recipe, steps=40, batch=8, side_px=64))
    with Progress(disable=True) as progress:
        network, _ = fit_network(of, _material(rng, 12), 0, progress, "gate")
    unseen = _material(rng, 12)
    with torch.inference_mode():
        logits = np.array([of.logits(network, m.plain).mean().item() for m in unseen])
    assert auc(np.array([m.clip.fake for m in unseen]), logits) > 0.95


def test_the_pace_rises_falls_and_never_stands_still():
    recipe = replace(RESNET.recipe, steps=100, warmup=0.1)
    pace = [picture_fit._pace(step, recipe) for step in range(100)]
    assert pace[9] == pytest.approx(1.0)
    assert all(np.diff(pace[:10]) > 0)
    assert all(np.diff(pace[10:]) < 0)
    assert 0 < pace[0] < 0.2
    assert 0 < pace[-1] < 0.01


def test_a_run_trains_each_network_once_and_keeps_the_loss_of_every_step(video_corpus, tmp_path):
    of = replace(GATE, recipe=replace(GATE.recipe, steps=2, batch=4, side_px=64))
    made = []
    with Progress(disable=True) as progress:
        for _ in range(2):
            run = train_pictures(of, video_corpus, tmp_path / "run", 0, 1, progress)
            made.append({path.name: path.stat().st_mtime_ns for path in run.path.glob("*.safetensors")})
    assert made[0] == made[1]
    rows = read_table(run.path / CURVES, ("network", "step", "loss"))
    networks = [*(f"fold-{k}" for k in range(5)), "tiny_gate"]
    assert [(r["network"], int(r["step"])) for r in rows] == [(name, k) for name in networks for k in (1, 2)]
    assert all(0 < float(r["loss"]) < 10 for r in rows)
    assert set(made[0]) == {f"{name}.safetensors" for name in networks}


def test_a_first_look_lets_all_but_a_hundredth_of_the_fakes_pass_on(video_corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(gate, "GATE", replace(GATE, recipe=replace(GATE.recipe, steps=2, batch=4, side_px=64)))
    with Progress(disable=True) as progress:
        run = gate.train_gate(video_corpus, tmp_path / "run", 0, 1, progress)
    look, path = run.read_json("metrics.json")["first_look"], run.path / "tiny_gate.safetensors"
    TinyGate.load(WeightFile(path, "", gate.OPTIONS), "cpu")
    assert load_file(path).keys() == load_file(run.path / "fold-0.safetensors").keys()
    fake, highest = gate._highest_patches(video_corpus, run, 1)
    below = highest < look["clear_below"]
    assert (below[fake].mean(), below[~fake].mean()) == (look["fake_cleared"], look["real_cleared"])
    assert np.sort(highest[fake])[: below[fake].sum() + 1].max() >= look["clear_below"]
    assert look["fake_cleared"] <= 1 - gate.RECALL + 1 / fake.sum()
    assert float(facts_of(WeightFile(path, ""))["clear_below"]) == pytest.approx(look["clear_below"], abs=1e-4)


def test_both_labels_are_drawn_equally_often_whatever_there_is_of_them():
    rng = np.random.default_rng(2)
    few, many = np.zeros((1, 64, 64, 3), np.uint8), np.full((1, 64, 64, 3), 200, np.uint8)
    material = [ClipPictures(_clip(k, k < 3), *[few if k < 3 else many] * 2) for k in range(30)]
    recipe = replace(RESNET.recipe, batch=2000, side_px=8, jitter=0.0)
    crops, target = picture_fit._batch(material, picture_fit.clip_weights([m.clip for m in material]), recipe, rng)
    assert crops.shape == (2000, 8, 8, 3)
    assert target.mean().item() == pytest.approx(0.5, abs=0.05)
    np.testing.assert_array_equal(crops.max(axis=(1, 2, 3)) < 100, target.numpy() == 1)


def test_a_crop_is_a_part_of_its_picture_mirrored_or_not():
    picture = pictures(1, 64)
    recipe = replace(RESNET.recipe, side_px=60, jitter=0.0)
    rng = np.random.default_rng(3)
    places = [picture[0, y : y + 60, x : x + 60] for y in range(5) for x in range(5)]
    known = {part.tobytes() for place in places for part in (place, place[:, ::-1])}
    crops = {picture_fit._crop(picture, recipe, rng).tobytes() for _ in range(30)}
    assert len(crops) > 10
    assert crops <= known


def test_numbers_kept_in_half_precision_judge_alike(tmp_path):
    path = tmp_path / "half.safetensors"
    save_from(made("frame_resnet18"), path, {}, torch.float16)
    assert path.stat().st_size < 23e6
    kept = load_file(path)
    assert {t.dtype for n, t in kept.items() if not n.endswith("tracked")} == {torch.float16}
    shown = pictures(3, 224, seed=4)
    save_from(made("frame_resnet18"), tmp_path / "whole.safetensors", {})
    half, whole = (
        FrameResNet18.load(WeightFile(tmp_path / f"{name}.safetensors", "sha256:0"), "cpu").predict(shown)
        for name in ("half", "whole")
    )
    np.testing.assert_allclose(half, whole, atol=0.05 * np.abs(whole).max())


def _sequences(rng, count):
    """Embeddings that stay on one side in the fakes, and change sides at every step in what is real."""
    for k in range(count):
        fake, length = k % 2 == 0, int(rng.integers(6, 20))
        steps = np.ones((length, 8)) if fake else np.resize([[1], [-1]], (length, 1)) * np.ones(8)
        yield FaceSequence(
            _clip(k, fake), (rng.normal(size=(length, 8)) * 0.3 + steps * rng.choice((-1, 1))).astype(np.float32)
        )


def test_the_bilstm_learns_what_changes_over_time():
    rng = np.random.default_rng(5)
    material, unseen = list(_sequences(rng, 40)), list(_sequences(rng, 40))
    torch.manual_seed(0)
    network = BiLstmNetwork(8)
    losses = list(fit_bilstm(network, material, replace(BiLstmRecipe(), steps=80, batch=16, learning_rate=5e-3), 0))
    assert len(losses) == 80
    assert not network.training
    with torch.inference_mode():
        logits = np.array([mean_logits(network, [s.embeddings]).item() for s in unseen])
    assert auc(np.array([s.clip.fake for s in unseen]), logits) > 0.9


def test_a_sequence_is_judged_alike_alone_and_beside_longer_ones():
    torch.manual_seed(0)
    network, rng = BiLstmNetwork(8).eval(), np.random.default_rng(6)
    sequences = [rng.normal(size=(length, 8)).astype(np.float32) for length in (4, 9, 13)]
    with torch.inference_mode():
        together = mean_logits(network, sequences)
        alone = torch.cat([mean_logits(network, [s]) for s in sequences])
    torch.testing.assert_close(together, alone)


def test_the_bilstm_asks_for_the_frame_network_s_run_beside_its_own(video_corpus, tmp_path, capsys):
    out = tmp_path / "temporal_bilstm"
    assert main(["train", "temporal_bilstm", "--data", str(video_corpus), "--out", str(out)]) == 2
    assert "needs a finished run of frame_resnet18" in capsys.readouterr().err


def test_a_run_of_the_bilstm_fits_to_the_frame_network_beside_it(video_corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(bilstm, "RECIPE", replace(bilstm.RECIPE, steps=2, batch=4))
    beside = tmp_path / bilstm.BACKBONE
    beside.mkdir()
    for name in (*(f"fold-{k}" for k in range(5)), bilstm.BACKBONE):
        save_from(made(bilstm.BACKBONE), beside / f"{name}.safetensors", {})
    with Progress(disable=True) as progress:
        run = bilstm.train_bilstm(video_corpus, tmp_path / bilstm.NAME, 0, 1, progress)
    path = beside / f"{bilstm.BACKBONE}.safetensors"
    backbone = WeightFile(path, file_digest(path))
    fitted = WeightFile(run.path / f"{bilstm.NAME}.safetensors", "", {"backbone": bilstm.BACKBONE}, backbone)
    assert TemporalBiLstm.load(fitted, "cpu").predict([pictures(3, 224)]).shape == (1,)
    with pytest.raises(WorkerFault, match="fitted"):
        TemporalBiLstm.load(replace(fitted, backbone=replace(backbone, digest="sha256:1")), "cpu")
    scores = read_table(run.path / "scores.csv", ("path", "fold", "score_logit"))
    assert len({row["score_logit"] for row in scores}) == len(scores) == 10
    assert all(int(row["fold"]) == int(Path(row["path"]).stem) // 2 for row in scores)


def test_the_recipes_name_what_the_detectors_are():
    assert isinstance(RESNET.network(), ResNet18)
    assert (RESNET.name, GATE.name) == ("frame_resnet18", TinyGate.spec.name)
    assert asdict(GATE.recipe)["precision"] == "float32"
