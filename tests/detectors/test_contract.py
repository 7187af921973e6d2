"""Every detector with installed weights keeps the same promises, whatever clip it is given."""

from functools import cache

import numpy as np
import pytest
from skimage import data

from clipwarden.models.catalogue import CATALOGUE
from clipwarden.models.detector import DETECTORS, detector_class
from clipwarden.models.weights import state_of, verified, weights_table
from clipwarden.shared.clip import Clip, View
from clipwarden.shared.contracts import DetectorState, Evidence
from clipwarden.shared.errors import ClipwardenError, NotApplicable

READY = [name for name in DETECTORS if state_of(weights_table()[name]) is DetectorState.READY]
SECONDS = 4.0
RATE_HZ = 16_000


@cache
def _detector(name):
    return detector_class(name).load(verified(name), "cpu")


def _images(count, size, seed):
    """Crops of a portrait with a little noise, so that no two are alike."""
    rng = np.random.default_rng(seed)
    picture = np.resize(data.astronaut(), (max(size, 512), max(size, 512), 3))[:size, :size]
    noise = rng.integers(-8, 9, (count, size, size, 3))
    return np.clip(picture.astype(int) + noise, 0, 255).astype(np.uint8)


def _speech(seconds, seed=0):
    """A voice-like sound: harmonics of a wandering pitch under a syllable rhythm, and breath."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    phase = 2 * np.pi * np.cumsum(140 + 30 * np.sin(2 * np.pi * 0.7 * t)) / RATE_HZ
    voice = sum(np.sin(k * phase) / k for k in range(1, 25))
    wave = 0.1 * voice * (0.3 + np.abs(np.sin(2 * np.pi * 2.1 * t))) + 0.003 * rng.standard_normal(len(t))
    return (np.clip(wave, -1, 1) * 32767).astype(np.int16)


def _clip(name, images=None, wave=None):
    """A clip that has what the detector needs; pictures and sound can be replaced."""
    need = detector_class(name).spec.needs.frames
    views = {}
    if need is not None:
        pictures = _images(need.count, need.size_px, 1) if images is None else images
        n = len(pictures)
        times = np.linspace(0, SECONDS * (n - 1) / max(n, 1), n)
        views[need.key] = View(pictures, times, np.tile(np.array([[10, 10, 90, 90]], np.float32), (n, 1)))
    return Clip(views=views, wave=_speech(SECONDS) if wave is None else wave, duration_s=SECONDS)


def _cases(name):
    """Clips at the edge of what a detector may meet."""
    need = detector_class(name).spec.needs.frames
    size = need.size_px if need else 8
    nothing = np.zeros((0, size, size, 3), np.uint8)
    return {
        "empty": _clip(name, nothing, np.zeros(0, np.int16)),
        "one frame": _clip(name, _images(1, size, 2)),
        "black": _clip(name, np.zeros((3, size, size, 3), np.uint8)),
        "white": _clip(name, np.full((3, size, size, 3), 255, np.uint8)),
        "random pixels": _clip(name, np.random.default_rng(5).integers(0, 256, (3, size, size, 3), dtype=np.uint8)),
        "silent": _clip(name, wave=np.zeros(RATE_HZ * 3, np.int16)),
        "short sound": _clip(name, wave=_speech(0.2)),
        "one sample": _clip(name, wave=np.ones(1, np.int16)),
        "clipped sound": _clip(name, wave=np.sign(_speech(2)) * np.int16(32767)),
        "a click": _clip(name, wave=np.eye(1, RATE_HZ * 3, 500, dtype=np.int16)[0] * 30000),
        "constant sound": _clip(name, wave=np.full(RATE_HZ * 3, 12000, np.int16)),
        "long sound": _clip(name, wave=_speech(75)),
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


def test_every_detector_of_the_table_has_weights():
    assert list(DETECTORS) == READY


@pytest.mark.parametrize("name", READY)
def test_evidence_is_as_declared(name):
    evidence = _detector(name).assess(_clip(name))
    _hold(name, evidence)
    assert evidence.windows


@pytest.mark.parametrize("name", READY)
def test_the_same_clip_gives_the_same_evidence(name):
    first = _detector(name).assess(_clip(name))
    again = detector_class(name).load(verified(name), "cpu").assess(_clip(name))
    assert first == again


@pytest.mark.parametrize("name", READY)
def test_another_clip_gives_other_evidence(name):
    need = detector_class(name).spec.needs.frames
    images = np.ascontiguousarray(_images(4, need.size_px, 9)[:, ::-1, :, ::-1] // 2) if need else None
    other = _detector(name).assess(_clip(name, images, _speech(SECONDS, seed=3)[::-1].copy()))
    assert other != _detector(name).assess(_clip(name))


@pytest.mark.parametrize("name", READY)
@pytest.mark.parametrize("case", _cases(next(iter(DETECTORS))))
def test_an_odd_clip_is_judged_skipped_or_refused_by_name(name, case):
    try:
        evidence = _detector(name).assess(_cases(name)[case])
    except ClipwardenError:
        return
    _hold(name, evidence)


@pytest.mark.parametrize("name", READY)
def test_an_empty_clip_is_not_applicable(name):
    with pytest.raises(NotApplicable):
        _detector(name).assess(_cases(name)["empty"])


@pytest.mark.parametrize("name", READY)
def test_a_detector_changes_nothing_in_the_clip(name):
    clip = _clip(name)
    before = {key: view.images.copy() for key, view in clip.views.items()}, clip.wave.copy()
    _detector(name).assess(clip)
    for key, images in before[0].items():
        np.testing.assert_array_equal(clip.views[key].images, images)
    np.testing.assert_array_equal(clip.wave, before[1])
