"""The EfficientNet-B4 of single faces: does this face look made?

Follows the visual detector of the model specifications (1792-512-2), whose weights were never published; its pictures
are scaled as there, without smoothing. The width of the hidden layer is read off the file: drafts of the source had
256. Departs from it in judging faces, not whole frames.
"""

from typing import ClassVar, Final, Self, cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from clipwarden.models.backbones.efficientnet_b4 import EMBEDDING, IN_FLOAT32, EfficientNetB4
from clipwarden.models.backbones.pictures import IMAGENET, PictureInput, infer
from clipwarden.models.checkpoint import fit, read_state
from clipwarden.models.detector import DetectorSpec
from clipwarden.models.visual.scores import faces_of, per_picture
from clipwarden.models.weights import WeightFile
from clipwarden.shared.clip import Clip
from clipwarden.shared.contracts import Branch, Dtype, Evidence, FrameNeed, Kernel, Needs

NEED: Final = FrameNeed(view="face", count=16, size_px=224, margin=0.3, kernel=Kernel.CV2_LINEAR)
INPUT: Final = PictureInput(224, *IMAGENET)
HIDDEN: Final = 512
AT_ONCE: Final = 8


class FrameB4Network(nn.Module):
    """Pictures (N, 3, 224, 224) to logits (N, 2) of real and fake; the last layers compute in float32."""

    def __init__(self, hidden: int = HIDDEN) -> None:
        super().__init__()
        self.backbone = EfficientNetB4()
        self.classifier = nn.Sequential(
            nn.Dropout(0.3), nn.Linear(EMBEDDING, hidden), nn.ReLU(), nn.Dropout(0.2), nn.Linear(hidden, 2)
        )

    def embed(self, pictures: Tensor) -> Tensor:
        return cast("Tensor", self.backbone(pictures))

    def forward(self, pictures: Tensor) -> Tensor:
        return cast("Tensor", self.classifier(self.embed(pictures).float()))


class FrameEfficientNetB4:
    """Judges each of up to 16 faces by itself; says nothing about motion."""

    spec: ClassVar[DetectorSpec] = DetectorSpec(
        name="frame_efficientnet_b4",
        version="1",
        branch=Branch.VISUAL,
        needs=Needs(frames=NEED),
        features=("efficientnet_b4_prob_mean", "efficientnet_b4_prob_max", "efficientnet_b4_prob_p90"),
        parameters=18_467_658,
        source="Model specifications of Monike123/The-Third-Derivative",
    )

    def __init__(self, network: FrameB4Network) -> None:
        self._network = network

    @classmethod
    def load(cls, weights: WeightFile, device: str, dtype: Dtype = "float32") -> Self:
        state = read_state(weights)
        first = state.get("classifier.1.weight")
        network = FrameB4Network(HIDDEN if first is None else len(first))
        fit(network, state, weights.path.name, device, dtype, keep=("classifier", *IN_FLOAT32))
        return cls(network)

    def assess(self, clip: Clip) -> Evidence:
        """Judge the faces. Raises NotApplicable if there is none, or none large enough."""
        view = faces_of(clip.view(NEED))
        return per_picture("efficientnet_b4", self.predict(view.images), view, clip.duration_s)

    def predict(self, batch: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Logits of fake (N,), fake less real, of RGB faces (N, 224, 224, 3)."""
        real, fake = infer(self._network, INPUT, batch, AT_ONCE).astype(np.float64).T
        return np.asarray(fake - real)
