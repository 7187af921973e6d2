"""What each detector's whole network takes and gives, for programs that run it without this package.

A graph is the network from prepared input to logits; how the input is prepared is said in words and numbers that
travel with it. Networks that a detector runs in parts, so that nothing is computed twice, are one graph here.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, cast

import torch
from torch import Tensor, nn

from clipwarden.models.backbones.pictures import PictureInput
from clipwarden.shared.contracts import FrameNeed

EXAMPLES: Final[Mapping[str, int]] = {"columns": 64, "frames": 2, "height": 96, "width": 96}
"""Lengths at which the axes of any length are tried, beside the batch."""

_BLOCK_PX: Final = 32


@dataclass(frozen=True, slots=True)
class Port:
    """One tensor of a graph, float32; a word in `shape` is an axis of any length. `facts` say what it holds."""

    name: str
    shape: tuple[int | str, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def axes(self) -> dict[int, str]:
        """The axes of any length, by place."""
        return {place: axis for place, axis in enumerate(self.shape) if isinstance(axis, str)}

    def sample(self, batch: int, generator: torch.Generator, more: int = 0) -> Tensor:
        """Noise, in pictures coarse; axes of any length but the batch are `more` longer than their examples."""
        lengths = {"batch": batch, **{axis: length + more for axis, length in EXAMPLES.items()}}
        sizes = [lengths[n] if isinstance(n, str) else n for n in self.shape]
        if "colour" not in self.facts:
            return torch.randn(sizes, generator=generator)
        *outer, height, width = sizes
        coarse = torch.randn(1, math.prod(outer), height // _BLOCK_PX + 1, width // _BLOCK_PX + 1, generator=generator)
        return nn.functional.interpolate(coarse, (height, width), mode="bilinear").view(sizes)


@dataclass(frozen=True, slots=True)
class Graph:
    """A network with its inputs and its output; `sole` if it is all that its detector computes with, in one call."""

    network: nn.Module
    inputs: tuple[Port, ...]
    output: Port
    sole: bool = True

    def samples(self, batch: int, more: int = 0) -> tuple[Tensor, ...]:
        """One tensor for each input, the same on every call."""
        generator = torch.Generator().manual_seed(0)
        return tuple(port.sample(batch, generator, more) for port in self.inputs)


def graph_of(name: str, detector: Any) -> Graph:
    """The graph of a loaded detector. KeyError if it has no network."""
    return _GRAPHS[name](detector)


def network_of(detector: Any) -> nn.Module:
    """The network of a loaded detector; every detector keeps it under one name."""
    return cast("nn.Module", vars(detector)["_network"])


class _SiglipSequences(nn.Module):
    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, frames: Tensor) -> Tensor:
        embeddings = self.network.embed(frames.flatten(0, 1))
        return cast("Tensor", self.network.judge_sequences(embeddings.view(*frames.shape[:2], -1)))


class _FaceSequences(nn.Module):
    """A frame network and a BiLSTM as one: the mean over time of the logits by step."""

    def __init__(self, backbone: Any, network: Any) -> None:
        super().__init__()
        self.backbone, self.lstm, self.fc = backbone, network.lstm, network.fc

    def forward(self, faces: Tensor) -> Tensor:
        embeddings = self.backbone.embed(faces.flatten(0, 1)).float()
        steps, _ = self.lstm(embeddings.view(*faces.shape[:2], -1))
        return cast("Tensor", self.fc(steps)).squeeze(2).mean(dim=1)


def _seen(taken: PictureInput, what: str, need: FrameNeed | None = None) -> dict[str, Any]:
    """What a picture has to be; `need` says how it is cut out of a frame and scaled, as `FrameNeed` has it."""
    cut = {"view": need.view, "margin": need.margin, "resize": need.kernel.value} if need else {}
    return {
        **cut,
        "holds": f"{what}, {taken.size_px} x {taken.size_px} pixels",
        "colour": "RGB",
        "range": "0 to 1, then less mean, divided by std",
        "mean": taken.mean,
        "std": taken.std,
    }


def _logits(shape: tuple[int | str, ...], *labels: str) -> Port:
    """Of two labels the softmax gives probabilities, of one the logistic."""
    return Port("logits", shape, {"holds": "logits", "labels": labels})


_REAL_FAKE: Final = _logits(("batch", 2), "real", "fake")
_FAKE: Final = _logits(("batch",), "fake")
_FAKE_COLUMN: Final = _logits(("batch", 1), "fake")
_ANY_SIZE: Final = ("height", "width")


def _of_faces(
    detector: Any, taken: PictureInput, output: Port, size: tuple[int | str, int | str] | None = None
) -> Graph:
    shape = ("batch", 3, *(size or (taken.size_px, taken.size_px)))
    port = Port("pictures", shape, _seen(taken, "a face each", detector.spec.needs.frames))
    return Graph(network_of(detector), (port,), output)


def _forensic_mlp(detector: Any) -> Graph:
    from clipwarden.models.visual.forensic_features import FEATURES, HEAVY_TAILED

    facts = {"holds": "hand-made features of a face", "features": FEATURES, "log1p": HEAVY_TAILED}
    return Graph(network_of(detector), (Port("features", ("batch", len(FEATURES)), facts),), _REAL_FAKE)


def _cqcc_cnn(detector: Any) -> Graph:
    from clipwarden.models.audio.cqcc import ROWS
    from clipwarden.models.audio.cqt import HOP, SAMPLE_RATE_HZ

    facts = {
        "holds": "CQCC with slopes and curvatures, at least 16 columns",
        "sample_rate_hz": SAMPLE_RATE_HZ,
        "hop": HOP,
    }
    return Graph(network_of(detector), (Port("rows", ("batch", ROWS, "columns"), facts),), _FAKE)


def _mel_resnet18(detector: Any) -> Graph:
    from clipwarden.models.audio.mel import HOP, MELS, SAMPLE_RATE_HZ
    from clipwarden.models.audio.mel_resnet18 import COLUMNS

    facts = {
        "holds": "four seconds of log-mel in dB, 0 the loudest",
        "sample_rate_hz": SAMPLE_RATE_HZ,
        "hop": HOP,
        "range": "-80 to 0",
    }
    return Graph(network_of(detector), (Port("windows", ("batch", 1, MELS, COLUMNS), facts),), _REAL_FAKE)


def _speech_stats(detector: Any) -> Graph:
    from clipwarden.models.audio.statistics import COUNT, RATE_HZ

    facts = {"holds": "hand-made statistics of eight seconds of speech", "sample_rate_hz": RATE_HZ}
    return Graph(network_of(detector), (Port("numbers", ("batch", COUNT), facts),), _FAKE)


def _tiny_gate(detector: Any) -> Graph:
    from clipwarden.models.visual.tiny_gate import INPUTS, GateOptions

    options = cast("GateOptions", vars(detector)["_options"])
    facts = {
        **_seen(INPUTS[options.scaling], "a face each, filtered", detector.spec.needs.frames),
        "filter": options.front,
    }
    output = _logits(("batch", "rows", "columns"), "fake")
    return Graph(network_of(detector), (Port("filtered", ("batch", 3, "height", "width"), facts),), output)


def _frame_resnet18(detector: Any) -> Graph:
    from clipwarden.models.visual.frame_resnet18 import INPUT

    return _of_faces(detector, INPUT, _FAKE_COLUMN, _ANY_SIZE)


def _frame_efficientnet_lite0(detector: Any) -> Graph:
    from clipwarden.models.backbones.efficientnet_lite0 import INPUT

    return _of_faces(detector, INPUT, _FAKE_COLUMN)


def _frame_stats(detector: Any) -> Graph:
    from clipwarden.models.backbones.efficientnet_lite0 import INPUT

    return _of_faces(detector, INPUT, _FAKE)


def _frame_efficientnet_b4(detector: Any) -> Graph:
    from clipwarden.models.visual.frame_efficientnet_b4 import INPUT

    return _of_faces(detector, INPUT, _REAL_FAKE, _ANY_SIZE)


def _frame_vit(detector: Any) -> Graph:
    from clipwarden.models.visual.frame_vit import INPUT

    return _of_faces(detector, INPUT, _REAL_FAKE)


def _temporal_bilstm(detector: Any) -> Graph:
    from clipwarden.models.backbones.embedders import FrameEmbedder

    backbone = cast("FrameEmbedder", vars(detector)["_backbone"])
    taken = cast("PictureInput", vars(backbone)["_taken"])
    whole = _FaceSequences(network_of(backbone), network_of(detector)).eval()
    shape = ("batch", "frames", 3, taken.size_px, taken.size_px)
    facts = _seen(taken, "faces of one person in order of time", detector.spec.needs.frames)
    return Graph(whole, (Port("faces", shape, facts),), _FAKE, sole=False)


def _temporal_3dcnn(detector: Any) -> Graph:
    from clipwarden.models.visual.temporal_3dcnn import FRAMES, INPUT

    facts = _seen(INPUT, "whole frames spread over a clip, in order of time", detector.spec.needs.frames)
    port = Port("clips", ("batch", 3, FRAMES, "height", "width"), facts)
    return Graph(network_of(detector), (port,), _logits(("batch", 2), "consistent", "inconsistent"))


def _siglip_lstm(detector: Any) -> Graph:
    from clipwarden.models.visual.siglip_lstm import INPUT

    facts = _seen(INPUT, "120 whole frames spread over a clip, in order of time", detector.spec.needs.frames)
    port = Port("frames", ("batch", "frames", 3, INPUT.size_px, INPUT.size_px), facts)
    return Graph(_SiglipSequences(network_of(detector)).eval(), (port,), _FAKE, sole=False)


def _clip_adapter(detector: Any) -> Graph:
    from clipwarden.models.clip.adapters import FRAMES
    from clipwarden.models.clip.clip_adapter import INPUT

    facts = _seen(INPUT, "whole frames spread over a clip, in order of time", detector.spec.needs.frames)
    port = Port("clips", ("batch", FRAMES, 3, INPUT.size_px, INPUT.size_px), facts)
    return Graph(network_of(detector), (port,), _REAL_FAKE, sole=False)


def _av_sync(detector: Any) -> Graph:
    from clipwarden.models.audio.mel import HOP, MELS, SAMPLE_RATE_HZ
    from clipwarden.models.lipsync.av_sync import INPUT
    from clipwarden.models.lipsync.towers import COLUMNS, FRAMES

    seen = _seen(INPUT, "neighbouring frames of a mouth", detector.spec.needs.frames)
    mouths = Port("mouths", ("batch", 3, FRAMES, INPUT.size_px, INPUT.size_px), seen)
    facts = {"holds": "log-mel of the mouths' time", "sample_rate_hz": SAMPLE_RATE_HZ, "hop": HOP, "range": "-1 to 1"}
    sounds = Port("sounds", ("batch", 1, MELS, COLUMNS), facts)
    return Graph(network_of(detector), (mouths, sounds), _logits(("batch",), "in_sync"), sole=False)


def _av_sync_seed(detector: Any) -> Graph:
    from clipwarden.models.lipsync.av_sync_seed import WIDTH

    facts = {"holds": "mean embeddings end to end: faces, then sound"}
    return Graph(network_of(detector), (Port("embeddings", ("batch", WIDTH), facts),), _logits(("batch",), "in_sync"))


def _lipfd_fixed(detector: Any) -> Graph:
    from clipwarden.models.lipsync.lipfd_fixed import LOOKED_AT, SEEN

    return _windows(detector, _seen(SEEN, _WINDOW), _seen(LOOKED_AT, _CROPS))


def _lipfd(detector: Any) -> Graph:
    taken = {"colour": "BGR", "range": "0 to 255, not normalised"}
    return _windows(detector, {"holds": _WINDOW, **taken}, {"holds": _CROPS, **taken})


_WINDOW: Final = "sound in false colours above five frames in a row"
_CROPS: Final = "of each of the five frames: the whole, the face, the lips"


def _windows(detector: Any, pictures: Mapping[str, Any], crops: Mapping[str, Any]) -> Graph:
    from clipwarden.models.lipsync.lipfd_input import CROP_PX, JOINED_PX

    whole = Port("pictures", ("batch", 3, JOINED_PX, JOINED_PX), pictures)
    parts = Port("crops", ("batch", "frames", 3, 3, CROP_PX, CROP_PX), crops)
    return Graph(network_of(detector), (whole, parts), _FAKE, sole=False)


_GRAPHS: Final[Mapping[str, Callable[[Any], Graph]]] = {
    "forensic_mlp": _forensic_mlp,
    "cqcc_cnn": _cqcc_cnn,
    "mel_resnet18": _mel_resnet18,
    "speech_stats": _speech_stats,
    "tiny_gate": _tiny_gate,
    "frame_resnet18": _frame_resnet18,
    "frame_efficientnet_b4": _frame_efficientnet_b4,
    "frame_efficientnet_lite0": _frame_efficientnet_lite0,
    "frame_stats": _frame_stats,
    "frame_vit": _frame_vit,
    "temporal_bilstm": _temporal_bilstm,
    "temporal_3dcnn": _temporal_3dcnn,
    "siglip_lstm": _siglip_lstm,
    "av_sync": _av_sync,
    "av_sync_seed": _av_sync_seed,
    "lipfd": _lipfd,
    "lipfd_fixed": _lipfd_fixed,
    "clip_adapter": _clip_adapter,
}
NAMES: Final = tuple(_GRAPHS)
