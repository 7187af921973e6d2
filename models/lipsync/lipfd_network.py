"""LipFD's network, with the names of its public checkpoint (AaronComo/LipFD, NeurIPS 2024).

CLIP looks at sound and frames in one picture, a ResNet-50 at each frame in three sizes; a weight for each size, read
off both, says which counts. Facts of the public code that its paper does not state: the same weighing serves all sizes
and frames; it is a softmax over outputs of a logistic, so that no size can weigh more than e / (e + 2); CLIP's vector
is not brought to length one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self, cast

import torch
from torch import Tensor, nn

from clipwarden.models.backbones.clip import ClipShape, ClipTower
from clipwarden.models.backbones.resnet50 import ResNetShape, ResNetTrunk

SHRINK: Final = 5
"""What the first convolution takes of a picture's side before CLIP sees it."""

TOWER: Final = "encoder.visual."
CLIP_PX: Final = 224
_TOWER: Final = ClipShape(embedding=768)
_TRUNK: Final = ResNetShape()


@dataclass(frozen=True, slots=True)
class LipFdShape:
    """Sizes of the two networks; the defaults are those of the public checkpoint."""

    tower: ClipShape = _TOWER
    trunk: ResNetShape = _TRUNK

    @property
    def width(self) -> int:
        return self.trunk.embedding + self.tower.embedding

    @classmethod
    def of(cls, state: Mapping[str, Tensor]) -> Self:
        """Read off a checkpoint's tensors. KeyError, IndexError or ValueError if they are no such network's."""
        return cls(ClipShape.of(state, TOWER), ResNetShape.of(state, "backbone."))


class _Backbone(ResNetTrunk):
    def __init__(self, shape: LipFdShape) -> None:
        super().__init__(shape.trunk)
        self.get_weight = nn.Sequential(nn.Linear(shape.width, 1), nn.Sigmoid())
        self.fc = nn.Linear(shape.width, 1)


class LipFdNetwork(nn.Module):
    """Pictures and crops of windows to logits of fake; what follows the two networks computes in float32.

    Without CLIP's text tower, which the checkpoint holds but nothing asks.
    """

    def __init__(self, shape: LipFdShape) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 3, SHRINK, SHRINK)
        self.encoder = nn.ModuleDict({"visual": ClipTower(shape.tower)})
        self.backbone = _Backbone(shape)

    def see(self, pictures: Tensor) -> Tensor:
        """CLIP's vectors (N, 768) of windows as pictures (N, 3, 1120, 1120), in float32."""
        return cast("Tensor", self.encoder["visual"](self.conv1(pictures))).float()

    def look(self, crops: Tensor) -> Tensor:
        """The trunk's vectors (N, 2048) of crops (N, 3, 224, 224), in float32."""
        return self.backbone.embed(crops).float()

    def judge(self, looked: Tensor, seen: Tensor) -> Tensor:
        """Logits (N,) of the vectors of crops (N, T, 3, 2048), frames, faces and lips, and of windows (N, 768)."""
        frames, scales = looked.shape[1:3]
        joined = torch.cat([looked, seen[:, None, None].expand(-1, frames, scales, -1)], dim=-1)
        weights = self.backbone.get_weight(joined).softmax(dim=2)
        return cast("Tensor", self.backbone.fc((weights * joined).sum(dim=2).mean(dim=1))).squeeze(1)

    def forward(self, pictures: Tensor, crops: Tensor) -> Tensor:
        """Logits (N,) of pictures (N, 3, 1120, 1120) and crops (N, T, 3, 3, 224, 224): whole frames, faces, lips."""
        looked = self.look(crops.flatten(0, 2)).view(*crops.shape[:3], -1)
        return self.judge(looked, self.see(pictures))
