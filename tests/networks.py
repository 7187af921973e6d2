"""Weights for detectors that ship none: random, from a seed, and such that every layer matters.

Statistics of batch norm are those of the sample, and the last layer is scaled so that the sample's logits span ±4: a
network with vanishing activations would agree with anything.
"""

import copy
import json
import tomllib
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from clipwarden.models.audio.mel import log_mel
from clipwarden.models.audio.mel_resnet18 import MelNetwork
from clipwarden.models.audio.speech_stats import SpeechDiscriminant
from clipwarden.models.audio.statistics import describe
from clipwarden.models.backbones.clip import ClipShape
from clipwarden.models.backbones.discriminant import Discriminant
from clipwarden.models.backbones.efficientnet_lite0 import INPUT, FrameLite0
from clipwarden.models.backbones.pictures import infer
from clipwarden.models.backbones.resnet18 import ResNet18
from clipwarden.models.backbones.resnet50 import ResNetShape
from clipwarden.models.backbones.siglip import SiglipShape
from clipwarden.models.backbones.siglip_lstm import SiglipLstmNetwork, SiglipLstmShape
from clipwarden.models.backbones.vit import VitClassifier, VitShape
from clipwarden.models.checkpoint import save_from
from clipwarden.models.clip.adapters import ClipAdapterNetwork
from clipwarden.models.lipsync.av_sync_seed import SyncHead
from clipwarden.models.lipsync.lipfd_network import LipFdNetwork, LipFdShape
from clipwarden.models.lipsync.towers import SyncNetwork
from clipwarden.models.visual.frame_efficientnet_b4 import FrameB4Network
from clipwarden.models.visual.frame_stats import COUNT, stage_statistics
from clipwarden.models.visual.temporal_3dcnn import Temporal3dNetwork
from clipwarden.models.visual.temporal_bilstm import BiLstmNetwork
from clipwarden.models.visual.tiny_gate import TinyNetwork
from clipwarden.models.weights import WeightFile, file_digest
from tests.media import speech

SPAN = 4.0
SPARSE = 1.0
"""Spreads that the last batch norm is shifted down, so that embeddings differ as much as those of trained networks."""

TINY_VIT = VitShape(patch_px=56, width=64, layers=2, heads=4, inner=128)
TINY_CLIP = ClipShape(patch_px=56, grid=4, width=128, layers=5, inner=256)
TINY_LIPFD = LipFdShape(ClipShape(56, 4, 128, 2, 256, embedding=64), ResNetShape(8, (1, 1, 1, 1)))
TINY_SIGLIP = SiglipShape(patch_px=56, patches=16, width=128, layers=2, inner=256)


def pictures(count: int, size_px: int, seed: int = 0) -> NDArray[np.uint8]:
    """Coloured waves and a rectangle under grain, coarse or fine, no two pictures alike; (count, size, size, 3)."""
    rng = np.random.default_rng(seed)
    return np.stack([_picture(rng, size_px) for _ in range(count)])


def _picture(rng: np.random.Generator, size_px: int) -> NDArray[np.uint8]:
    across = np.linspace(0, 1, size_px)[:, None]
    waves, phases = np.exp(rng.uniform(0, 5, (2, 3))), rng.uniform(0, 6, (2, 3))
    y, x = (np.sin(waves[k] * across + phases[k]) for k in range(2))
    levels = rng.uniform(60, 200, 3) + rng.uniform(10, 90) * y[:, None] * x[None]
    top, left = rng.integers(0, size_px // 2, 2)
    levels[top : top + size_px // 3, left : left + size_px // 3] += rng.uniform(-120, 120, 3)
    return np.clip(levels + rng.normal(0, rng.uniform(1, 25), levels.shape), 0, 255).astype(np.uint8)


def lively(network: nn.Module, sample: tuple[Tensor, ...], last: nn.Linear) -> nn.Module:
    """The network with random parameters, normed on a sample, its logits on it spanning ±4; in eval mode."""
    for name, parameter in network.named_parameters():
        if parameter.dim() == 1 and "norm" not in name:
            parameter.data += torch.randn_like(parameter) * 0.1
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            module.momentum = 1.0
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d)]
    with torch.no_grad():
        if norms:
            norms[-1].bias -= SPARSE
        network.train()
        network(*sample)
        logits = network.eval()(*sample)
        scale = SPAN / max(float((logits - logits.mean()).abs().max()), 1e-6)
        last.weight *= scale
        last.bias.copy_((last.bias - logits.mean()) * scale)
    return network


def _seen(size_px: int, count: int = 6) -> tuple[Tensor, ...]:
    """Pictures as a network takes them."""
    levels = pictures(count, size_px, seed=77)
    return (torch.from_numpy(levels).permute(0, 3, 1, 2).float() / 64 - 2,)


