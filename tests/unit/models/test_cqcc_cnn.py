"""The CQCC network against formulas written here in double precision, and its rules for short and silent sound."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from scipy.signal import correlate2d, savgol_filter

from clipwarden.models.audio.cqcc import BINS, HOP, LOWEST_HZ, SAMPLE_RATE_HZ, SHORTEST, cqcc
from clipwarden.models.audio.cqcc_cnn import STEP, WINDOW, CqccCnn, CqccNetwork, level_dbfs, windows_of
from clipwarden.models.checkpoint import parameter_count, save_from
from clipwarden.models.weights import WeightFile
from clipwarden.shared.clip import Clip
from clipwarden.shared.codes import SkipCode
from clipwarden.shared.errors import NotApplicable, WorkerFault


def _noise(seconds, seed=0, level=3000):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=round(seconds * SAMPLE_RATE_HZ)) * level).astype(np.int16)


def _sine(hz, seconds=4.0):
    return np.sin(2 * np.pi * hz * np.arange(round(seconds * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ)


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


def _constant_q(wave, k):
    """Bin k of a constant-Q transform at each hop: the inner product with a Hann-windowed tone of unit length."""
    hz = LOWEST_HZ * 2 ** (k / 12)
    ratio = 2 ** (1 / 12)
    length = SAMPLE_RATE_HZ / (hz * (ratio**2 - 1) / (ratio**2 + 1))
    n = np.arange(-int(length // 2), int(length // 2))
    window = 0.5 + 0.5 * np.cos(2 * np.pi * n / length)
    kernel = window / window.sum() * np.exp(-2j * np.pi * hz * n / SAMPLE_RATE_HZ)
    frames = np.arange(40, 160) * HOP
    padded = np.pad(wave, len(n))
    return np.array(
        [np.sum(padded[f + len(n) + n[0] : f + len(n) + n[0] + len(n)] * kernel) for f in frames]
    ) * np.sqrt(length)


def test_the_transform_under_the_cepstra_is_constant_q():
    import librosa

    tones = [LOWEST_HZ * 2 ** (k / 12) for k in (40, 60, 80)]
    wave = sum(_sine(hz) for hz in tones) / 4
    found = np.abs(librosa.cqt(wave, sr=SAMPLE_RATE_HZ, hop_length=HOP, fmin=LOWEST_HZ, n_bins=BINS))
    for k in (40, 60, 80):
        expected = np.abs(_constant_q(wave, k))
        np.testing.assert_allclose(found[k, 40:160], expected, rtol=0.03)


def test_rows_are_the_cosine_transform_of_log_power_with_slopes_and_curvatures():
    import librosa

    wave = (_noise(4) / 32768).astype(np.float32)
    spectrum = librosa.cqt(wave, sr=16000, hop_length=256, fmin=20.0, n_bins=96, bins_per_octave=12)
    log_power = np.log(np.abs(spectrum.astype(np.complex128)) ** 2 + 1e-12)
    k, n = np.arange(30)[:, None], np.arange(96)[None, :]
    basis = np.sqrt(2 / 96) * np.cos(np.pi * (2 * n + 1) * k / (2 * 96))
    basis[0] /= np.sqrt(2)
    cepstra = basis @ log_power
    slopes = savgol_filter(cepstra, 9, 1, deriv=1, axis=1, mode="interp")
    curvatures = savgol_filter(cepstra, 9, 2, deriv=2, axis=1, mode="interp")
    rows = cqcc(wave)
    assert rows.shape == (90, 1 + len(wave) // 256)
    np.testing.assert_allclose(rows, np.concatenate([cepstra, slopes, curvatures]), atol=1e-3)


def test_sound_below_3_2_seconds_is_repeated():
    wave = (_noise(1.3) / 32768).astype(np.float32)
    repeated = np.concatenate([wave] * 3)[:SHORTEST]
    np.testing.assert_array_equal(cqcc(wave), cqcc(repeated))


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
    rows = torch.from_numpy(np.random.default_rng(2).normal(size=(2, 90, 64)).astype(np.float32))
    with torch.inference_mode():
        expected = network(rows).numpy()
    np.testing.assert_array_equal(CqccCnn.load(weights, "cpu").predict(rows), expected.astype(np.float64))


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


@pytest.mark.parametrize("frames", [200, 400, 401, 600, 3750])
def test_windows_cover_the_sound_and_are_equally_long(frames):
    ranges = windows_of(frames)
    assert ranges[0][0] == 0
    assert ranges[-1][1] == frames
    assert {end - start for start, end in ranges} == {min(frames, WINDOW)}
    assert all(0 < b[0] - a[0] <= STEP for a, b in pairwise(ranges))


def test_the_score_is_the_logistic_of_the_mean_logit(weights):
    detector, wave = CqccCnn.load(weights, "cpu"), _noise(12)
    evidence = detector.assess(Clip(wave=wave))
    logits = [np.log(w.score / (1 - w.score)) for w in evidence.windows]
    assert len(logits) == 3
    assert evidence.score == pytest.approx(1 / (1 + np.exp(-np.mean(logits))))
    assert evidence.features == {"audio_prob_fake": evidence.score}


def test_only_the_first_minute_is_judged(weights):
    detector, wave = CqccCnn.load(weights, "cpu"), _noise(61)
    evidence = detector.assess(Clip(wave=wave))
    assert evidence.windows[-1].end_s == 60.0
    assert evidence == detector.assess(Clip(wave=np.concatenate([wave[: 60 * 16000], _noise(5, seed=9)])))


def test_silent_windows_are_left_out(weights):
    wave = np.concatenate([_noise(6.4), np.zeros(16000 * 20, np.int16)])
    evidence = CqccCnn.load(weights, "cpu").assess(Clip(wave=wave))
    assert [(w.start_s, w.end_s) for w in evidence.windows] == [(0.0, 6.4), (3.2, 9.6)]


@pytest.mark.parametrize(
    ("wave", "code"),
    [
        (np.zeros(0, np.int16), SkipCode.NO_AUDIO),
        (_noise(0.99), SkipCode.AUDIO_TOO_SHORT),
        (np.zeros(48000, np.int16), SkipCode.SILENT_AUDIO),
        (_noise(3, level=20), SkipCode.SILENT_AUDIO),
    ],
)
def test_what_cannot_be_judged_is_skipped(weights, wave, code):
    with pytest.raises(NotApplicable) as skip:
        CqccCnn.load(weights, "cpu").assess(Clip(wave=wave))
    assert skip.value.code == code


def test_level_is_in_decibels_of_full_scale():
    assert level_dbfs(np.full(100, 0.1, np.float32)) == pytest.approx(-20, abs=1e-4)
    assert level_dbfs(np.zeros(10, np.float32)) == -np.inf
