"""ResNet with bottlenecks (He et al., CVPR 2016), with the names that torchvision gives its parameters.

As there, a block's stride lies on its 3 x 3 convolution.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

import torch
from torch import Tensor, nn

EXPANSION: Final = 4


@dataclass(frozen=True, slots=True)
class ResNetShape:
    """Width of the first stage and blocks of each of the four; the defaults are ResNet-50's."""

    width: int = 64
    blocks: tuple[int, ...] = (3, 4, 6, 3)

    @property
    def embedding(self) -> int:
        return (self.width << (len(self.blocks) - 1)) * EXPANSION

    @classmethod
    def of(cls, state: Mapping[str, Tensor], prefix: str = "") -> Self:
        """Read off a file's tensors. KeyError if they are no such network's."""

        def blocks(stage: int) -> int:
            layer = f"{prefix}layer{stage}."
            return len({name.removeprefix(layer).split(".")[0] for name in state if name.startswith(layer)})

        return cls(state[f"{prefix}conv1.weight"].shape[0], tuple(blocks(k) for k in (1, 2, 3, 4)))


class Bottleneck(nn.Module):
    """Narrow, look around, widen; and a shortcut, projected where size or width changes."""

    def __init__(self, inputs: int, inner: int, stride: int) -> None:
        super().__init__()
        outputs = inner * EXPANSION
        self.conv1 = nn.Conv2d(inputs, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample = (
            nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
            if stride != 1 or inputs != outputs
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        y = torch.relu(self.bn1(self.conv1(x)))
        y = torch.relu(self.bn2(self.conv2(y)))
        return torch.relu(self.bn3(self.conv3(y)) + shortcut)


class ResNetTrunk(nn.Module):
    """Pictures (N, 3, H, W) to the mean over places of the last layer, (N, 2048).

    ResNet-50's has 23,508,032 parameters.
    """

    def __init__(self, shape: ResNetShape) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, shape.width, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(shape.width)
        inputs = shape.width
        for k, blocks in enumerate(shape.blocks):
            inner = shape.width * 2**k
            first = Bottleneck(inputs, inner, 1 if k == 0 else 2)
            inputs = inner * EXPANSION
            rest = (Bottleneck(inputs, inner, 1) for _ in range(blocks - 1))
            setattr(self, f"layer{k + 1}", nn.Sequential(first, *rest))

    def embed(self, pictures: Tensor) -> Tensor:
        x = nn.functional.max_pool2d(torch.relu(self.bn1(self.conv1(pictures))), 3, 2, padding=1)
        for k in range(1, 5):
            x = getattr(self, f"layer{k}")(x)
        return x.mean(dim=(2, 3))

    def forward(self, pictures: Tensor) -> Tensor:
        return self.embed(pictures)
