"""Detectors that judge face by face: their files, their numbers, their types."""

import numpy as np
import pytest
import torch

from clipwarden.models.backbones import efficientnet_lite0
from clipwarden.models.checkpoint import parameter_count, save_from
from clipwarden.models.detector import detector_class
from clipwarden.models.visual.frame_efficientnet_b4 import FrameB4Network, FrameEfficientNetB4
from clipwarden.models.visual.frame_resnet18 import FrameResNet18
from clipwarden.models.visual.frame_vit import FrameVit
from clipwarden.models.weights import WeightFile
from clipwarden.shared.clip import Clip, View
from clipwarden.shared.errors import DetectorError, WorkerFault
from tests.networks import made, pictures, write_vit_config, write_weights

FRAME_DETECTORS = ("frame_resnet18", "frame_efficientnet_b4", "frame_efficientnet_lite0", "frame_vit")
IMAGENET = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
SEEN = {
    "frame_resnet18": lambda x: (x / 255 - IMAGENET[0]) / IMAGENET[1],
    "frame_efficientnet_b4": lambda x: (x / 255 - IMAGENET[0]) / IMAGENET[1],
    "frame_efficientnet_lite0": lambda x: (x - 127) / 128,
    "frame_vit": lambda x: x / 127.5 - 1,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("weights")


@pytest.fixture(scope="module", params=FRAME_DETECTORS)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def detector(name, folder):
    return detector_class(name).load(write_weights(name, folder), "cpu")


def test_logits_are_those_of_the_whole_network_in_double_precision(name, detector):
    shown = pictures(3, 224, seed=8)
    seen = torch.from_numpy(SEEN[name](shown.astype(np.float64)).transpose(0, 3, 1, 2))
    network = made(name)
    embed = network.double().embed
    head = {"frame_resnet18": "fc", "frame_efficientnet_lite0": "head"}.get(name, "classifier")
    try:
        with torch.inference_mode():
            logits = getattr(network, head)(embed(seen)).numpy()
    finally:
        network.float()
    expected = logits[:, 0] if logits.shape[1] == 1 else logits[:, 1] - logits[:, 0]
    np.testing.assert_allclose(detector.predict(shown), expected, atol=1e-4 * np.abs(expected).max())


def test_faces_of_several_clips_share_a_batch(detector):
    shown = pictures(3, 224, seed=9)
    apart = np.concatenate([detector.predict(shown[k : k + 1]) for k in range(3)])
    np.testing.assert_allclose(detector.predict(shown), apart, atol=1e-4 * np.abs(apart).max())


def test_pictures_of_another_size_are_an_error(detector):
    with pytest.raises(DetectorError, match="pictures must be"):
        detector.predict(pictures(1, 112))


def test_evidence_has_one_window_per_face(name, detector):
    shown, need = pictures(3, 224, seed=8), detector.spec.needs.frames
    view = View.of(shown, np.array([0.0, 1.0, 2.0]), np.array([[0, 0, 90, 90]] * 3, np.float32))
    evidence = detector.assess(Clip(views={need.key: view}, duration_s=3.0))
    logits = detector.predict(shown)
    assert [w.score for w in evidence.windows] == pytest.approx((1 / (1 + np.exp(-logits))).tolist())
    assert evidence.score == pytest.approx(1 / (1 + np.exp(-logits.mean())))
    assert ("visual_num_faces" in evidence.features) == (name == "frame_resnet18")


def test_the_5_way_pipelines_own_layout_loads(folder):
    path = folder / "visual_v0_resnet18_best.pth"
    torch.save({f"module.{n}": t for n, t in made("frame_resnet18").state_dict().items()}, path)
    shown = pictures(1, 224)
    expected = FrameResNet18.load(write_weights("frame_resnet18", folder), "cpu").predict(shown)
    found = FrameResNet18.load(WeightFile(path, "sha256:0"), "cpu").predict(shown)
    np.testing.assert_array_equal(found, expected)


def test_b4_takes_the_hidden_width_of_its_file(tmp_path):
    network = FrameB4Network(hidden=256).eval()
    torch.save({"epoch": 1, "model_state_dict": network.state_dict(), "val_auc": 0.5}, tmp_path / "draft.pt")
    detector = FrameEfficientNetB4.load(WeightFile(tmp_path / "draft.pt", "sha256:0"), "cpu")
    assert np.isfinite(detector.predict(pictures(1, 224))).all()
    assert parameter_count(made("frame_efficientnet_b4")) == FrameEfficientNetB4.spec.parameters == 18_467_658


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"id2label": {"0": "Fake", "1": "Real"}}, "labels must be"),
        ({"id2label": {"0": "real", "1": "deepfake"}}, "labels must be"),
        ({"id2label": {"0": "Real", "1": "Fake", "2": "Art"}}, "labels must be"),
        ({"image_size": 384}, "not that of a ViT"),
        ({"hidden_act": "gelu_new"}, "not that of a ViT"),
        ({"num_attention_heads": 3}, "no multiple"),
        ({"num_hidden_layers": 3}, r"missing vit\.encoder\.layer\.2"),
    ],
)
def test_a_vit_with_other_labels_or_another_shape_is_refused(tmp_path, changed, why):
    weights = write_weights("frame_vit", tmp_path)
    write_vit_config(weights.path.parent / "config.json", **changed)
    with pytest.raises(WorkerFault, match=why):
        FrameVit.load(weights, "cpu")


def test_a_vit_without_its_config_is_refused(tmp_path):
    weights = write_weights("frame_vit", tmp_path)
    (weights.path.parent / "config.json").unlink()
    with pytest.raises(WorkerFault, match=r"config\.json beside the weights is missing"):
        FrameVit.load(weights, "cpu")


def test_weights_of_one_detector_do_not_load_into_another(tmp_path):
    save_from(made("frame_resnet18"), tmp_path / "a.safetensors", {})
    for name in set(FRAME_DETECTORS) - {"frame_resnet18", "frame_vit"}:
        with pytest.raises(WorkerFault, match="do not fit"):
            detector_class(name).load(WeightFile(tmp_path / "a.safetensors", "sha256:0"), "cpu")


def test_lite0_keeps_its_sensitive_layers_in_float32(folder):
    detector = detector_class("frame_efficientnet_lite0").load(
        write_weights("frame_efficientnet_lite0", folder), "cpu", "bfloat16"
    )
    kept = {n for n, p in detector._network.named_parameters() if p.dtype is torch.float32}
    assert any(n.endswith("_depthwise_conv.weight") for n in kept)
    assert "backbone._blocks.9._expand_conv.weight" not in kept
    assert efficientnet_lite0.IN_FLOAT32[0] == "head"
