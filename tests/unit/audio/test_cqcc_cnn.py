"""The CQCC network against formulas written here in double precision and against the way it was first computed."""

import math

import librosa
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from scipy.fft import dct
from scipy.signal import correlate2d

from clipwarden.models.audio.cqcc_cnn import CqccCnn, CqccNetwork
from clipwarden.models.checkpoint import parameter_count, save_from
from clipwarden.models.weights import WeightFile, verified
from clipwarden.shared.codes import SkipCode
from clipwarden.shared.errors import DetectorError, NotApplicable, WorkerFault
from tests.media import silence, speech
from tests.sounds import clip_of, music


@pytest.fixture
def network():
    """A network with random weights and statistics, so that every parameter matters."""
    torch.manual_seed(4)
    network = CqccNetwork()
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(
                torch.rand_like(tensor) + 0.5 if "var" in name or "scale" in name else torch.randn_like(tensor) * 0.2
            )
    return network.eval()


@pytest.fixture
def weights(network, tmp_path):
    path = tmp_path / "cqcc.safetensors"
    save_from(network, path, {})
    return WeightFile(path, "sha256:0")


def test_the_network_has_389_057_parameters(network):
    assert parameter_count(network) == CqccCnn.spec.parameters == 389_057


def test_the_forward_pass_is_that_of_the_formula(network):
    rows = np.random.default_rng(1).normal(size=(90, 48)).astype(np.float32)
    state = {name: tensor.double().numpy() for name, tensor in network.state_dict().items()}
    x = np.clip((rows - state["scaler_mean"][:, None]) / state["scaler_scale"][:, None], -5, 5)[None]
    for k in range(1, 5):
        kernels, bias = state[f"conv{k}.weight"], state[f"conv{k}.bias"]
        maps = (
            np.stack([sum(correlate2d(np.pad(a, 1), w, "valid") for a, w in zip(x, ws, strict=True)) for ws in kernels])
            + bias[:, None, None]
        )
        scale = state[f"bn{k}.weight"] / np.sqrt(state[f"bn{k}.running_var"] + 1e-5)
        shift = state[f"bn{k}.bias"] - scale * state[f"bn{k}.running_mean"]
        maps = np.maximum(maps * scale[:, None, None] + shift[:, None, None], 0)
        height, width = maps.shape[1] // 2, maps.shape[2] // 2
        x = maps[:, : 2 * height, : 2 * width].reshape(len(maps), height, 2, width, 2).max(axis=(2, 4))
    expected = state["fc.weight"][0] @ x.mean(axis=(1, 2)) + state["fc.bias"][0]
    with torch.inference_mode():
        found = network(torch.from_numpy(rows[None])).item()
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_weights_survive_the_file(network, weights):
    rows = np.random.default_rng(2).normal(size=(2, 90, 64)).astype(np.float32)
    with torch.inference_mode():
        expected = network(torch.from_numpy(rows)).numpy()
    np.testing.assert_allclose(CqccCnn.load(weights, "cpu").predict(rows), expected, rtol=1e-4, atol=1e-6)


def test_weights_that_do_not_fit_are_refused_with_every_difference(weights, tmp_path):
    state = load_file(weights.path)
    del state["bn2.bias"]
    state["fc.weight"] = torch.zeros(1, 128)
    state["head.weight"] = torch.zeros(1)
    path = tmp_path / "other.safetensors"
    save_file(state, path)
    with pytest.raises(WorkerFault) as fault:
        CqccCnn.load(WeightFile(path, "sha256:0"), "cpu")
    message = str(fault.value)
    assert "missing bn2.bias" in message
    assert "unknown head.weight" in message
    assert "fc.weight is (1, 128), not (1, 256)" in message


def test_a_file_that_is_not_safetensors_is_a_fault(tmp_path):
    path = tmp_path / "broken.safetensors"
    path.write_bytes(b"no tensors here")
    with pytest.raises(WorkerFault, match="cannot be read"):
        CqccCnn.load(WeightFile(path, "sha256:0"), "cpu")


@pytest.fixture(scope="module")
def shipped():
    return CqccCnn.load(verified("cqcc_cnn"), "cpu")


