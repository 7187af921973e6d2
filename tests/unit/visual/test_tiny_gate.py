"""The tiny gate against its paper's formula, behind each of its filters."""

import numpy as np
import pytest
import torch
from scipy.signal import correlate2d

from clipwarden.models.checkpoint import parameter_count, save_from
from clipwarden.models.visual.tiny_gate import HIGHEST_PATCH, NEED, TinyGate, TinyNetwork, front_filter
from clipwarden.models.weights import WeightFile
from clipwarden.shared.clip import Clip, View
from clipwarden.shared.contracts import Evidence
from clipwarden.shared.errors import DetectorError, WorkerFault
from tests.networks import made, pictures, write_weights


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_weights("tiny_gate", tmp_path_factory.mktemp("weights"))


def _gate(weights, dtype="float32", **options):
    return TinyGate.load(WeightFile(weights.path, weights.digest, {**weights.options, **options}), "cpu", dtype)


def test_the_network_has_the_names_and_shapes_of_the_public_files():
    shapes = {name: tuple(t.shape) for name, t in TinyNetwork().state_dict().items()}
    assert len(shapes) == 21
    assert parameter_count(TinyNetwork()) == TinyGate.spec.parameters == 1_297
    expected = {
        "conv1.weight": (8, 3, 1, 1),
        "conv2.weight": (8, 8, 3, 3),
        "bn1.running_mean": (8,),
        "layer1.0.conv1.weight": (8, 8, 1, 1),
        "layer1.0.conv2.weight": (8, 8, 3, 3),
        "layer1.0.bn2.bias": (8,),
        "fc.weight": (1, 8),
        "fc.bias": (1,),
    }
    assert expected.items() <= shapes.items()


DIRECTIONS = {
    "right_diag": [[-2, -1, 0], [-1, 0, 1], [0, 1, 2]],
    "left_diag": [[0, 1, 2], [-1, 0, 1], [-2, -1, 0]],
    "x_grad": [[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]],
    "y_grad": [[-1, -2, -1], [0, 0, 0], [1, 2, 1]],
}


def _filtered(x, kind):
    """(3, H, W) behind a filter, in plain loops."""
    if kind == "raw":
        return x
    if kind == "npr":
        return x - x[:, ::2, ::2].repeat(2, axis=1).repeat(2, axis=2)
    return np.stack([correlate2d(channel, DIRECTIONS[kind], "same") for channel in x])


@pytest.mark.parametrize("kind", ["raw", "npr", *DIRECTIONS])
def test_filters_are_those_of_the_formulas(kind):
    x = np.random.default_rng(0).normal(size=(3, 12, 16))
    found = front_filter(torch.from_numpy(x[None].astype(np.float32)), kind)[0].numpy()
    np.testing.assert_allclose(found, _filtered(x, kind), atol=1e-5)


def _formula(pictures_, kind):
    """Mean logit (N,) in double precision."""
    s = {n: t.double().numpy() for n, t in made("tiny_gate").state_dict().items()}

    def conv(x, w, step=1):
        return np.stack([sum(correlate2d(a, k, "valid") for a, k in zip(x, ks, strict=True)) for ks in w])[
            :, ::step, ::step
        ]

    def norm(x, name):
        scale = s[f"{name}.weight"] / np.sqrt(s[f"{name}.running_var"] + 1e-5)
        shift = s[f"{name}.bias"] - scale * s[f"{name}.running_mean"]
        return np.maximum(x * scale[:, None, None] + shift[:, None, None], 0)

    logits = []
    for picture in pictures_:
        x = (picture.transpose(2, 0, 1) / 255 - [[[0.485]], [[0.456]], [[0.406]]]) / [[[0.229]], [[0.224]], [[0.225]]]
        x = norm(conv(conv(_filtered(x, kind), s["conv1.weight"]), s["conv2.weight"]), "bn1")
        x = norm(conv(x, s["layer1.0.conv1.weight"]), "layer1.0.bn1")
        x = norm(conv(x, s["layer1.0.conv2.weight"], 2), "layer1.0.bn2")
        logits.append(s["fc.weight"][0] @ x.mean(axis=(1, 2)) + s["fc.bias"][0])
    return np.array(logits)


