"""EfficientNet-B4 (Tan and Le, ICML 2019), with the names that timm's `efficientnet_b4` gives its parameters.

The PyTorch variant: symmetric padding and batch norm with epsilon 1e-5, unlike weights converted from TensorFlow. The
widths are the base network's times 1.4, rounded to eights; the depths its times 1.8, rounded up.
"""

from typing import Final, cast

import torch
from torch import Tensor, nn

STAGES: Final = (
    # blocks, kernel, stride, expansion, outputs
    (2, 3, 1, 1, 24),
    (4, 3, 2, 6, 32),
    (4, 5, 2, 6, 56),
    (6, 3, 2, 6, 112),
    (6, 5, 1, 6, 160),
    (8, 5, 2, 6, 272),
    (2, 3, 1, 6, 448),
)
STEM: Final = 48
EMBEDDING: Final = 1792
SQUEEZE: Final = 4  # of the block's input channels one in four
IN_FLOAT32: Final = ("conv_stem", "blocks.0", "blocks.1", "blocks.2", "conv_reduce", "conv_expand")
"""What computes in float32 beside bfloat16: early and cheap layers, whose errors all others would carry on.

So does the sum that the blocks add to: it keeps the stem's precision, and each block rounds what it reads.
"""


class SqueezeExcite(nn.Module):
    """Scales each channel by what a two-layer network makes of all channel means."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.conv_reduce = nn.Conv2d(channels, squeezed, 1)
        self.conv_expand = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        means = _means(x).to(self.conv_reduce.weight.dtype)
        squeezed = _silu(nn.functional.linear(means, self.conv_reduce.weight.flatten(1), self.conv_reduce.bias))
        gates = nn.functional.linear(squeezed, self.conv_expand.weight.flatten(1), self.conv_expand.bias)
        return x * torch.sigmoid(gates).to(x.dtype)[:, :, None, None]


def _means(x: Tensor) -> Tensor:
    """Channel means (N, C) of (N, C, H, W) by a product of matrices, where `mean` would copy bfloat16 first."""
    places = x.shape[2] * x.shape[3]
    return (x.new_ones(1, places) @ x.flatten(2).transpose(1, 2)).squeeze(1).float() / places


def _silu(x: Tensor) -> Tensor:
    """In place where nothing is to be differentiated: large batches would wait for fresh memory."""
    return nn.functional.silu(x, inplace=not torch.is_grad_enabled())


def _depthwise(channels: int, kernel: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, kernel, stride, kernel // 2, groups=channels, bias=False)


class Separable(nn.Module):
    """Filter each channel, then mix them: the block of the first stage."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.conv_dw = _depthwise(inputs, kernel, stride)
        self.bn1 = nn.BatchNorm2d(inputs)
        self.se = SqueezeExcite(inputs, inputs // SQUEEZE)
        self.conv_pw = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self._adds = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = self.se(_silu(self.bn1(self.conv_dw(x.to(self.conv_dw.weight.dtype)))))
        y = self.bn2(self.conv_pw(y)).to(x.dtype)
        return cast("Tensor", x + y if self._adds else y)


class Inverted(nn.Module):
    """Expand, filter each channel, project: the block of the other stages."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = inputs * expansion
        self.conv_pw = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv_dw = _depthwise(width, kernel, stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.se = SqueezeExcite(width, inputs // SQUEEZE)
        self.conv_pwl = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self._adds = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = _silu(self.bn1(self.conv_pw(x.to(self.conv_pw.weight.dtype))))
        y = self.se(_silu(self.bn2(self.conv_dw(y))))
        y = self.bn3(self.conv_pwl(y)).to(x.dtype)
        return cast("Tensor", x + y if self._adds else y)


class EfficientNetB4(nn.Module):
    """Pictures (N, 3, H, W) to embeddings (N, 1792). 17,548,616 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_stem = nn.Conv2d(3, STEM, 3, 2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(STEM)
        stages, inputs = [], STEM
        for blocks, kernel, stride, expansion, outputs in STAGES:
            stages.append(_stage(inputs, outputs, blocks, kernel, stride, expansion))
            inputs = outputs
        self.blocks = nn.Sequential(*stages)
        self.conv_head = nn.Conv2d(inputs, EMBEDDING, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(EMBEDDING)

    def forward(self, pictures: Tensor) -> Tensor:
        x = self.blocks(_silu(self.bn1(self.conv_stem(pictures))))
        return _silu(self.bn2(self.conv_head(x.to(self.conv_head.weight.dtype)))).mean(dim=(2, 3))


def _stage(inputs: int, outputs: int, blocks: int, kernel: int, stride: int, expansion: int) -> nn.Sequential:
    """Blocks of one width; the first changes size and width."""
    made: list[nn.Module] = []
    for k in range(blocks):
        width, step = (inputs, stride) if k == 0 else (outputs, 1)
        separable = expansion == 1
        made.append(
            Separable(width, outputs, kernel, step) if separable else Inverted(width, outputs, kernel, step, expansion)
        )
    return nn.Sequential(*made)
