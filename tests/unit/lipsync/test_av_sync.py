"""The two towers: which moments are judged, what an offset means, and a curve that shows where the sound fits best."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from clipwarden.models.assess import Loaded
from clipwarden.models.audio.mel import log_mel
from clipwarden.models.audio.speech import speech_network
from clipwarden.models.checkpoint import parameter_count, save_from
from clipwarden.models.lipsync.av_sync import MOUTHS, OFFSET_S, SOUND, AvSync, SyncCurve
from clipwarden.models.lipsync.av_sync_seed import AvSyncSeed, SyncHead
from clipwarden.models.lipsync.pairing import OFFSETS, REACH, pair
from clipwarden.models.lipsync.towers import SyncNetwork
from clipwarden.models.selftest import self_test
from clipwarden.models.weights import WeightFile
from clipwarden.shared.clip import Clip, Sound, View
from clipwarden.shared.codes import SkipCode
from clipwarden.shared.contracts import Branch, DetectorState, ManifestDetector
from clipwarden.shared.errors import DetectorError, NotApplicable, WorkerFault
from tests.media import silence, speech
from tests.networks import av_sync, pictures, write_weights

RATE_HZ = 16_000


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    save_from(av_sync(), folder / "av_sync.safetensors", {})
    return AvSync.load(WeightFile(folder / "av_sync.safetensors", "sha256:0"), "cpu")


def _mouths(times_s, frames=None, face_px=90):
    n = len(times_s)
    boxes = np.tile(np.array([[0, 0, face_px, face_px]], np.float32), (n, 1))
    rows = {} if frames is None else {"frames": np.asarray(frames, np.int64)}
    images = pictures(n, 96, seed=4) if n else np.zeros((0, 96, 96, 3), np.uint8)
    return View.of(images, np.asarray(times_s, np.float64), boxes, **rows)


def _clip(view, wave, duration_s=4.0):
    return Clip(views={MOUTHS.key: view}, sounds={RATE_HZ: Sound.whole(wave)}, duration_s=duration_s)


def _pair(view, wave, duration_s=4.0):
    return pair(_clip(view, wave, duration_s), view, SOUND, speech_network())


def test_the_towers_have_the_parameters_that_the_detector_states():
    assert parameter_count(SyncNetwork()) == AvSync.spec.parameters


def test_moments_are_five_neighbouring_frames_and_share_none():
    frames = [*range(12), *range(20, 24), *range(30, 35)]
    paired = _pair(_mouths(np.array(frames) / 25 + 1, frames), speech(4))
    assert [round(m.start_s * 25) - 25 for m in paired.moments] == [0, 5, 30]


def test_frames_far_apart_in_time_are_no_moment():
    with pytest.raises(NotApplicable) as skip:
        _pair(_mouths(np.arange(20) / 8), speech(4))
    assert skip.value.code is SkipCode.TOO_FEW_FRAMES


def test_the_middle_offset_is_the_sound_at_the_middle_frame():
    wave = speech(4)
    moment = _pair(_mouths(np.arange(15) / 25 + 1), wave).moments[0]
    candidates = moment.candidates()
    assert candidates.shape == (OFFSETS, 80, 13)
    centre = round(1.08 * RATE_HZ)
    stretch = wave[centre - 38 * 256 : centre + 38 * 256].astype(np.float32) / 32768
    expected = log_mel(stretch) / 40 + 1
    np.testing.assert_allclose(candidates[REACH], expected[:, 32:45], atol=1e-6)
    np.testing.assert_allclose(candidates[REACH + 3], expected[:, 38:51], atol=1e-6)


def test_offsets_before_the_clip_begins_are_unknown():
    moments = _pair(_mouths(np.arange(60) / 25 + 0.04), speech(4)).moments
    assert not moments[0].known[0]
    assert moments[0].known[REACH]
    assert moments[5].known.all()


def test_sound_shorter_than_the_pictures_leaves_a_gap():
    paired = _pair(_mouths(np.arange(100) / 25), speech(2))
    assert {gap.code for gap in paired.gaps} >= {SkipCode.AUDIO_TOO_SHORT}
    assert max(m.end_s for m in paired.moments) < 2


def test_silence_is_a_gap_or_a_skip():
    wave = np.concatenate([speech(2), silence(2)])
    paired = _pair(_mouths(np.arange(100) / 25), wave)
    assert SkipCode.SILENT_AUDIO in {gap.code for gap in paired.gaps}
    with pytest.raises(NotApplicable) as skip:
        _pair(_mouths(np.arange(100) / 25), silence(4))
    assert skip.value.code is SkipCode.SILENT_AUDIO


def test_a_tone_is_no_speech():
    tone = (np.sin(np.arange(4 * RATE_HZ) * 0.2) * 9000).astype(np.int16)
    with pytest.raises(NotApplicable) as skip:
        _pair(_mouths(np.arange(100) / 25), tone)
    assert skip.value.code is SkipCode.NO_SPEECH


def test_a_mute_clip_and_one_without_a_face_are_skipped(detector):
    view = _mouths(np.arange(100) / 25)
    with pytest.raises(NotApplicable) as skip:
        detector.assess(Clip(views={MOUTHS.key: view}, duration_s=4.0))
    assert skip.value.code is SkipCode.NO_AUDIO
    with pytest.raises(NotApplicable) as skip:
        detector.assess(_clip(_mouths(np.zeros(0)), speech(4)))
    assert skip.value.code is SkipCode.NO_FACE


def test_all_but_the_outer_moments_of_a_long_clip_have_sound_for_every_offset():
    duration_s, moments = 1800.0, 30
    spans = SOUND.spans(duration_s)
    starts = np.linspace(0, duration_s - 0.2, moments)
    assert len(spans) == moments
    reaches = [(start - first, last - start - 0.2) for start, (first, last) in zip(starts, spans, strict=True)]
    assert min(min(reach) for reach in reaches) > -1e-9
    assert min(min(reach) for reach in reaches[2:-2]) >= 0.61


def _curve(best, moments=4):
    logits = np.tile(-np.abs(np.arange(OFFSETS) - REACH - best) / 4.0, (moments, 1))
    return SyncCurve(logits)


@pytest.mark.parametrize("best", [-16, -5, -4, 0, 3, 4, 12])
def test_the_best_offset_is_found_and_small_ones_are_forgiven(best):
    curve = _curve(best)
    assert curve.offset == best
    assert abs(curve.tolerated) <= 4
    expected = 0.0 if abs(best) <= 4 else -(abs(best) - 4) / 4
    np.testing.assert_allclose(curve.by_moment, expected)


def test_an_unknown_offset_does_not_spoil_the_mean():
    logits = np.ones((3, OFFSETS))
    logits[0, :20] = np.nan
    logits[:, 0] = np.nan
    mean = SyncCurve(logits).mean
    assert mean[0] == -np.inf
    assert (mean[1:] == 1).all()


def test_evidence_is_one_less_the_probability_of_sync(detector):
    evidence = detector.assess(_clip(_mouths(np.arange(100) / 25), speech(4)))
    assert evidence.score == pytest.approx(1 - evidence.features["sync_prob"])
    assert abs(evidence.facts["offset_s"]) <= REACH * OFFSET_S
    assert len(evidence.windows) == evidence.facts["moments_judged"] >= 10


@torch.inference_mode()
def test_predict_agrees_with_the_formula_in_double_precision(detector):
    mouths = pictures(20, 96, seed=8).reshape(4, 5, 96, 96, 3)
    sounds = np.random.default_rng(0).uniform(-1, 1, (4, 80, 13)).astype(np.float32)
    state = {n: t.double().numpy() for n, t in av_sync().state_dict().items()}
    grey = (mouths / 127.5 - 1) @ [0.299, 0.587, 0.114]
    seen = grey.reshape(4, 5, 16, 6, 16, 6).mean(axis=(3, 5)).reshape(4, -1)
    heard = sounds.reshape(4, 20, 4, 13).mean(axis=2).reshape(4, -1)
    a, b = (
        x @ state[f"{of}.last.weight"].T + state[f"{of}.last.bias"] for x, of in ((seen, "mouth"), (heard, "sound"))
    )
    cosine = (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    expected = -(state["scorer.scale"] * cosine + state["scorer.bias"])
    np.testing.assert_allclose(detector.predict((mouths, sounds)), expected, rtol=1e-4, atol=1e-4)


def test_neither_light_nor_loudness_of_the_whole_clip_tells(detector):
    moments = _pair(_mouths(np.arange(60) / 25 + 1), speech(4)).moments
    darker = [replace(m, mouths=(m.mouths // 2 + 10).astype(np.uint8), sound=m.sound * 0.5 - 0.2) for m in moments]
    once, again = (detector.examine(some).logits for some in (moments, darker))
    known = ~np.isnan(once)
    np.testing.assert_array_equal(np.isnan(again), ~known)
    assert np.corrcoef(once[known], again[known])[0, 1] > 0.99


def test_a_moment_s_score_is_the_mean_over_those_about_it():
    logits = np.zeros((9, OFFSETS))
    logits[4] = 7.0
    np.testing.assert_allclose(SyncCurve(logits).around, [0, 7 / 5, 7 / 6, 1, 1, 1, 7 / 6, 7 / 5, 0])


def test_pairs_of_another_shape_are_refused(detector):
    with pytest.raises(DetectorError):
        detector.predict((pictures(4, 96).reshape(1, 4, 96, 96, 3), np.zeros((1, 80, 13), np.float32)))
    with pytest.raises(DetectorError):
        detector.predict((pictures(5, 64).reshape(1, 5, 64, 64, 3), np.zeros((1, 80, 13), np.float32)))
    with pytest.raises(DetectorError):
        detector.predict((pictures(5, 96).reshape(1, 5, 96, 96, 3), np.zeros((1, 80, 9), np.float32)))


def test_bfloat16_keeps_the_order_of_the_offsets(tmp_path, detector):
    save_from(av_sync(), tmp_path / "w.safetensors", {})
    short = AvSync.load(WeightFile(tmp_path / "w.safetensors", "sha256:0"), "cpu", "bfloat16")
    moments = _pair(_mouths(np.arange(40) / 25 + 1), speech(4)).moments
    a, b = (d.examine(moments).mean for d in (detector, short))
    assert np.abs(a - b).max() < 0.1


@pytest.fixture
def seed_head(tmp_path):
    return AvSyncSeed.load(write_weights("av_sync_seed", tmp_path), "cpu")


def test_the_seeds_head_has_its_count_and_names():
    network = SyncHead()
    assert parameter_count(network) == 262_913
    assert {n: tuple(t.shape) for n, t in network.state_dict().items() if "weight" in n} == {
        "net.0.weight": (256, 768),
        "net.3.weight": (256, 256),
        "net.6.weight": (1, 256),
    }


def test_the_seeds_head_judges_embeddings_and_no_clip(seed_head):
    embeddings = np.random.default_rng(1).normal(size=(3, 768)).astype(np.float32)
    assert np.ptp(seed_head.predict(embeddings)) > 0
    with pytest.raises(NotApplicable) as skip:
        seed_head.assess(_clip(_mouths(np.arange(100) / 25), speech(4)))
    assert skip.value.code is SkipCode.NOT_APPLICABLE
    with pytest.raises(DetectorError):
        seed_head.predict(embeddings[:, :512])


def test_the_seeds_logit_is_turned_from_in_sync_to_fake(tmp_path):
    torch.manual_seed(3)
    network = SyncHead().eval()
    torch.save({f"module.{n}": t for n, t in network.state_dict().items()}, tmp_path / "av_sync_head.pth")
    embeddings = np.random.default_rng(2).normal(size=(3, 768)).astype(np.float32)
    with torch.inference_mode():
        in_sync = network(torch.from_numpy(embeddings)).numpy()
    loaded = AvSyncSeed.load(WeightFile(tmp_path / "av_sync_head.pth", "sha256:0"), "cpu")
    np.testing.assert_allclose(loaded.predict(embeddings), -in_sync, rtol=1e-5)


def test_a_file_of_another_head_is_refused(tmp_path):
    torch.save(torch.nn.Sequential(torch.nn.Linear(768, 1)).state_dict(), tmp_path / "x.pth")
    with pytest.raises(WorkerFault, match=r"missing net\.0\.bias"):
        AvSyncSeed.load(WeightFile(tmp_path / "x.pth", "sha256:0"), "cpu")


def test_a_worker_with_the_loadable_head_passes_its_self_test(seed_head, detector):
    def entry(spec):
        fields = {"name": spec.name, "version": spec.version, "branch": spec.branch, "needs": spec.needs}
        return ManifestDetector(state=DetectorState.READY, weights=f"sha256:{'0' * 64}", **fields)

    self_test(Branch.LIPSYNC, [Loaded(entry(d.spec), d) for d in (seed_head, detector)])
