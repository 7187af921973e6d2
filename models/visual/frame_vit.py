"""The vision transformer of single faces: does this face look made?

Loads what Hugging Face's ViTForImageClassification saves, from a local directory: the weights entry names its
`model.safetensors`, and `config.json` beside it gives the sizes and must give the labels as Real, then Fake (forks of
the public model have them the other way round). Made for `dima806/deepfake_vs_real_image_detection`.
"""

import json
from pathlib import Path
from typing import Any, ClassVar, Final, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from clipwarden.models.backbones.pictures import HALVES, PictureInput, infer
from clipwarden.models.backbones.vit import VitClassifier, VitShape
from clipwarden.models.checkpoint import load_into
from clipwarden.models.detector import DetectorSpec
from clipwarden.models.visual.scores import faces_of, per_picture
from clipwarden.models.weights import WeightFile
from clipwarden.shared.clip import Clip
from clipwarden.shared.contracts import Branch, Dtype, Evidence, FrameNeed, Kernel, Needs
from clipwarden.shared.errors import WorkerFault

NEED: Final = FrameNeed(view="face", count=16, size_px=224, margin=0.3, kernel=Kernel.PIL_BILINEAR)
INPUT: Final = PictureInput(224, *HALVES)
LABELS: Final = {"0": "Real", "1": "Fake"}
AT_ONCE: Final = 4


class _Config(BaseModel):
    """What is read of config.json; sizes are bounded so that a wrong file cannot ask for all memory."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id2label: dict[str, str]
    image_size: Literal[224]
    patch_size: int = Field(ge=8, le=112)
    hidden_size: int = Field(ge=1, le=2048)
    num_hidden_layers: int = Field(ge=1, le=48)
    num_attention_heads: int = Field(ge=1, le=64)
    intermediate_size: int = Field(ge=1, le=8192)
    hidden_act: Literal["gelu"]
    num_channels: Literal[3] = 3
    qkv_bias: Literal[True] = True
    layer_norm_eps: float = Field(default=1e-12, gt=0, le=1e-3)

    def shape(self) -> VitShape:
        return VitShape(
            image_px=self.image_size,
            patch_px=self.patch_size,
            width=self.hidden_size,
            layers=self.num_hidden_layers,
            heads=self.num_attention_heads,
            inner=self.intermediate_size,
            norm_epsilon=self.layer_norm_eps,
        )


class FrameVit:
    """Judges each of up to 16 faces by itself; says nothing about motion."""

    spec: ClassVar[DetectorSpec] = DetectorSpec(
        name="frame_vit",
        version="1",
        branch=Branch.VISUAL,
        needs=Needs(frames=NEED),
        features=("vit_prob_mean", "vit_prob_max", "vit_prob_p90"),
        parameters=85_800_194,
        source="dima806/deepfake_vs_real_image_detection on Hugging Face",
    )

    def __init__(self, network: VitClassifier) -> None:
        self._network = network

    @classmethod
    def load(cls, weights: WeightFile, device: str, dtype: Dtype = "float32") -> Self:
        """Raises WorkerFault if config.json is missing, of another network, or has other labels."""
        network = VitClassifier(_config(weights.path.parent / "config.json").shape())
        load_into(network, weights, device, dtype, keep=("classifier",))
        return cls(network)

    def assess(self, clip: Clip) -> Evidence:
        """Judge the faces. Raises NotApplicable if there is none, or none large enough."""
        view = faces_of(clip.view(NEED))
        return per_picture("vit", self.predict(view.images), view, clip.duration_s)

    def predict(self, batch: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Logits of fake (N,), fake less real, of RGB faces (N, 224, 224, 3)."""
        real, fake = infer(self._network, INPUT, batch, AT_ONCE).astype(np.float64).T
        return np.asarray(fake - real)


def _config(path: Path) -> _Config:
    try:
        found: Any = json.loads(path.read_text("utf-8"))
        config = _Config.model_validate(found)
    except (OSError, ValueError, ValidationError) as error:
        raise WorkerFault(f"{path.name} beside the weights is missing or not that of a ViT at 224: {error}") from error
    if config.id2label != LABELS:
        raise WorkerFault(f"labels must be {LABELS}, {path.name} has {config.id2label}")
    if config.hidden_size % config.num_attention_heads:
        raise WorkerFault(f"{path.name}: {config.hidden_size} is no multiple of {config.num_attention_heads} heads")
    return config