@pytest.mark.parametrize("kind", ["raw", "npr", "right_diag"])
def test_logits_are_those_of_the_formula(weights, kind):
    shown = pictures(1, 256, seed=4)
    expected = _formula(shown, kind)
    np.testing.assert_allclose(_gate(weights, front=kind).predict(shown), expected, rtol=1e-4, atol=1e-5)


def test_each_cell_of_the_map_sees_five_pixels(weights):
    gate, shown = _gate(weights, front="raw"), pictures(1, 256, seed=4)
    touched = shown.copy()
    touched[0, 101, 60] = 255 - touched[0, 101, 60]
    rows, columns = np.nonzero((gate.maps(shown) != gate.maps(touched))[0])
    assert {2 * r + 2 - 101 for r in rows} <= {-2, -1, 0, 1, 2}
    assert {2 * c + 2 - 60 for c in columns} <= {-2, -1, 0, 1, 2}
    assert len(rows)


def test_nine_patches_cover_the_map():
    maps = np.zeros((1, 126, 126))
    maps[0, 42:84, 84:] = 3.0
    patches = TinyGate.patches(maps)[0]
    assert patches.tolist() == pytest.approx([0.5] * 5 + [1 / (1 + np.exp(-3))] + [0.5] * 3)


def test_features_are_statistics_over_the_faces_means(weights):
    gate, shown = _gate(weights), pictures(4, 256, seed=6)
    view = View.of(shown, np.arange(4.0), np.array([[0, 0, 60, 60]] * 4, np.float32))
    features = gate.assess(Clip(views={NEED.key: view}, duration_s=4.0)).features
    means = gate.patches(gate.maps(shown)).mean(axis=1)
    expected = {
        "tiny_prob_mean": means.mean(),
        "tiny_prob_max": means.max(),
        "tiny_prob_p90": np.percentile(means, 90),
        "tiny_num_files": 4.0,
        "tiny_num_patches": 36.0,
    }
    assert features == pytest.approx(expected)


def test_a_clip_is_cleared_only_if_every_patch_is_below_the_calibrated_threshold(weights):
    shown = pictures(2, 256, seed=6)
    gate = _gate(weights)
    highest = float(gate.patches(gate.maps(shown)).max())
    boxes = np.tile(np.array([[0, 0, 90, 90]], np.float32), (2, 1))
    evidence = gate.assess(Clip(views={NEED.key: View.of(shown, np.arange(2.0), boxes)}, duration_s=2.0))
    assert not gate.cleared(evidence)
    assert _gate(weights, clear_below=str(highest + 1e-6)).cleared(evidence)
    assert not _gate(weights, clear_below=str(highest - 1e-6)).cleared(evidence)


def test_a_file_may_hold_the_bound_and_an_option_overrules_it(weights, tmp_path):
    path = tmp_path / "bound.safetensors"
    save_from(made("tiny_gate"), path, {"clear_below": "1"})
    evidence = Evidence(score=0.5, features={}, facts={HIGHEST_PATCH: 0.9})
    held, overruled = (
        TinyGate.load(WeightFile(path, "", {**weights.options, **said}), "cpu") for said in ({}, {"clear_below": "0.5"})
    )
    assert held.cleared(evidence)
    assert not overruled.cleared(evidence)


@pytest.mark.parametrize("options", [{"front": ""}, {"front": "sobel"}, {"scaling": "bgr"}, {"clear_below": "low"}])
def test_unknown_options_are_refused(weights, options):
    with pytest.raises(WorkerFault, match=r"weights\.toml"):
        _gate(weights, **options)


def test_bfloat16_moves_no_probability_by_more_than_two_hundredths(weights):
    shown = pictures(3, 256, seed=11)
    a, b = (g.patches(g.maps(shown)) for g in (_gate(weights), _gate(weights, "bfloat16")))
    assert np.abs(a - b).max() <= 2e-2


def test_pictures_of_another_size_are_an_error(weights):
    with pytest.raises(DetectorError, match="pictures must be"):
        _gate(weights).predict(pictures(1, 224))
