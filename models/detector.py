"""What a detector is, and the one table of all of them.

A detector is a spec, `load`, `assess` and `predict`: it opens no file but its weights, logs nothing and decides no
label.
Adding one: its file, its line in DETECTORS, its card in `cards/`, its entry in `weights.toml`.
"""

from importlib import import_module
from typing import Any, ClassVar, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from clipwarden.models.weights import WeightFile
from clipwarden.shared.clip import Clip
from clipwarden.shared.contracts import Branch, Dtype, Evidence, Needs

DETECTORS: dict[str, str] = {
    "forensic_mlp": "clipwarden.models.visual.forensic_mlp:ForensicMlp",
    "cqcc_cnn": "clipwarden.models.audio.cqcc_cnn:CqccCnn",
    "mel_resnet18": "clipwarden.models.audio.mel_resnet18:MelResNet18",
    "speech_stats": "clipwarden.models.audio.speech_stats:SpeechStats",
    "tiny_gate": "clipwarden.models.visual.tiny_gate:TinyGate",
    "frame_resnet18": "clipwarden.models.visual.frame_resnet18:FrameResNet18",
    "frame_efficientnet_b4": "clipwarden.models.visual.frame_efficientnet_b4:FrameEfficientNetB4",
    "frame_efficientnet_lite0": "clipwarden.models.visual.frame_efficientnet_lite0:FrameEfficientNetLite0",
    "frame_stats": "clipwarden.models.visual.frame_stats:FrameStats",
    "frame_vit": "clipwarden.models.visual.frame_vit:FrameVit",
    "temporal_bilstm": "clipwarden.models.visual.temporal_bilstm:TemporalBiLstm",
    "temporal_3dcnn": "clipwarden.models.visual.temporal_3dcnn:Temporal3dCnn",
    "siglip_lstm": "clipwarden.models.visual.siglip_lstm:SiglipLstm",
    "lipfd": "clipwarden.models.lipsync.lipfd:LipFd",
    "lipfd_fixed": "clipwarden.models.lipsync.lipfd_fixed:LipFdFixed",
    "av_sync": "clipwarden.models.lipsync.av_sync:AvSync",
    "av_sync_seed": "clipwarden.models.lipsync.av_sync_seed:AvSyncSeed",
    "clip_adapter": "clipwarden.models.clip.clip_adapter:ClipAdapter",
}
"""Name → "module:class", imported on use, so that a pool never imports another pool's libraries."""


class DetectorSpec(BaseModel):
    """Facts about a detector that hold without its weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    version: str
    branch: Branch
    needs: Needs
    features: tuple[str, ...]
    parameters: int
    source: str


class Detector(Protocol):
    """Loaded weights that turn a clip into evidence."""

    spec: ClassVar[DetectorSpec]

    @classmethod
    def load(cls, weights: WeightFile, device: str, dtype: Dtype = "float32") -> Self:
        """Read verified weights onto `device` ("cpu", "cuda", "cuda:0"). Raises WorkerFault if they do not fit."""
        ...

    def assess(self, clip: Clip) -> Evidence:
        """Judge one clip. Raises NotApplicable if it has nothing to judge, DetectorError if it fails on it."""
        ...

    def predict(self, batch: Any) -> NDArray[np.float64]:
        """Logits of fake (N,) for N items, of one clip or several; each detector says what its items are."""
        ...


def detector_class(name: str) -> type[Detector]:
    """Import and return the class of a detector of the table. KeyError for a name that is not in it."""
    module, _, attribute = DETECTORS[name].partition(":")
    loaded: type[Detector] = getattr(import_module(module), attribute)
    return loaded
