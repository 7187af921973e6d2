"""The seeds' recipes: one step of each through its real network, and what the words of a recipe mean."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from clipwarden.models.backbones.clip import ClipTower
from clipwarden.models.clip.adapters import FRAMES, ClipAdapterNetwork
from clipwarden.models.training import seed_fit
from clipwarden.models.training.seed_fit import RECIPES, Learner, SeedRecipe, fit_seed, pace
from clipwarden.models.training.seed_run import B4, CNN3D, MEL, sixteen, windows
from clipwarden.shared.clip import View
from tests.media import speech
from tests.networks import TINY_CLIP, pictures

CPU = torch.device("cpu")
BLACK_OR_WHITE = [np.full((3, 8, 8, 3), 20 + 200 * (k % 2), np.uint8) for k in range(12)]
LABELS = np.arange(12) % 2 == 0


def _examples(name):
    """Two items of each detector, small where the network allows."""
    if name == "mel_resnet18":
        return [windows(speech(4).astype(np.float32) / 32768), np.zeros((1, 80, 251), np.float32)]
    clips = {"temporal_3dcnn": 16, "clip_adapter": FRAMES}
    count, side = clips.get(name, 1), 112 if name in clips else 64
    of = pictures(2 * count, side).reshape(2, 1, *([count] if name in clips else []), side, side, 3)
    return list(of)


def _learner(name):
    torch.manual_seed(0)
    if name == "clip_adapter":
        network = ClipAdapterNetwork.around(ClipTower(TINY_CLIP), TINY_CLIP)
        return Learner(network, lambda x: network(torch.from_numpy(x).permute(0, 1, 4, 2, 3).float() / 127.5 - 1))
    kind = next(kind for kind in (B4, CNN3D, MEL) if kind.name == name)
    network = kind.network()
    logits = kind.logits
    if name != "mel_resnet18":  # smaller pictures than the detector takes
        return Learner(network, lambda x: _unchecked(network, x))
    return Learner(network, lambda x: logits(network, CPU, x))


def _unchecked(network, x):
    levels = torch.from_numpy(np.ascontiguousarray(x)).float() / 127.5 - 1
    return network(levels.permute(0, 4, 1, 2, 3) if x.ndim == 5 else levels.permute(0, 3, 1, 2))


@pytest.mark.parametrize("name", RECIPES)
def test_one_step_of_the_recipe_moves_what_is_trained_and_nothing_else(name):
    learner = _learner(name)
    frozen = {n: p.clone() for n, p in learner.network.named_parameters() if not p.requires_grad}
    before = {n: p.clone() for n, p in learner.network.named_parameters() if p.requires_grad}
    recipe = replace(RECIPES[name], epochs=1, batch=2)
    [loss] = fit_seed(learner, _examples(name), np.array([True, False]), recipe)
    assert 0 < loss < 5
    after = dict(learner.network.named_parameters())
    assert any(not torch.equal(after[n], p) for n, p in before.items())
    assert all(torch.equal(after[n], p) for n, p in frozen.items())
    assert bool(frozen) == (name == "clip_adapter")
    assert not learner.network.training


def _bright():
    network = nn.Linear(1, 2)
    return Learner(
        network, lambda x: network(torch.from_numpy(x.astype(np.float32)).mean(dim=(1, 2, 3))[:, None] / 128 - 1)
    )


def test_the_fit_learns_what_separates_and_is_seeded():
    recipe = SeedRecipe(epochs=40, batch=4, learning_rate=0.05, weight_decay=0.0, label_smoothing=0.0, seed=3)
    runs = []
    for _ in range(2):
        learner = _bright()
        with torch.no_grad():
            learner.network.weight.zero_()
            learner.network.bias.zero_()
        runs.append(list(fit_seed(learner, BLACK_OR_WHITE, LABELS, recipe)))
    assert runs[0] == runs[1]
    assert len(runs[0]) == 40 * 3
    assert runs[0][-1] < 0.3 < runs[0][0]


def test_gradients_add_up_over_batches_as_if_they_were_one():
    weights = []
    for batch, accumulate in ((12, 1), (4, 3)):
        torch.manual_seed(5)
        learner = _bright()
        recipe = SeedRecipe(1, batch, 0.1, 0.0, 0.0, accumulate=accumulate)
        list(fit_seed(learner, BLACK_OR_WHITE, LABELS, recipe))
        weights.append(learner.network.weight.detach().clone())
    torch.testing.assert_close(*weights)


def test_the_pace_warms_up_and_then_follows_a_cosine_to_zero():
    paces = [pace(step, 100, 0.1) for step in range(101)]
    assert np.all(np.diff(paces[:11]) > 0)
    assert paces[10] == 1
    np.testing.assert_allclose(paces[10:], 0.5 * (1 + np.cos(np.pi * np.arange(91) / 90)), atol=1e-12)
    assert pace(0, 100, 0.0) == 1


def test_the_balanced_sampler_draws_both_labels_alike_and_the_other_each_item_once():
    fake = np.arange(200) % 10 == 0
    recipe = SeedRecipe(epochs=20, batch=16, learning_rate=1, weight_decay=0, label_smoothing=0)
    rng = np.random.default_rng(0)
    drawn = [k for rows in seed_fit._rows(fake, replace(recipe, sampler="balanced"), rng) for k in rows]
    assert fake[drawn].mean() == pytest.approx(0.5, abs=0.03)
    each = Counter(k for rows in seed_fit._rows(fake, recipe, rng) for k in rows)
    assert set(each.values()) == {20}


def test_frames_of_a_clip_change_together():
    clip = pictures(4, 16)[None]
    recipe = SeedRecipe(1, 1, 1, 0, 0, mirrored=1.0, brightness=0.3)
    changed = seed_fit._example(clip, recipe, np.random.default_rng(1)).astype(float)
    mirrored = clip[0][:, :, ::-1].astype(float)
    usable = (mirrored > 20) & (changed < 255)
    factors = (changed / np.maximum(mirrored, 1))[usable]
    assert abs(np.median(factors) - 1) > 0.02
    assert np.abs(factors - np.median(factors)).max() < 0.03


def test_a_clip_of_eight_frames_repeats_its_last_and_a_shorter_one_is_left_out():
    made = sixteen(View.of(pictures(9, 224), np.arange(9.0)))
    assert made.shape == (1, 16, 224, 224, 3)
    np.testing.assert_array_equal(made[0, 9:], np.repeat(made[0, 8:9], 7, axis=0))
    assert len(sixteen(View.of(pictures(7, 224), np.arange(7.0)))) == 0
