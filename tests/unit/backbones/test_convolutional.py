"""The convolutional backbones against transformers' ResNet and against the papers' formulas in double precision."""

import copy
import re

import pytest
import torch
import torch.nn.functional as F
from transformers import ResNetConfig, ResNetModel

from clipwarden.models.backbones import efficientnet_b4, efficientnet_lite0
from clipwarden.models.backbones.efficientnet_b4 import EfficientNetB4
from clipwarden.models.backbones.efficientnet_lite0 import EfficientNetLite0, FrameLite0, start_from_imagenet
from clipwarden.models.backbones.resnet18 import ResNet18
from clipwarden.models.checkpoint import parameter_count, settle
from tests.networks import made

TOLERANCE = 1e-4


def _pictures(size=96):
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(3))


def _difference(found, reference):
    return float((found.double() - reference).abs().max() / reference.abs().max())


def _as_judged(network):
    judging = copy.deepcopy(network)
    settle(judging, "cpu")
    return judging


def _conv_norm(x, s, conv, norm, *, eps=1e-5, stride=1, padding=0, groups=1):
    x = F.conv2d(x, s[f"{conv}.weight"], None, stride, padding, 1, groups)
    scale = s[f"{norm}.weight"] / torch.sqrt(s[f"{norm}.running_var"] + eps)
    return (x - s[f"{norm}.running_mean"][:, None, None]) * scale[:, None, None] + s[f"{norm}.bias"][:, None, None]


def test_the_resnet_has_the_count_and_names_of_torchvisions():
    state = ResNet18().state_dict()
    assert parameter_count(ResNet18()) == 11_177_025
    assert len(state) == 122
    assert state["fc.weight"].shape == (1, 512)
    assert state["layer4.0.downsample.0.weight"].shape == (512, 256, 1, 1)
    assert {n.split(".")[0] for n in state} == {"conv1", "bn1", "layer1", "layer2", "layer3", "layer4", "fc"}


def _hub_resnet_name(name):
    """Where transformers keeps what torchvision calls `name`."""
    name = re.sub(r"^(conv1|bn1)\.", lambda m: f"embedder.embedder.{_PART[m[1]]}.", name)
    name = re.sub(r"^layer(\d)\.(\d)\.", lambda m: f"encoder.stages.{int(m[1]) - 1}.layers.{m[2]}.", name)
    name = re.sub(r"\.conv(\d)\.", lambda m: f".layer.{int(m[1]) - 1}.convolution.", name)
    name = re.sub(r"\.bn(\d)\.", lambda m: f".layer.{int(m[1]) - 1}.normalization.", name)
    return name.replace("downsample.0", "shortcut.convolution").replace("downsample.1", "shortcut.normalization")


_PART = {"conv1": "convolution", "bn1": "normalization"}


def test_the_resnet_agrees_with_transformers():
    network = made("frame_resnet18")
    config = ResNetConfig(embedding_size=64, hidden_sizes=[64, 128, 256, 512], depths=[2, 2, 2, 2], layer_type="basic")
    other = ResNetModel(config).double().eval()
    state = {_hub_resnet_name(n): t for n, t in network.state_dict().items() if not n.startswith("fc.")}
    other.load_state_dict(state)
    with torch.inference_mode():
        reference = other(_pictures().double()).pooler_output.flatten(1)
        assert _difference(_as_judged(network).embed(_pictures()), reference) < TOLERANCE
        assert _difference(network.embed(_pictures()), reference) < TOLERANCE


def test_a_resnet_of_one_channel_and_no_output_gives_its_embedding():
    network = ResNet18(channels=1, outputs=0).eval()
    assert not any(name.startswith("fc.") for name in network.state_dict())
    assert network(torch.zeros(1, 1, 80, 251)).shape == (1, 512)


def test_efficientnet_b4_has_the_count_and_names_of_timms():
    state = EfficientNetB4().state_dict()
    assert parameter_count(EfficientNetB4()) == 17_548_616
    expected = {
        "conv_stem.weight": (48, 3, 3, 3),
        "blocks.0.0.conv_dw.weight": (48, 1, 3, 3),
        "blocks.0.0.se.conv_reduce.weight": (12, 48, 1, 1),
        "blocks.0.1.conv_pw.weight": (24, 24, 1, 1),
        "blocks.1.0.conv_pw.weight": (144, 24, 1, 1),
        "blocks.2.3.conv_dw.weight": (336, 1, 5, 5),
        "blocks.5.7.se.conv_expand.bias": (1632,),
        "blocks.6.1.conv_pwl.weight": (448, 2688, 1, 1),
        "blocks.6.1.bn3.running_var": (448,),
        "conv_head.weight": (1792, 448, 1, 1),
        "bn2.weight": (1792,),
    }
    assert {name: tuple(state[name].shape) for name in expected} == expected


