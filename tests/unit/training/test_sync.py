"""Training for sync: what a mouth chooses from, a shifted sound, and towers that learn what is there to learn."""

import numpy as np
import pytest
import torch
from sklearn.cross_decomposition import CCA

from clipwarden.models.lipsync.av_sync import MOUTHS, SOUND, AvSync
from clipwarden.models.lipsync.pairing import OFFSETS, REACH, STEP, Moment
from clipwarden.models.training import sync_fit
from clipwarden.models.training.measure import auc
from clipwarden.models.training.sync_data import SyncCache, Talk, shifted, talk_of
from clipwarden.models.training.sync_fit import SyncRecipe, fit_sync
from clipwarden.models.training.video_data import VideoClip
from clipwarden.shared.clip import Clip, Sound, View
from tests.media import silence, speech
from tests.networks import pictures


def _clip(path="video/a.mp4"):
    return VideoClip(path, False, "g", 0, "", "", "bonafide", "repository")


def _content(wave, frames=50):
    return Clip({MOUTHS.key: View.of(pictures(frames, 96), np.arange(frames) / 25)}, {16_000: Sound.whole(wave)}, 4.0)


def test_a_talk_has_a_moment_for_every_frame_and_none_where_nobody_speaks():
    talk = talk_of(_clip(), _content(speech(4)))
    assert talk is not None
    starts = [m.start_s for m in talk.moments]
    assert len(starts) > 30
    assert np.diff(starts).min() == pytest.approx(0.04)
    assert talk_of(_clip(), _content(silence(4))) is None


def test_a_shifted_sound_comes_later_and_loses_nothing():
    wave = speech(3)
    moved = shifted(_content(wave), 0.5).sounds[SOUND.sample_rate_hz].wave
    np.testing.assert_array_equal(moved[8000:], wave[:-8000])
    np.testing.assert_array_equal(moved[:8000], wave[-8000:])


def test_what_is_kept_is_what_was_read(tmp_path):
    content, cache = _content(speech(2), 6), SyncCache(tmp_path, tmp_path, 1)
    cache._store(_clip(), content)
    kept = cache.content(_clip())
    np.testing.assert_array_equal(kept.view(MOUTHS).images, content.view(MOUTHS).images)
    np.testing.assert_array_equal(kept.sounds[16_000].wave, content.sounds[16_000].wave)


def _talk(rng, number, noise=2):
    """Mouths as bright as the quarter of a second about them is loud, in grain."""
    level = np.repeat(rng.uniform(-0.9, 0.9, 30), 15)
    moments = []
    for block in range(4, 26):
        middle = 15 * block + 7
        sound = (level[middle - 38 : middle + 39] + rng.normal(0, noise / 60, (80, 77))).astype(np.float32)
        grain = np.kron(rng.normal(0, noise, (5, 16, 16)), np.ones((6, 6)))[..., None]
        mouths = np.clip(127 + 60 * level[middle] + np.tile(grain, 3), 0, 255).astype(np.uint8)
        moments.append(Moment(mouths, sound, np.ones(OFFSETS, np.bool_), block * 0.24, block * 0.24 + 0.16))
    return Talk(_clip(f"video/{number}.mp4"), tuple(moments))


def test_towers_learn_which_sound_goes_with_which_mouth():
    rng = np.random.default_rng(2)
    network = fit_sync([_talk(rng, k) for k in range(12)], SyncRecipe(components=4))
    moments = _talk(rng, 99).moments
    curve = AvSync(network, torch.nn.Identity()).examine(moments).logits
    own, away = curve[:, REACH], curve[:, np.abs(np.arange(OFFSETS) - REACH) * STEP >= 15].ravel()
    assert auc(np.arange(len(own) + len(away)) < len(own), np.concatenate([own, away])) > 0.7


def test_the_correlations_are_those_of_scikit_learn():
    rng = np.random.default_rng(4)
    talks = [_talk(rng, k, noise=25) for k in range(30)]
    network = fit_sync(talks, SyncRecipe(components=6))
    seen, heard = (np.concatenate(of) for of in zip(*(_told(network, talk) for talk in talks), strict=True))
    mine = [abs(np.corrcoef(seen[:, k], heard[:, k])[0, 1]) for k in range(4)]
    pairs = [sync_fit.coarse(network, talk.moments) for talk in talks]
    rows = [sync_fit._centred(of) for of in zip(*pairs, strict=True)]
    reduced = [x @ sync_fit._whitening(x, 6) for x in (rows[0] @ sync_fit.moving(), rows[1])]
    a, b = CCA(4, scale=False, max_iter=5000).fit_transform(*reduced)
    np.testing.assert_allclose(mine, [abs(np.corrcoef(a[:, k], b[:, k])[0, 1]) for k in range(4)], atol=0.02)


def _told(network, talk):
    """Embeddings of a talk's moments and of their sounds, as the fit sees them."""
    seen, heard = (sync_fit._centred([rows]) for rows in sync_fit.coarse(network, talk.moments))
    maps = (network.mouth.last.weight, network.sound.last.weight)
    return [rows @ weight.detach().double().numpy().T for rows, weight in zip((seen, heard), maps, strict=True)]
