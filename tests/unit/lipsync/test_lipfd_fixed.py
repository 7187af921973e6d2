"""LipFD's input put right: real frames of one person's face and lips, sound by the clock, each crop encoded once."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from clipwarden.models.assess import Loaded
from clipwarden.models.audio.speech import speech_network
from clipwarden.models.backbones.clip import NORMALISATION
from clipwarden.models.backbones.pictures import IMAGENET
from clipwarden.models.backbones.resnet50 import ResNetTrunk
from clipwarden.models.checkpoint import save_from, settle
from clipwarden.models.faces import FaceDetector
from clipwarden.models.kernels import resize
from clipwarden.models.lipsync.lipfd_fixed import LOOKED_AT, SEEN, LipFdFixed
from clipwarden.models.lipsync.lipfd_fixed_input import FACE, LIPS, SOUND, WHOLE, windows_of
from clipwarden.models.lipsync.lipfd_input import joined, mel_picture
from clipwarden.models.run import part, read_clip, skips
from clipwarden.models.selftest import self_test
from clipwarden.models.weights import WeightFile
from clipwarden.shared.clip import Clip, Sound, View
from clipwarden.shared.codes import SkipCode
from clipwarden.shared.contracts import Branch, DetectorState, Kernel, Manifest, ManifestDetector, Needs
from clipwarden.shared.errors import DetectorError, NotApplicable
from clipwarden.shared.media.fence import Fence
from clipwarden.shared.media.limits import MediaLimits
from tests.media import silence, speech
from tests.networks import OPTIONS, made, pictures, telling, write_weights
from tests.sounds import music

DIGEST = f"sha256:{'0' * 64}"
RATE_HZ = SOUND.sample_rate_hz
SPEC = LipFdFixed.spec
ENTRY = ManifestDetector(
    name=SPEC.name, version="1", branch=SPEC.branch, state=DetectorState.READY, weights=DIGEST, needs=SPEC.needs
)

MANIFEST = Manifest(detectors=(ENTRY,), faces="tests", fusion=DIGEST)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_weights("lipfd_fixed", tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def detector(weights):
    return LipFdFixed.load(weights, "cpu")


@pytest.fixture(scope="module")
def clip():
    """Nine frames of one person, two seconds into the clip."""
    times_s = np.arange(9) / 25 + 2
    boxes = np.tile(np.array([[0, 0, 90, 90]], np.float32), (9, 1))
    views = {
        need.key: View.of(pictures(9, need.size_px, seed=k), times_s, boxes)
        for k, need in enumerate((WHOLE, FACE, LIPS))
    }
    return Clip(views=views, sounds={RATE_HZ: Sound.whole(speech(4))}, duration_s=4.0)


def _with(clip, need, **rows):
    return replace(clip, views={**clip.views, need.key: replace(clip.view(need), **rows)})


def _without(clip, need, missing):
    view = clip.view(need)
    kept = [k for k in range(len(view)) if k not in missing]
    rows = {name: getattr(view, name)[kept] for name in View.__dataclass_fields__}
    return _with(clip, need, **rows)


def _found(clip, count=10):
    return windows_of(clip, count, speech_network())


def test_every_frame_of_a_window_is_itself(clip):
    found = _found(clip)
    assert found.rows.tolist() == [list(range(k, k + 5)) for k in range(5)]
    assert found.crops.shape == (9, 3, 224, 224, 3)
    for k in range(9):
        np.testing.assert_array_equal(found.crops[k, 0], resize(clip.view(WHOLE).images[k], 224, Kernel.CV2_AREA))
        np.testing.assert_array_equal(found.crops[k, 1], clip.view(FACE).images[k])
        np.testing.assert_array_equal(found.crops[k, 2], clip.view(LIPS).images[k])


def test_sound_is_that_of_the_window_by_the_clock(clip):
    found = _found(clip, count=1)
    assert found.places == ((2.0, pytest.approx(2.16)),)
    wave = clip.sounds[RATE_HZ].wave.astype(np.float32) / 32768
    first, last = round(2.0 * RATE_HZ / 512), round(2.2 * RATE_HZ / 512)
    sound = mel_picture(wave, RATE_HZ)[:, first:last]
    expected = resize(joined(sound, clip.view(WHOLE).images[:5]), 1120, Kernel.CV2_AREA)
    np.testing.assert_array_equal(found.pictures[0], expected)


def test_the_networks_take_their_own_statistics():
    level = np.full((1, 1120, 1120, 3), 51, np.uint8)
    for taken, (mean, std) in ((SEEN, NORMALISATION), (LOOKED_AT, IMAGENET)):
        found = taken.tensor(level[:, : taken.size_px, : taken.size_px], torch.device("cpu"))[0, :, 0, 0]
        np.testing.assert_allclose(found, [(0.2 - m) / s for m, s in zip(mean, std, strict=True)], rtol=1e-5)


def test_windows_without_the_whole_person_are_gaps(clip):
    for need, missing, rows, code in (
        (FACE, {8}, range(4), SkipCode.NO_FACE),
        (FACE, {0, 1}, range(2, 5), SkipCode.NO_FACE),
    ):
        found = _found(_without(_without(clip, LIPS, missing), need, missing))
        assert [round((a - 2) * 25) for a, _ in found.places] == list(rows)
        assert {gap.code for gap in found.gaps} == {code}
        assert len(found.gaps) + len(found.places) == 5


def test_a_change_of_person_is_no_window(clip):
    people = np.array([0] * 6 + [1] * 3, np.int16)
    found = _found(_with(clip, FACE, people=people))
    assert [round((a - 2) * 25) for a, _ in found.places] == [0, 1]


def test_faces_that_are_too_small_are_named(clip):
    boxes = clip.view(FACE).boxes.copy()
    boxes[7:, 2] = 39
    assert {gap.code for gap in _found(_with(clip, FACE, boxes=boxes)).gaps} == {SkipCode.FACE_TOO_SMALL}


def test_a_window_after_the_sound_has_ended_is_a_gap(clip):
    found = _found(replace(clip, sounds={RATE_HZ: Sound.whole(speech(2.2))}))
    assert {gap.code for gap in found.gaps} == {SkipCode.AUDIO_TOO_SHORT}
    assert max(end for _, end in found.places) < 2.24


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda c: replace(c, sounds={}), SkipCode.NO_AUDIO),
        (lambda c: replace(c, sounds={RATE_HZ: Sound.whole(silence(4))}), SkipCode.SILENT_AUDIO),
        (lambda c: replace(c, sounds={RATE_HZ: Sound.whole(speech(0.3))}), SkipCode.AUDIO_TOO_SHORT),
        (lambda c: replace(c, sounds={RATE_HZ: Sound.whole(speech(1.5))}), SkipCode.AUDIO_TOO_SHORT),
        (lambda c: replace(c, sounds={RATE_HZ: Sound.whole(music(4))}), SkipCode.NO_SPEECH),
        (lambda c: _without(c, FACE, set(range(9))), SkipCode.NO_FACE),
        (lambda c: _without(c, FACE, {2, 6}), SkipCode.NO_FACE),
        (lambda c: _with(c, FACE, boxes=c.view(FACE).boxes / 3), SkipCode.FACE_TOO_SMALL),
        (lambda c: _without(c, WHOLE, set(range(4, 9))), SkipCode.TOO_FEW_FRAMES),
    ],
    ids=["mute", "silent", "0.3 s", "sound ends early", "music", "no face", "face in pieces", "small", "four frames"],
)
def test_a_clip_with_nothing_to_judge_is_skipped_with_its_code(detector, clip, change, code):
    with pytest.raises(NotApplicable) as skip:
        detector.assess(change(clip))
    assert skip.value.code is code


def test_each_crop_of_each_frame_is_encoded_once(detector, clip, monkeypatch):
    encoded, embed = [], ResNetTrunk.embed

    def looking(self, x):
        encoded.extend(one.contiguous().numpy().tobytes() for one in x)
        return embed(self, x)

    monkeypatch.setattr(ResNetTrunk, "embed", looking)
    assert len(detector.assess(clip).windows) == 5
    assert len(encoded) == len(set(encoded)) == 9 * 3


def test_a_clip_and_its_windows_alone_give_the_same_scores(detector, clip):
    found = _found(clip)
    logits = detector.predict((found.pictures, found.crops[found.rows]))
    alone = [detector.predict((found.pictures[k : k + 1], found.crops[found.rows[k]][None])) for k in range(5)]
    np.testing.assert_allclose(logits, np.concatenate(alone), rtol=1e-5, atol=1e-5)
    evidence = detector.assess(clip)
    assert [w.score for w in evidence.windows] == pytest.approx((1 / (1 + np.exp(-logits))).tolist(), abs=1e-5)
    assert evidence.features == {"lipfd_fixed_prob_fake": evidence.score}


def test_fewer_windows_are_judged_where_the_entry_says_so(weights, clip):
    options = {**weights.options, "n_extract": "2"}
    assert len(LipFdFixed.load(WeightFile(weights.path, DIGEST, options), "cpu").assess(clip).windows) == 2


def test_bfloat16_keeps_directions_and_probabilities(clip, tmp_path):
    found, cpu = _found(clip), torch.device("cpu")
    chosen = (found.pictures[[0, 4]], found.crops[found.rows[[0, 4]]])
    pictures, crops = (np.concatenate([x, 255 - x]) for x in chosen)
    picture, flat = SEEN.tensor(pictures, cpu), LOOKED_AT.tensor(crops.reshape(-1, 224, 224, 3), cpu)
    network = telling(made("lipfd_fixed"), (picture, flat.reshape(*crops.shape[:3], 3, 224, 224)))
    exact, short = (copy.deepcopy(network) for _ in range(2))
    settle(exact, "cpu")
    settle(short, "cpu", "bfloat16", ("get_weight", "fc"))
    with torch.inference_mode():
        for a, b in (
            (exact.see(picture), short.see(picture.bfloat16())),
            (exact.look(flat), short.look(flat.bfloat16())),
        ):
            assert torch.cosine_similarity(a, b).min() >= 0.999
    save_from(network, tmp_path / "model.safetensors", OPTIONS["lipfd_fixed"])
    file = WeightFile(tmp_path / "model.safetensors", "sha256:0", OPTIONS["lipfd_fixed"])
    logits = [LipFdFixed.load(file, "cpu", dtype).predict((pictures, crops)) for dtype in ("float32", "bfloat16")]
    a, b = (1 / (1 + np.exp(-x)) for x in logits)
    assert np.ptp(a) > 0.5
    assert 0 < np.abs(a - b).max() <= 2e-2


def test_windows_of_another_shape_are_refused(detector):
    crops = np.zeros((1, 5, 3, 224, 224, 3), np.uint8)
    with pytest.raises(DetectorError, match="1120"):
        detector.predict((np.zeros((1, 1000, 2500, 3), np.uint8), crops))
    with pytest.raises(DetectorError, match="2 pictures need crops"):
        detector.predict((np.zeros((2, 1120, 1120, 3), np.uint8), crops))
    with pytest.raises(DetectorError, match="224"):
        detector.predict((np.zeros((1, 1120, 1120, 3), np.uint8), crops[..., :200, :]))


def test_a_file_is_read_into_all_three_views_and_judged(detector, talking_head):
    with Fence(MediaLimits()) as fence:
        read = read_clip(fence, talking_head, MANIFEST, FaceDetector())
    assert Branch.LIPSYNC not in read.skipped
    narrowed = part(read.clip, MANIFEST.ready(Branch.LIPSYNC))
    assert set(narrowed.views) == {WHOLE.key, FACE.key, LIPS.key}
    lips = narrowed.view(LIPS)
    assert len(lips) == len(narrowed.view(FACE)) == len(narrowed.view(WHOLE)) == 50
    assert len(detector.assess(narrowed).windows) == 10


@pytest.mark.parametrize("missing", [FACE, LIPS], ids=["face", "lips"])
def test_without_one_of_its_views_the_branch_is_skipped_before_it_is_sent(clip, missing):
    assert skips(clip, MANIFEST, [Branch.LIPSYNC]) == {}
    without = _without(clip, missing, set(range(9)))
    assert skips(without, MANIFEST, [Branch.LIPSYNC]) == {Branch.LIPSYNC: SkipCode.NO_FACE}
    neither = _without(without, WHOLE, set(range(9)))
    assert skips(neither, MANIFEST, [Branch.LIPSYNC]) == {Branch.LIPSYNC: SkipCode.TOO_FEW_FRAMES}


def test_a_worker_passes_its_self_test(detector):
    self_test(Branch.LIPSYNC, [Loaded(ENTRY, detector)])


def test_further_views_come_after_a_first_one():
    with pytest.raises(ValueError, match="further views come after a first one"):
        Needs(more=(FACE,))