@cache
def made(name: str) -> nn.Module:
    """The network of a detector, tiny where its shape may vary."""
    torch.manual_seed(sum(name.encode()))
    return _MAKERS[name]()


def _resnet() -> nn.Module:
    network = ResNet18()
    return lively(network, _seen(224), network.fc)


def _lite0() -> nn.Module:
    network = FrameLite0()
    return lively(network, _seen(224), network.head)


def _frame_stats() -> nn.Module:
    network = Discriminant(COUNT)
    numbers = torch.from_numpy(infer(stage_statistics("cpu"), INPUT, pictures(6, 224, seed=77), 6))
    network.scaler_mean.copy_(numbers.mean(dim=0))
    network.scaler_scale.copy_(numbers.std(dim=0) + 1e-3)
    return lively(network, (numbers,), network.fc)


def _b4() -> nn.Module:
    """With steep norms: over 32 layers the middle of SiLU, nearly a line, would level what tells pictures apart."""
    network = FrameB4Network()
    for norm in (module for module in network.modules() if isinstance(module, nn.BatchNorm2d)):
        nn.init.constant_(norm.weight, 1.5)
    return lively(network, _seen(224), network.classifier[4])


def _vit() -> nn.Module:
    network = VitClassifier(TINY_VIT)
    for parameter in (network.vit.embeddings.cls_token, network.vit.embeddings.position_embeddings):
        nn.init.normal_(parameter, std=0.3)
    return lively(network, _seen(224), network.classifier)


def _tiny() -> nn.Module:
    network = TinyNetwork()
    return lively(network, _seen(256), network.fc)


def _3dcnn() -> nn.Module:
    network = Temporal3dNetwork()
    clips = _seen(64, 2)[0].repeat_interleave(16, dim=0).view(2, 16, 3, 64, 64).transpose(1, 2)
    return lively(network, (clips,), network.classifier[4])


def _bilstm() -> nn.Module:
    network = BiLstmNetwork()
    return lively(network, (torch.rand(4, 6, 512), torch.tensor([6, 6, 6, 6])), network.fc)


def _mel() -> nn.Module:
    network = MelNetwork()
    windows = np.stack([log_mel(speech(4, seed) / np.float32(32768)) for seed in range(4)])
    return lively(network, (torch.from_numpy(windows).unsqueeze(1),), network.get_submodule("classifier")[3])


def _stats() -> nn.Module:
    network = SpeechDiscriminant()
    numbers = torch.from_numpy(np.stack([describe(speech(3, seed) / np.float32(32768)) for seed in range(4)]))
    tamed = numbers.sign() * numbers.abs().log1p()
    network.scaler_mean.copy_(tamed.mean(dim=0))
    network.scaler_scale.copy_(tamed.std(dim=0) + 1e-3)
    return lively(network, (numbers,), network.fc)


def siglip_lstm(head: int, hidden: int = 32) -> SiglipLstmNetwork:
    """A small network of V1 and V3 (`head` 0) or of V4."""
    torch.manual_seed(head)
    network = SiglipLstmNetwork(SiglipLstmShape(TINY_SIGLIP, hidden, head)).eval()
    for name, parameter in network.named_parameters():
        if "probe" in name or "bias" in name:
            nn.init.normal_(parameter, std=0.2)
    for last in (network.video_classifier, network.image_classifier):
        (last[3] if head else last).weight.data *= 8
    return network


def clip_adapter() -> ClipAdapterNetwork:
    """A small network whose adapters add something, in eval mode."""
    torch.manual_seed(14)
    network = ClipAdapterNetwork(TINY_CLIP)
    for adapter in network.adapters.parameters():
        nn.init.normal_(adapter, std=0.15)
    with torch.no_grad():
        for name, parameter in network.tower.named_parameters():
            if parameter.dim() == 1 or "embedding" in name:
                parameter.add_(torch.randn_like(parameter), alpha=0.3)
    clips = torch.stack([_seen(384, 12)[0].roll(k * 3, dims=0) * (1 - k / 4) for k in range(3)])
    lively(network, (clips,), network.head[3])
    return network


def lipfd(raw: bool) -> LipFdNetwork:
    """Two small networks and the heads over them, in eval mode, for normalised levels or `raw` ones from 0 to 255."""
    torch.manual_seed(16)
    network = LipFdNetwork(TINY_LIPFD)
    pictures, crops = (_seen(size_px, count)[0] for size_px, count in ((560, 4), (96, 60)))
    if raw:
        pictures, crops = ((levels + 2) * 64 for levels in (pictures, crops))
        network.conv1.weight.data /= 64
    with torch.no_grad():
        for parameter in network.encoder.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter), alpha=0.3)
    sample = pictures.repeat(1, 1, 2, 2), crops.view(4, 5, 3, 3, 96, 96)
    lively(network, sample, network.backbone.fc)
    return network


