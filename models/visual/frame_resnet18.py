"""The ResNet-18 of single faces: does this face look made?

Follows the visual network of the 5-way pipeline (torchvision's ResNet-18 with one logit); its weights were never
published. Departs from it in its input: faces as they are, where the original fed crops whose values had wrapped
around modulo 256.
"""

from typing import ClassVar, Final, Self

import numpy as np
from numpy.typing import NDArray

from clipwarden.models.backbones.pictures import IMAGENET, PictureInput, infer
from clipwarden.models.backbones.resnet18 import ResNet18
from clipwarden.models.checkpoint import load_into
from clipwarden.models.detector import DetectorSpec
from clipwarden.models.visual.scores import faces_of, per_picture
from clipwarden.models.weights import WeightFile
from clipwarden.shared.clip import Clip
from clipwarden.shared.contracts import Branch, Dtype, Evidence, FrameNeed, Kernel, Needs

NEED: Final = FrameNeed(view="face", count=16, size_px=224, margin=0.3, kernel=Kernel.PIL_BILINEAR)
INPUT: Final = PictureInput(224, *IMAGENET)
AT_ONCE: Final = 8


class FrameResNet18:
    """Judges each of up to 16 faces by itself; says nothing about motion."""

    spec: ClassVar[DetectorSpec] = DetectorSpec(
        name="frame_resnet18",
        version="1",
        branch=Branch.VISUAL,
        needs=Needs(frames=NEED),
        features=("visual_prob_mean", "visual_prob_max", "visual_prob_p90", "visual_num_faces"),
        parameters=11_177_025,
        source="5-way pipeline of harsh-dev-05/Mugen-Deepfake",
    )

    def __init__(self, network: ResNet18) -> None:
        self._network = network

    @classmethod
    def load(cls, weights: WeightFile, device: str, dtype: Dtype = "float32") -> Self:
        network = ResNet18()
        load_into(network, weights, device, dtype, keep=("fc",))
        return cls(network)

    def assess(self, clip: Clip) -> Evidence:
        """Judge the faces. Raises NotApplicable if there is none, or none large enough."""
        view = faces_of(clip.view(NEED))
        return per_picture(
            "visual", self.predict(view.images), view, clip.duration_s, visual_num_faces=float(len(view))
        )

    def predict(self, batch: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Logits of fake (N,) of RGB faces (N, 224, 224, 3)."""
        return infer(self._network, INPUT, batch, AT_ONCE)[:, 0].astype(np.float64)
