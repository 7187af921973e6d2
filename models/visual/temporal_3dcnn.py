"""The 3D network: do sixteen frames, spread over the clip, move as one scene would?

Follows the temporal analyser of the model specifications, whose weights were never published, with the paddings of its
source and ImageNet's normalisation, neither of which that page states. Departs from it in refusing clips that would be
mostly copies of their last frame.
"""

from typing import ClassVar, Final, Self, cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from clipwarden.models.backbones.pictures import IMAGENET, PictureInput, in_batches, placed
from clipwarden.models.checkpoint import load_into
from clipwarden.models.detector import DetectorSpec
from clipwarden.models.visual.scores import frames_of, sigmoid
from clipwarden.models.weights import WeightFile
from clipwarden.shared.clip import Clip
from clipwarden.shared.contracts import Branch, Dtype, Evidence, FrameNeed, Kernel, Needs, Window
from clipwarden.shared.errors import DetectorError

FRAMES: Final = 16
LEAST_FRAMES: Final = 8
NEED: Final = FrameNeed(view="frame", count=FRAMES, size_px=224, kernel=Kernel.CV2_LINEAR)
INPUT: Final = PictureInput(224, *IMAGENET)


def _conv(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Conv3d(inputs, outputs, 3, padding=1), nn.BatchNorm3d(outputs), nn.ReLU()]


class Temporal3dNetwork(nn.Module):
    """Clips (N, 3, T, H, W) to logits (N, 2) of consistent and inconsistent; the last layers compute in float32."""

    def __init__(self) -> None:
        super().__init__()
        self.conv3d = nn.Sequential(
            nn.Conv3d(3, 64, (3, 7, 7), (1, 2, 2), (1, 3, 3)),
            nn.BatchNorm3d(64),
            nn.ReLU(),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)),
            *_conv(64, 128),
            nn.MaxPool3d(2),
            *_conv(128, 256),
            nn.MaxPool3d(2),
            *_conv(256, 512),
            nn.AdaptiveAvgPool3d(1),
        )
        self.classifier = nn.Sequential(
            nn.Flatten(), nn.Dropout(0.5), nn.Linear(512, 128), nn.ReLU(), nn.Linear(128, 2)
        )

    def embed(self, clips: Tensor) -> Tensor:
        """Mean over time and places of the last layer, (N, 512)."""
        return cast("Tensor", self.conv3d(clips)).flatten(1)

    def forward(self, clips: Tensor) -> Tensor:
        return cast("Tensor", self.classifier(self.embed(clips).float()))


class Temporal3dCnn:
    """Judges a clip as a whole, from frames and not faces; one score, no place in time."""

    spec: ClassVar[DetectorSpec] = DetectorSpec(
        name="temporal_3dcnn",
        version="1",
        branch=Branch.VISUAL,
        needs=Needs(frames=NEED),
        features=("temporal_3dcnn_prob_fake",),
        parameters=4_741_890,
        source="Model specifications of Monike123/The-Third-Derivative",
    )

    def __init__(self, network: Temporal3dNetwork) -> None:
        self._network = network

    @classmethod
    def load(cls, weights: WeightFile, device: str, dtype: Dtype = "float32") -> Self:
        network = Temporal3dNetwork()
        load_into(network, weights, device, dtype, keep=("classifier",))
        return cls(network)

    def assess(self, clip: Clip) -> Evidence:
        """Judge the clip; of 8 to 15 frames the last is repeated. Raises NotApplicable below 8."""
        view = frames_of(clip.view(NEED), LEAST_FRAMES)
        repeated = np.minimum(np.arange(FRAMES), len(view) - 1)
        score = float(sigmoid(self.predict(view.images[repeated][None]))[0])
        end_s = max(clip.duration_s, float(view.times_s[-1]), 0.0)
        return Evidence(
            score=score,
            features={"temporal_3dcnn_prob_fake": score},
            windows=(Window(start_s=0.0, end_s=end_s, score=score),),
        )

    def predict(self, batch: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Logits of fake (N,), inconsistent less consistent, of clips (N, 16, 224, 224, 3) in RGB, one at a time."""
        if batch.shape[1:2] != (FRAMES,):
            raise DetectorError(f"clips must have {FRAMES} frames each, got {batch.shape}")
        INPUT.check(batch.reshape(-1, *batch.shape[2:]))
        device, dtype = placed(self._network)

        def through(clips: NDArray[np.uint8]) -> Tensor:
            frames = INPUT.tensor(clips.reshape(-1, *clips.shape[2:]), device, dtype)
            return cast("Tensor", self._network(frames.view(len(clips), FRAMES, *frames.shape[1:]).transpose(1, 2)))

        consistent, inconsistent = in_batches(through, batch, 1).astype(np.float64).T
        return np.asarray(inconsistent - consistent)