@torch.no_grad()
def telling(network: LipFdNetwork, windows: tuple[Tensor, Tensor]) -> LipFdNetwork:
    """A copy whose last layer reads, as a trained one does, directions in which these windows differ; logits in ±4."""
    copied, seen = copy.deepcopy(network), []
    hook = copied.backbone.fc.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    copied(*windows)
    hook.remove()
    centred = seen[0] - seen[0].mean(dim=0)
    head = centred.T @ torch.randn(len(centred), generator=torch.Generator().manual_seed(2))
    head *= SPAN / (centred @ head).abs().max()
    copied.backbone.fc.weight.copy_(head)
    copied.backbone.fc.bias.copy_(-seen[0].mean(dim=0) @ head)
    return copied


def av_sync() -> SyncNetwork:
    """The two towers, their cosines spread to ±4."""
    torch.manual_seed(15)
    network = SyncNetwork().eval()
    nn.init.constant_(network.scorer.scale, SPAN)
    return network


def _av_sync_seed() -> nn.Module:
    network = SyncHead()
    return lively(network, (torch.randn(16, 768),), network.net[6])


_MAKERS: dict[str, Callable[[], nn.Module]] = {
    "tiny_gate": _tiny,
    "frame_resnet18": _resnet,
    "frame_efficientnet_b4": _b4,
    "frame_efficientnet_lite0": _lite0,
    "frame_stats": _frame_stats,
    "frame_vit": _vit,
    "temporal_bilstm": _bilstm,
    "temporal_3dcnn": _3dcnn,
    "mel_resnet18": _mel,
    "speech_stats": _stats,
    "siglip_lstm": lambda: siglip_lstm(head=24),
    "clip_adapter": clip_adapter,
    "lipfd": lambda: lipfd(raw=True),
    "lipfd_fixed": lambda: lipfd(raw=False),
    "av_sync": av_sync,
    "av_sync_seed": _av_sync_seed,
}
OPTIONS = {
    "tiny_gate": {"front": "npr", "scaling": "imagenet"},
    "temporal_bilstm": {"backbone": "frame_resnet18"},
    "lipfd": {"profile": "original"},
    "lipfd_fixed": {"profile": "fixed"},
}


def write_weights(name: str, folder: Path) -> WeightFile:
    """The network of `made` as an installed file, with everything beside it that its detector reads."""
    path = folder / name / "model.safetensors"
    path.parent.mkdir(exist_ok=True)
    backbone = write_weights(OPTIONS[name]["backbone"], folder) if "backbone" in OPTIONS.get(name, {}) else None
    profile = {key: value for key, value in OPTIONS.get(name, {}).items() if key == "profile"}
    save_from(made(name), path, {"backbone": backbone.digest} if backbone else profile)
    if name == "frame_vit":
        write_vit_config(path.parent / "config.json")
    return WeightFile(path, file_digest(path), OPTIONS.get(name, {}), backbone)


def write_vit_config(path: Path, **changed: object) -> None:
    """config.json of the tiny ViT as the hub's library writes it, as far as it is read."""
    facts = {
        "id2label": {"0": "Real", "1": "Fake"},
        "image_size": 224,
        "patch_size": TINY_VIT.patch_px,
        "hidden_size": TINY_VIT.width,
        "num_hidden_layers": TINY_VIT.layers,
        "num_attention_heads": TINY_VIT.heads,
        "intermediate_size": TINY_VIT.inner,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
    }
    path.write_text(json.dumps({**facts, **changed}), "utf-8")


def write_manifest(path: Path, names: AbstractSet[str]) -> Path:
    """A weights.toml that brings these detectors and their backbones, the files beside it; those there are used."""
    wanted = {*names, *(OPTIONS[name]["backbone"] for name in names if "backbone" in OPTIONS.get(name, {}))}
    found = {name: _written(name, path.parent) for name in sorted(wanted)}
    tables = [
        f'[{name}]\nfile = "{weights.path.relative_to(path.parent)}"\nsha256 = "{weights.digest}"\n'
        for name, weights in found.items()
    ]
    path.write_text("\n".join(tables), "utf-8")
    return path


def digests_of(manifest: Path) -> dict[str, str]:
    """What `write_manifest` wrote: the digest of each detector's file."""
    return {name: table["sha256"] for name, table in tomllib.loads(manifest.read_text("utf-8")).items()}


def _written(name: str, folder: Path) -> WeightFile:
    path = folder / name / "model.safetensors"
    return WeightFile(path, file_digest(path)) if path.exists() else write_weights(name, folder)
