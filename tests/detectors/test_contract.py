"""Every detector keeps the same promises, whatever clip it is given.

With its own weights; with random ones if none ship.
"""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from skimage import data

from clipwarden.models.catalogue import CATALOGUE
from clipwarden.models.detector import DETECTORS, detector_class
from clipwarden.models.weights import state_of, verified, weights_table
from clipwarden.shared.clip import Clip, Sound, View
from clipwarden.shared.contracts import DetectorState, Evidence
from clipwarden.shared.errors import ClipwardenError, NotApplicable
from tests import networks
from tests.media import speech

SECONDS = 4.0
RATE_HZ = 16_000
LEAST_FRAMES = {"siglip_lstm": 16, "temporal_3dcnn": 8, "av_sync": 100}
JUDGING = [name for name in DETECTORS if name != "av_sync_seed"]
"""All but the one that can only be loaded."""

SEEING = [name for name in DETECTORS if detector_class(name).spec.needs.frames]
HEARING = [name for name in DETECTORS if detector_class(name).spec.needs.audio]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("weights")


@cache
def _weights(name: str, folder: Path):
    if state_of(weights_table()[name]) is DetectorState.READY:
        return verified(name)
    return networks.write_weights(name, folder)


@cache
def _detector(name: str, folder: Path):
    return detector_class(name).load(_weights(name, folder), "cpu")


def _images(count, size, seed):
    """Crops of a portrait with a little noise, so that no two are alike."""
    rng = np.random.default_rng(seed)
    picture = np.resize(data.astronaut(), (max(size, 512), max(size, 512), 3))[:size, :size]
    noise = rng.integers(-8, 9, (count, size, size, 3))
    return np.clip(picture.astype(int) + noise, 0, 255).astype(np.uint8)


def _clip(name, images=None, wave=None, face_px=80):
    """A clip that has what the detector needs; pictures and sound can be replaced."""
    needs = detector_class(name).spec.needs
    views, wave = {}, speech(SECONDS) if wave is None else wave
    if needs.frames is not None:
        shown = _images(LEAST_FRAMES.get(name, 4), needs.frames.size_px, 1) if images is None else images
        n = len(shown)
        boxes = np.tile(np.array([[10, 10, 10 + face_px, 10 + face_px]], np.float32), (n, 1))
        views[needs.frames.key] = View.of(shown, np.linspace(0, SECONDS * (n - 1) / max(n, 1), n), boxes)
    sounds = {needs.audio.sample_rate_hz: Sound.whole(wave)} if needs.audio and len(wave) else {}
    return Clip(views=views, sounds=sounds, duration_s=SECONDS)


SIGHTS = {
    "one frame": lambda size: _images(1, size, 2),
    "two frames": lambda size: _images(2, size, 2),
    "black": lambda size: np.zeros((3, size, size, 3), np.uint8),
    "white": lambda size: np.full((3, size, size, 3), 255, np.uint8),
    "random pixels": lambda size: np.random.default_rng(5).integers(0, 256, (3, size, size, 3), dtype=np.uint8),
    "one colour": lambda size: np.full((16, size, size, 3), 130, np.uint8),
}
SOUNDS = {
    "silent": lambda: np.zeros(RATE_HZ * 3, np.int16),
    "short": lambda: speech(0.2),
    "one sample": lambda: np.ones(1, np.int16),
    "clipped": lambda: np.sign(speech(2)) * np.int16(32767),
    "a click": lambda: np.eye(1, RATE_HZ * 3, 500, dtype=np.int16)[0] * np.int16(30000),
    "constant": lambda: np.full(RATE_HZ * 3, 12000, np.int16),
    "long": lambda: speech(75),
}


def _hold(name, evidence):
    """The promises on every evidence."""
    assert isinstance(evidence, Evidence)
    assert 0.0 <= evidence.score <= 1.0
    assert tuple(evidence.features) == detector_class(name).spec.features
    for feature, value in evidence.features.items():
        assert np.isfinite(CATALOGUE[feature].column(value))
    for window in evidence.windows:
        assert 0.0 <= window.start_s <= window.end_s


@pytest.mark.parametrize("name", JUDGING)
def test_evidence_is_as_declared(name, folder):
    evidence = _detector(name, folder).assess(_clip(name))
    _hold(name, evidence)
    assert evidence.windows


@pytest.mark.parametrize("name", JUDGING)
def test_the_same_clip_gives_the_same_evidence_and_is_left_as_it_was(name, folder):
    clip = _clip(name)
    views = {key: view.images.copy() for key, view in clip.views.items()}
    waves = {rate: sound.wave.copy() for rate, sound in clip.sounds.items()}
    first = _detector(name, folder).assess(clip)
    again = detector_class(name).load(_weights(name, folder), "cpu").assess(clip)
    assert first == again
    for key, images in views.items():
        np.testing.assert_array_equal(clip.views[key].images, images)
    for rate, wave in waves.items():
        np.testing.assert_array_equal(clip.sounds[rate].wave, wave)


@pytest.mark.parametrize("name", JUDGING)
def test_another_clip_gives_other_evidence(name, folder):
    need = detector_class(name).spec.needs.frames
    images = (
        np.ascontiguousarray(_images(LEAST_FRAMES.get(name, 4), need.size_px, 9)[:, ::-1, :, ::-1] // 2)
        if need
        else None
    )
    other = _detector(name, folder).assess(_clip(name, images, speech(SECONDS, seed=3)[::-1].copy()))
    assert other != _detector(name, folder).assess(_clip(name))


@pytest.mark.parametrize("name", SEEING)
@pytest.mark.parametrize("case", SIGHTS)
def test_an_odd_picture_is_judged_skipped_or_refused_by_name(name, case, folder):
    images = SIGHTS[case](detector_class(name).spec.needs.frames.size_px)
    try:
        evidence = _detector(name, folder).assess(_clip(name, images))
    except ClipwardenError:
        return
    _hold(name, evidence)


@pytest.mark.parametrize("name", HEARING)
@pytest.mark.parametrize("case", SOUNDS)
def test_an_odd_sound_is_judged_skipped_or_refused_by_name(name, case, folder):
    try:
        evidence = _detector(name, folder).assess(_clip(name, wave=SOUNDS[case]()))
    except ClipwardenError:
        return
    _hold(name, evidence)


@pytest.mark.parametrize("name", DETECTORS)
def test_an_empty_clip_is_not_applicable(name, folder):
    need = detector_class(name).spec.needs.frames
    nothing = np.zeros((0, need.size_px, need.size_px, 3), np.uint8) if need else None
    with pytest.raises(NotApplicable):
        _detector(name, folder).assess(_clip(name, nothing, np.zeros(0, np.int16)))