def _squeezed(x, s, name):
    means = x.mean(dim=(2, 3), keepdim=True)
    inner = F.conv2d(means, s[f"{name}.conv_reduce.weight"], s[f"{name}.conv_reduce.bias"])
    gates = F.conv2d(inner * torch.sigmoid(inner), s[f"{name}.conv_expand.weight"], s[f"{name}.conv_expand.bias"])
    return x * torch.sigmoid(gates)


def _b4_formula(x, s):
    def swish(x):
        return x * torch.sigmoid(x)

    x = swish(_conv_norm(x, s, "conv_stem", "bn1", stride=2, padding=1))
    for stage, (blocks, kernel, stride, expansion, _) in enumerate(efficientnet_b4.STAGES):
        for k in range(blocks):
            b, step = f"blocks.{stage}.{k}", stride if k == 0 else 1
            y = x if expansion == 1 else swish(_conv_norm(x, s, f"{b}.conv_pw", f"{b}.bn1"))
            norm, last, last_norm = ("bn1", "conv_pw", "bn2") if expansion == 1 else ("bn2", "conv_pwl", "bn3")
            y = _conv_norm(
                y, s, f"{b}.conv_dw", f"{b}.{norm}", stride=step, padding=(kernel - 1) // 2, groups=y.shape[1]
            )
            y = _conv_norm(_squeezed(swish(y), s, f"{b}.se"), s, f"{b}.{last}", f"{b}.{last_norm}")
            x = x + y if x.shape == y.shape else y
    return swish(_conv_norm(x, s, "conv_head", "bn2")).mean(dim=(2, 3))


def test_efficientnet_b4_agrees_with_the_formula():
    network = made("frame_efficientnet_b4").backbone
    state = {name: tensor.double() for name, tensor in network.state_dict().items()}
    with torch.inference_mode():
        reference = _b4_formula(_pictures().double(), state)
        assert _difference(_as_judged(network)(_pictures()), reference) < TOLERANCE


def test_efficientnet_lite0_has_the_names_of_its_public_file():
    state = EfficientNetLite0().state_dict()
    assert len(state) == 296 - 2  # the file has a classifier besides
    assert parameter_count(FrameLite0()) == 3_372_289
    expected = {
        "_conv_stem.weight": (32, 3, 3, 3),
        "_blocks.0._project_conv.weight": (16, 32, 1, 1),
        "_blocks.3._depthwise_conv.weight": (144, 1, 5, 5),
        "_blocks.15._bn2.running_mean": (320,),
        "_conv_head.weight": (1280, 320, 1, 1),
        "_bn1.weight": (1280,),
    }
    assert {name: tuple(state[name].shape) for name in expected} == expected


def _lite0_formula(x, s):
    def same(x, conv, norm, stride=1, groups=1):
        kernel = s[f"{conv}.weight"].shape[2]
        missing = [max((-(-side // stride) - 1) * stride + kernel - side, 0) for side in x.shape[2:]]
        x = F.pad(x, (missing[1] // 2, missing[1] - missing[1] // 2, missing[0] // 2, missing[0] - missing[0] // 2))
        return _conv_norm(x, s, conv, norm, eps=1e-3, stride=stride, groups=groups)

    x = same(x, "_conv_stem", "_bn0", 2).clamp(0, 6)
    index = 0
    for blocks, _, stride, expansion, _ in efficientnet_lite0.STAGES:
        for k in range(blocks):
            b = f"_blocks.{index}"
            y = x if expansion == 1 else same(x, f"{b}._expand_conv", f"{b}._bn0").clamp(0, 6)
            y = same(y, f"{b}._depthwise_conv", f"{b}._bn1", stride if k == 0 else 1, y.shape[1]).clamp(0, 6)
            y = same(y, f"{b}._project_conv", f"{b}._bn2")
            x, index = x + y if x.shape == y.shape else y, index + 1
    return same(x, "_conv_head", "_bn1").clamp(0, 6).mean(dim=(2, 3))


@pytest.mark.parametrize("size", [96, 97])
def test_efficientnet_lite0_agrees_with_the_formula(size):
    network = made("frame_efficientnet_lite0").backbone
    state = {name: tensor.double() for name, tensor in network.state_dict().items()}
    with torch.inference_mode():
        reference = _lite0_formula(_pictures(size).double(), state)
        assert _difference(_as_judged(network)(_pictures(size)), reference) < TOLERANCE


def test_a_backbone_starts_from_the_public_file_without_its_classes():
    published = {**made("frame_efficientnet_lite0").backbone.state_dict(), "_fc.weight": torch.zeros(1000, 1280)}
    network = EfficientNetLite0()
    start_from_imagenet(network, published)
    assert torch.equal(network._conv_head.weight, published["_conv_head.weight"])
    with pytest.raises(RuntimeError, match=r"Missing key.*_conv_stem"):
        start_from_imagenet(network, {n: t for n, t in published.items() if n != "_conv_stem.weight"})
