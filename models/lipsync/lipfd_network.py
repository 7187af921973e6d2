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
from clipwarden.shared.errors import WorkerFault

SCALES: Final = 3
SHRINK: Final = 5
"""What the first convolution takes of a picture's side before CLIP sees it."""

TOWER: Final = "encoder.visual."
_TOWER: Final = ClipShape(embedding=768)
_TRUNK: Final = ResNetShape()
_TEXT_BLOCK: Final = {
    "attn.in_proj_weight": (3, 1),
    "attn.in_proj_bias": (3,),
    "attn.out_proj.weight": (1, 1),
    "attn.out_proj.bias": (1,),
    "ln_1.weight": (1,),
    "ln_1.bias": (1,),
    "ln_2.weight": (1,),
    "ln_2.bias": (1,),
    "mlp.c_fc.weight": (4, 1),
    "mlp.c_fc.bias": (4,),
    "mlp.c_proj.weight": (1, 4),
    "mlp.c_proj.bias": (1,),
}
"""Tensors of one layer of CLIP's text tower, in units of its width."""


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

    def forward(self, pictures: Tensor, crops: Tensor) -> Tensor:
        """Logits (N,) of pictures (N, 3, 1120, 1120) and crops (N, 3, T, 3, 224, 224): whole frames, faces, lips."""
        seen = self.encoder["visual"](self.conv1(pictures)).float()
        scales, frames = crops.shape[1:3]
        parts = self.backbone.embed(crops.flatten(0, 2)).float().view(len(crops), scales, frames, -1)
        joined = torch.cat([parts, seen[:, None, None].expand(-1, scales, frames, -1)], dim=-1)
        weights = self.backbone.get_weight(joined).softmax(dim=1)
        return cast("Tensor", self.backbone.fc((weights * joined).sum(dim=1).mean(dim=1))).squeeze(1)


def without_text(state: Mapping[str, Tensor], file: str) -> dict[str, Tensor]:
    """A checkpoint's tensors less those of CLIP's text tower, which must all be there, or none of them.

    Raises WorkerFault naming what is missing, unknown or of another shape.
    """
    text = {n: t for n, t in state.items() if n.startswith("encoder.") and not n.startswith(TOWER)}
    if not text:
        return dict(state)
    expected = _text_shapes(text)
    found = {name: tuple(tensor.shape) for name, tensor in text.items()}
    wrong = sorted({f"{name} {size}" for name, size in expected.items() ^ found.items()})
    if wrong:
        raise WorkerFault(f"weights {file} hold no whole text tower of CLIP: {', '.join(wrong)}")
    return {name: tensor for name, tensor in state.items() if name not in text}


def _text_shapes(text: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """What a text tower of the found width and depth holds."""
    tokens, places = text.get("encoder.token_embedding.weight"), text.get("encoder.positional_embedding")
    projection = text.get("encoder.text_projection")
    words, width = tokens.shape if tokens is not None and tokens.dim() == 2 else (0, 0)
    layers = {name.split(".")[3] for name in text if name.startswith("encoder.transformer.resblocks.")}
    blocks = {
        f"encoder.transformer.resblocks.{k}.{name}": tuple(width * n for n in sizes)
        for k in range(len(layers))
        for name, sizes in _TEXT_BLOCK.items()
    }
    return {
        "encoder.token_embedding.weight": (words, width),
        "encoder.positional_embedding": (0 if places is None else places.shape[0], width),
        "encoder.ln_final.weight": (width,),
        "encoder.ln_final.bias": (width,),
        "encoder.text_projection": (width, 0 if projection is None else projection.shape[-1]),
        "encoder.logit_scale": (),
        **blocks,
    }
