"""The bottleneck ResNet against torchvision's count and names, and onnxruntime on the exported graph."""

import copy
import warnings

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from clipwarden.models.backbones.resnet50 import ResNetShape, ResNetTrunk
from clipwarden.models.checkpoint import parameter_count, settle
from tests.networks import lively, pictures


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(50)
    return lively(ResNetTrunk(ResNetShape()), (_shown(4, 96),), nn.Linear(1, 1))


def _shown(count, size_px):
    return torch.from_numpy(pictures(count, size_px, seed=5)).permute(0, 3, 1, 2).float() / 64 - 2


def test_it_has_the_count_and_names_of_torchvisions():
    with torch.device("meta"):
        network = ResNetTrunk(ResNetShape())
    sizes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    assert parameter_count(network) == 25_557_032 - 2048 * 1000 - 1000 == 23_508_032
    assert len(sizes) == 320 - 2
    expected = {
        "conv1.weight": (64, 3, 7, 7),
        "bn1.running_var": (64,),
        "layer1.0.downsample.0.weight": (256, 64, 1, 1),
        "layer2.0.conv2.weight": (128, 128, 3, 3),
        "layer3.5.bn3.num_batches_tracked": (),
        "layer4.2.conv3.weight": (2048, 512, 1, 1),
    }
    assert {name: sizes[name] for name in expected} == expected


def test_the_sizes_are_read_off_a_file_that_holds_more():
    shape = ResNetShape(8, (2, 1, 3, 1))
    state = {f"backbone.{name}": tensor for name, tensor in ResNetTrunk(shape).state_dict().items()}
    assert ResNetShape.of({**state, "conv1.weight": torch.zeros(3, 3, 5, 5)}, "backbone.") == shape
    with pytest.raises(KeyError, match=r"backbone\.conv1\.weight"):
        ResNetShape.of({"conv1.weight": torch.zeros(3, 3, 5, 5)}, "backbone.")


def test_it_agrees_with_onnxruntime_on_the_exported_graph(network, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of the exporter that needs no package of its own
        torch.onnx.export(network, (_shown(1, 224),), tmp_path / "trunk.onnx", input_names=["pictures"], dynamo=False)
    session = onnxruntime.InferenceSession(tmp_path / "trunk.onnx", providers=["CPUExecutionProvider"])
    judging = copy.deepcopy(network)
    settle(judging, "cpu")
    for shown in _shown(3, 224).split(1):
        (reference,) = session.run(None, {"pictures": shown.numpy()})
        with torch.inference_mode():
            found = judging(shown).numpy()
        assert found.shape == (1, 2048)
        assert np.abs(found - reference).max() / np.abs(reference).max() < 1e-4