def first_score(wave):
    """The score as version 1 computed it: librosa's CQT, windows of 400 frames, all of them judged."""
    wave = np.resize(wave.astype(np.float32) / 32768, max(len(wave), 51_200))
    spectrum = librosa.cqt(wave, sr=16_000, hop_length=256, fmin=20.0, n_bins=96, bins_per_octave=12)
    cepstra = dct(np.log(np.abs(spectrum).astype(np.float64) ** 2 + 1e-12), axis=0, norm="ortho")[:30]
    rows = np.concatenate([cepstra, librosa.feature.delta(cepstra), librosa.feature.delta(cepstra, order=2)])
    last = max(len(wave) // 256 - 400, 0)
    starts = [*range(0, last, 200), last]
    windows = np.stack([rows[:, a : min(a + 400, len(wave) // 256)] for a in starts]).astype(np.float32)
    network = CqccNetwork().eval()
    network.load_state_dict(load_file(verified("cqcc_cnn").path))
    with torch.inference_mode():
        logits = network(torch.from_numpy(windows)).numpy().astype(np.float64)
    return starts, 1 / (1 + np.exp(-logits)), 1 / (1 + math.exp(-logits.mean()))


@pytest.mark.parametrize("seconds", [1.0, 2.5, 3.2, 6.4, 6.405, 9.6, 13.31, 60.0])
def test_scores_of_up_to_a_minute_of_speech_are_those_of_version_1(shipped, seconds):
    wave = speech(seconds, seed=round(seconds * 100))
    evidence = shipped.assess(clip_of(wave))
    starts, scores, score = first_score(wave)
    assert evidence.gaps == ()
    assert evidence.score == pytest.approx(score, abs=1e-5)
    assert [w.score for w in evidence.windows] == pytest.approx(scores.tolist(), abs=1e-5)
    assert [w.start_s for w in evidence.windows] == [pytest.approx(a * 256 / 16_000) for a in starts]
    assert evidence.windows[-1].end_s == pytest.approx(min(max(starts[-1] + 400, 0) * 0.016, seconds), abs=0.016)


def test_two_minutes_are_judged_whole_and_a_longer_clip_up_to_its_last_second(shipped):
    two = shipped.assess(clip_of(np.tile(speech(12), 10)))
    three = shipped.assess(clip_of(np.tile(speech(12), 15)))
    assert len(two.windows) == 37
    assert all(b.start_s - a.start_s <= 3.2 + 1e-9 for a, b in zip(two.windows, two.windows[1:], strict=False))
    assert two.windows[-1].end_s == 120
    assert len(three.windows) == 24
    assert three.windows[-1].end_s == pytest.approx(180, abs=0.05)


def test_what_is_not_speech_does_not_move_the_score(shipped):
    alone = shipped.assess(clip_of(speech(6.4)))
    among = shipped.assess(clip_of(np.concatenate([speech(6.4), silence(6.4), music(12.8)])))
    assert [(g.code, g.end_s) for g in among.gaps] == [
        (SkipCode.SILENT_AUDIO, 12.8),
        (SkipCode.NO_SPEECH, pytest.approx(25.6, abs=0.016)),
    ]
    assert among.windows[0].score == pytest.approx(alone.score, abs=0.05)
    assert among.windows[-1].start_s <= 3.2


@pytest.mark.parametrize(
    ("wave", "code"),
    [
        (np.zeros(0, np.int16), SkipCode.NO_AUDIO),
        (speech(0.3), SkipCode.AUDIO_TOO_SHORT),
        (silence(3), SkipCode.SILENT_AUDIO),
        (music(7), SkipCode.NO_SPEECH),
    ],
)
def test_what_cannot_be_judged_is_skipped(shipped, wave, code):
    with pytest.raises(NotApplicable) as skip:
        shipped.assess(clip_of(wave))
    assert skip.value.code == code


def test_several_speakers_get_one_score_and_a_window_each(shipped):
    wave = np.concatenate([speech(7, 1), speech(7, 2), speech(7, 3) // 2 + speech(7, 4) // 2])
    evidence = shipped.assess(clip_of(wave))
    assert evidence.windows[0].start_s == 0
    assert evidence.windows[-1].end_s == pytest.approx(21, abs=0.016)


def test_windows_of_several_clips_share_a_batch(shipped):
    rows = np.random.default_rng(3).normal(0, 20, (3, 90, 400)).astype(np.float32)
    apart = np.concatenate([shipped.predict(rows[k : k + 1]) for k in range(3)])
    np.testing.assert_allclose(shipped.predict(rows), apart, atol=1e-4 * np.abs(apart).max())


def test_rows_of_another_shape_are_an_error(shipped):
    with pytest.raises(DetectorError, match="CQCC windows must be"):
        shipped.predict(np.zeros((1, 80, 251), np.float32))


def test_bfloat16_keeps_the_probabilities(shipped):
    short = CqccCnn.load(verified("cqcc_cnn"), "cpu", "bfloat16")
    clip = clip_of(np.concatenate([speech(13, seed) for seed in range(3)]))
    exact, rough = (np.array([w.score for w in d.assess(clip).windows]) for d in (shipped, short))
    assert not np.array_equal(exact, rough)
    np.testing.assert_allclose(rough, exact, atol=0.02)
