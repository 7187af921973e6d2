"""ResNet-18 (He et al., CVPR 2016), with the names that torchvision and timm give its parameters."""

from typing import Final, cast

import torch
from torch import Tensor, nn

WIDTHS: Final = (64, 128, 256, 512)
EMBEDDING: Final = WIDTHS[-1]


class Block(nn.Module):
    """Two 3 x 3 convolutions and a shortcut, projected where size or width changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = (
            nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
            if stride != 1 or inputs != outputs
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(y)) + shortcut)


class ResNet18(nn.Module):
    """Pictures (N, channels, H, W) to `outputs` numbers each, or to the 512-wide embedding if `outputs` is 0.

    11,177,025 parameters with three channels and one output. The last layer computes in float32 whatever the rest does.
    """

    def __init__(self, channels: int = 3, outputs: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, WIDTHS[0], 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        inputs = WIDTHS[0]
        for k, width in enumerate(WIDTHS, start=1):
            blocks = nn.Sequential(Block(inputs, width, 1 if k == 1 else 2), Block(width, width, 1))
            setattr(self, f"layer{k}", blocks)
            inputs = width
        self.fc = nn.Linear(EMBEDDING, outputs) if outputs else nn.Identity()

    def embed(self, pictures: Tensor) -> Tensor:
        """Mean over places of the last layer, (N, 512)."""
        x = nn.functional.max_pool2d(torch.relu(self.bn1(self.conv1(pictures))), 3, 2, padding=1)
        for k in range(1, len(WIDTHS) + 1):
            x = getattr(self, f"layer{k}")(x)
        return x.mean(dim=(2, 3))

    def forward(self, pictures: Tensor) -> Tensor:
        return cast("Tensor", self.fc(self.embed(pictures).float()))
