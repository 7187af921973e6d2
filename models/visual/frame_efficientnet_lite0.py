"""The EfficientNet-Lite0 of single faces: our own candidate for the frame detector that every clip can afford.

A backbone pretrained on ImageNet (see `backbones/efficientnet_lite0`) and one logit. No public detector has this shape.
"""

from typing import ClassVar, Final, Self

import numpy as np
from numpy.typing import NDArray

from clipwarden.models.backbones.efficientnet_lite0 import IN_FLOAT32, INPUT, FrameLite0
from clipwarden.models.backbones.pictures import infer
from clipwarden.models.checkpoint import load_into
from clipwarden.models.detector import DetectorSpec
from clipwarden.models.visual.scores import faces_of, per_picture
from clipwarden.models.weights import WeightFile
from clipwarden.shared.clip import Clip
from clipwarden.shared.contracts import Branch, Dtype, Evidence, FrameNeed, Kernel, Needs

NEED: Final = FrameNeed(view="face", count=16, size_px=224, margin=0.3, kernel=Kernel.PIL_BILINEAR)
AT_ONCE: Final = 4


class FrameEfficientNetLite0:
    """Judges each of up to 16 faces by itself; says nothing about motion."""

    spec: ClassVar[DetectorSpec] = DetectorSpec(
        name="frame_efficientnet_lite0",
        version="1",
        branch=Branch.VISUAL,
        needs=Needs(frames=NEED),
        features=("efficientnet_lite0_prob_mean", "efficientnet_lite0_prob_max", "efficientnet_lite0_prob_p90"),
        parameters=3_372_289,
        source="EfficientNet-Lite0 (Tan and Le) with one logit, by Clipwarden",
    )

    def __init__(self, network: FrameLite0) -> None:
        self._network = network

    @classmethod
    def load(cls, weights: WeightFile, device: str, dtype: Dtype = "float32") -> Self:
        network = FrameLite0()
        load_into(network, weights, device, dtype, keep=IN_FLOAT32)
        return cls(network)

    def assess(self, clip: Clip) -> Evidence:
        """Judge the faces. Raises NotApplicable if there is none, or none large enough."""
        view = faces_of(clip.view(NEED))
        return per_picture("efficientnet_lite0", self.predict(view.images), view, clip.duration_s)

    def predict(self, batch: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Logits of fake (N,) of RGB faces (N, 224, 224, 3)."""
        return infer(self._network, INPUT, batch, AT_ONCE)[:, 0].astype(np.float64)
