"""Frame statistics of our own: what a frozen ImageNet network makes of a face at five depths, and one discriminant.

The network is EfficientNet-Lite0 with the weights of its package. The numbers say how the values of each channel that
leaves a stage are distributed over the face: they know texture and blending, and hardly who it is.
"""

from typing import ClassVar, Final, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from clipwarden.models.backbones.discriminant import Discriminant
from clipwarden.models.backbones.efficientnet_lite0 import INPUT, STAGES, EfficientNetLite0, pretrained
from clipwarden.models.backbones.pictures import infer
from clipwarden.models.checkpoint import load_into, settle
from clipwarden.models.detector import DetectorSpec
from clipwarden.models.visual.scores import faces_of, per_picture, sigmoid
from clipwarden.models.weights import WeightFile
from clipwarden.shared.clip import Clip
from clipwarden.shared.contracts import Branch, Dtype, Evidence, FrameNeed, Kernel, Needs

NEED: Final = FrameNeed(view="face", count=16, size_px=224, margin=0.3, kernel=Kernel.PIL_BILINEAR)
AT_ONCE: Final = 4
LEVELLED: Final = range(1, 6)
"""Places in STAGES whose channels tell by mean and spread: the first says too little, the last knows objects."""
SHAPED: Final = range(1, 5)
"""Places in STAGES whose channels tell by the shape of their distribution too."""
COUNT: Final = 2 * sum(STAGES[k][4] for k in LEVELLED) + 2 * sum(STAGES[k][4] for k in SHAPED)
FLAT: Final = 1e-3
MOST_SKEWED: Final = 20.0


class StageStatistics(nn.Module):
    """Pictures (N, 3, 224, 224) to numbers (N, COUNT), over the places of each channel of each stage.

    All means, then all spreads; then the third moments and the mean sizes of the places' standard scores.
    """

    def __init__(self, backbone: EfficientNetLite0) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, pictures: Tensor) -> Tensor:
        stages = [x.flatten(2) for x in self.backbone.stages(pictures)]
        means, spreads = ([f(x) for x in stages] for f in (_mean, _spread))
        scores = [(stages[k] - means[k][..., None]) / (spreads[k][..., None] + FLAT) for k in SHAPED]
        levels = [*(means[k] for k in LEVELLED), *(spreads[k] for k in LEVELLED)]
        skews = [(z * z * z).mean(2).clamp(-MOST_SKEWED, MOST_SKEWED) for z in scores]
        return torch.cat([*levels, *skews, *(z.abs().mean(2) for z in scores)], 1)


def _mean(x: Tensor) -> Tensor:
    return x.mean(2)


def _spread(x: Tensor) -> Tensor:
    return x.std(2, correction=0)


class FrameStatsNetwork(nn.Module):
    """Pictures (N, 3, 224, 224) to logits of fake (N,)."""

    def __init__(self, statistics: StageStatistics, discriminant: Discriminant) -> None:
        super().__init__()
        self.statistics = statistics
        self.discriminant = discriminant

    def forward(self, pictures: Tensor) -> Tensor:
        return cast("Tensor", self.discriminant(self.statistics(pictures)))


class FrameStats:
    """Judges each of up to 16 faces by itself; says nothing about motion."""

    spec: ClassVar[DetectorSpec] = DetectorSpec(
        name="frame_stats",
        version="1",
        branch=Branch.VISUAL,
        needs=Needs(frames=NEED),
        features=("frame_stats_prob_mean", "frame_stats_prob_max", "frame_stats_prob_p90", "frame_stats_score"),
        parameters=COUNT + 1,
        source="EfficientNet-Lite0 (Tan and Le) as its package has it, a discriminant by Clipwarden",
    )

    def __init__(self, network: FrameStatsNetwork) -> None:
        self._network = network

    @classmethod
    def load(cls, weights: WeightFile, device: str, dtype: Dtype = "float32") -> Self:  # noqa: ARG003
        """Computes in float32 whatever is asked for: the discriminant weighs small differences of large numbers."""
        discriminant = Discriminant(COUNT)
        load_into(discriminant, weights, device)
        return cls(FrameStatsNetwork(stage_statistics(device), discriminant))

    def assess(self, clip: Clip) -> Evidence:
        """Judge the faces. Raises NotApplicable if there is none, or none large enough."""
        view = faces_of(clip.view(NEED))
        logits = self.predict(view.images)
        score = float(sigmoid(logits.mean()))
        return per_picture("frame_stats", logits, view, clip.duration_s, frame_stats_score=score)

    def predict(self, batch: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Logits of fake (N,) of RGB faces (N, 224, 224, 3)."""
        return infer(self._network, INPUT, batch, AT_ONCE).astype(np.float64)


def stage_statistics(device: str) -> StageStatistics:
    """The frozen part, ready to compute. Raises WorkerFault if its weights are not those of its package."""
    statistics = StageStatistics(pretrained())
    settle(statistics, device)
    return statistics
