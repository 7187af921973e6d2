"""The forensic features against formulas written here, and the network and its rules."""

import cv2
import numpy as np
import pytest
import torch
from skimage import data

from clipwarden.models.checkpoint import parameter_count, save_from
from clipwarden.models.visual.forensic_features import FEATURES, compressed, forensic_features
from clipwarden.models.visual.forensic_mlp import NEED, ForensicMlp, ForensicNetwork, features_of
from clipwarden.models.weights import WeightFile
from clipwarden.shared.clip import Clip, View
from clipwarden.shared.codes import SkipCode
from clipwarden.shared.errors import NotApplicable, WorkerFault


@pytest.fixture(scope="module")
def portrait():
    return cv2.resize(data.astronaut()[:256, 100:356], (256, 256))


@pytest.fixture
def network():
    torch.manual_seed(5)
    network = ForensicNetwork()
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(
                torch.rand_like(tensor) + 0.5 if "var" in name or "scale" in name else torch.randn_like(tensor)
            )
    return network.eval()


@pytest.fixture
def detector(network, tmp_path):
    save_from(network, tmp_path / "forensic.safetensors", {})
    return ForensicMlp.load(WeightFile(tmp_path / "forensic.safetensors", "sha256:0"), "cpu")


def _clip(images, times=None):
    n = len(images)
    images = np.asarray(images, np.uint8).reshape(n, 256, 256, 3)
    times = np.arange(n, dtype=np.float64) if times is None else np.asarray(times, np.float64)
    return Clip(views={NEED.key: View.of(images, times)}, duration_s=float(n))


def test_features_are_those_of_the_formulas(portrait):
    gray = cv2.cvtColor(portrait, cv2.COLOR_RGB2GRAY).astype(np.float64)
    magnitude = np.abs(np.fft.fftshift(np.fft.fft2(gray)))
    share = magnitude / magnitude.sum()
    noise = portrait.astype(float) - cv2.fastNlMeansDenoisingColored(portrait, None, 10, 10, 7, 21).astype(float)
    variances = [noise[:, :, c].var() for c in range(3)]
    kernel = np.array([[0, 1, 0], [1, -4, 1], [0, 1, 0]])
    padded = np.pad(gray, 1, mode="reflect")
    laplacian = sum(kernel[i, j] * padded[i : i + 256, j : j + 256] for i in range(3) for j in range(3))
    edges = [abs(gray[r, c + 7] - gray[r, c + 8]) for c in range(0, 248, 8) for r in range(256)]
    expected = {
        "high_freq_ratio": 1 - magnitude[64:192, 64:192].sum() / magnitude.sum(),
        "spectral_entropy": -(share * np.log(share)).sum(),
        "magnitude_mean": magnitude.mean(),
        "magnitude_std": magnitude.std(),
        "noise_variance": noise.var(),
        "noise_mean": np.abs(noise).mean(),
        "noise_var_r": variances[0],
        "noise_var_g": variances[1],
        "noise_var_b": variances[2],
        "noise_var_ratio": max(variances) / min(variances),
        "sharpness": laplacian.var(),
        "blocking_score": np.mean(edges),
    }
    assert tuple(expected) == FEATURES
    np.testing.assert_allclose(forensic_features(portrait), list(expected.values()), rtol=1e-4)


def test_crops_in_several_threads_keep_their_features_and_their_order(portrait, monkeypatch):
    crops = np.stack([portrait, portrait[::-1], cv2.GaussianBlur(portrait, (0, 0), 2), 255 - portrait, portrait // 3])
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    np.testing.assert_array_equal(features_of(crops), [forensic_features(crop) for crop in crops])


@pytest.mark.parametrize("level", [0, 1, 128, 255])
def test_a_flat_picture_has_finite_features(level):
    features = forensic_features(np.full((256, 256, 3), level, np.uint8))
    assert np.isfinite(compressed(features)).all()
    assert features.min() >= 0


def test_a_channel_without_noise_does_not_blow_up_the_ratio(portrait):
    lonely = portrait.copy()
    lonely[:, :, 1:] = 128
    assert forensic_features(lonely)[FEATURES.index("noise_var_ratio")] <= 100


def test_jpeg_raises_the_block_edges(portrait):
    _, data_ = cv2.imencode(".jpg", portrait, [cv2.IMWRITE_JPEG_QUALITY, 5])
    coded = cv2.imdecode(data_, cv2.IMREAD_COLOR)
    inside = np.abs(np.diff(cv2.cvtColor(coded, cv2.COLOR_RGB2GRAY).astype(float), axis=1)).mean()
    assert forensic_features(coded)[FEATURES.index("blocking_score")] > 1.5 * inside


def test_the_network_has_3_170_parameters_under_the_names_of_the_page(network):
    assert parameter_count(network) == ForensicMlp.spec.parameters == 3_170
    assert {n.split(".")[1] for n, _ in network.named_parameters()} == {"0", "1", "4", "5", "8"}


def test_the_forward_pass_is_that_of_the_formula(network, detector):
    features = np.abs(np.random.default_rng(0).normal(size=(5, 12))) * [1, 10, 900, 400, 90, 9, 80, 70, 60, 5, 900, 9]
    state = {name: tensor.double().numpy() for name, tensor in network.state_dict().items()}
    x = np.concatenate([features[:, :2], np.log1p(features[:, 2:])], axis=1)
    x = np.clip((x - state["scaler_mean"]) / state["scaler_scale"], -4, 4)
    for linear, norm in ((0, 1), (4, 5)):
        x = x @ state[f"network.{linear}.weight"].T + state[f"network.{linear}.bias"]
        x = (x - state[f"network.{norm}.running_mean"]) / np.sqrt(state[f"network.{norm}.running_var"] + 1e-5)
        x = np.maximum(x * state[f"network.{norm}.weight"] + state[f"network.{norm}.bias"], 0)
    real, fake = (x @ state["network.8.weight"].T + state["network.8.bias"]).T
    np.testing.assert_allclose(detector.predict(features), fake - real, rtol=1e-4, atol=1e-4)


def test_evidence_sums_up_the_crops(detector, portrait):
    images = [portrait, cv2.GaussianBlur(portrait, (0, 0), 2), portrait[::-1]]
    evidence = detector.assess(_clip(images, times=[0.0, 1.0, 2.5]))
    logits = detector.predict(np.stack([forensic_features(np.ascontiguousarray(i)) for i in images]))
    probabilities = 1 / (1 + np.exp(-logits))
    assert evidence.score == pytest.approx(1 / (1 + np.exp(-logits.mean())))
    assert evidence.features == pytest.approx(
        {
            "forensic_score": evidence.score,
            "forensic_prob_mean": probabilities.mean(),
            "forensic_prob_max": probabilities.max(),
            "forensic_prob_p90": np.percentile(probabilities, 90),
        }
    )
    assert [w.score for w in evidence.windows] == pytest.approx(probabilities.tolist())
    assert [(w.start_s, w.end_s) for w in evidence.windows] == [(0.0, 0.5), (0.5, 1.75), (1.75, 3.0)]


def test_a_clip_without_faces_is_skipped(detector):
    with pytest.raises(NotApplicable) as skip:
        detector.assess(_clip([]))
    assert skip.value.code == SkipCode.NO_FACE


def test_other_weights_are_refused(tmp_path):
    save_from(torch.nn.Linear(12, 2), tmp_path / "other.safetensors", {})
    with pytest.raises(WorkerFault, match=r"missing network\.0\.bias.*unknown bias"):
        ForensicMlp.load(WeightFile(tmp_path / "other.safetensors", "sha256:0"), "cpu")
