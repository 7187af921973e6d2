"""The frame networks by the names of their detectors, for detectors that judge sequences of their embeddings."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from clipwarden.models.backbones import efficientnet_lite0, resnet18
from clipwarden.models.backbones.efficientnet_lite0 import FrameLite0
from clipwarden.models.backbones.pictures import IMAGENET, PictureInput, infer
from clipwarden.models.backbones.resnet18 import ResNet18
from clipwarden.models.checkpoint import load_into
from clipwarden.models.weights import WeightFile
from clipwarden.shared.contracts import Dtype
from clipwarden.shared.errors import WorkerFault

AT_ONCE: Final = 8


@dataclass(frozen=True, slots=True)
class _Kind:
    """How a frame network is built and fed; `in_float32` are its parts that take no other type."""

    build: Callable[[], ResNet18 | FrameLite0]
    taken: PictureInput
    width: int
    in_float32: tuple[str, ...]


_KINDS: Final = {
    "frame_resnet18": _Kind(ResNet18, PictureInput(224, *IMAGENET), resnet18.EMBEDDING, ("fc",)),
    "frame_efficientnet_lite0": _Kind(
        FrameLite0, efficientnet_lite0.INPUT, efficientnet_lite0.EMBEDDING, efficientnet_lite0.IN_FLOAT32
    ),
}


class FrameEmbedder:
    """A frame network without its verdict: RGB pictures (N, 224, 224, 3) to embeddings (N, width)."""

    def __init__(self, network: ResNet18 | FrameLite0, taken: PictureInput, width: int) -> None:
        self._network = network
        self._taken = taken
        self.width = width

    @classmethod
    def load(cls, name: str, weights: WeightFile, device: str, dtype: Dtype = "float32") -> "FrameEmbedder":
        """The network of the frame detector `name`, from its own weights. Raises WorkerFault."""
        kind = _KINDS.get(name)
        if kind is None:
            raise WorkerFault(f"no backbone is called {name}; there are {', '.join(_KINDS)}")
        network = kind.build()
        load_into(network, weights, device, dtype, keep=kind.in_float32)
        return cls(network, kind.taken, kind.width)

    @torch.inference_mode()
    def embed(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Embeddings (N, width), each of one picture alone. Raises DetectorError for pictures of another kind."""
        return infer(self._network, self._taken, pictures, AT_ONCE, self._network.embed)
