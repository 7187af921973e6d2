"""ViT image classifier (Dosovitskiy et al., ICLR 2021) in the file layout of Hugging Face's ViTForImageClassification.

Written anew, so that a worker loads no transformers library; exact GELU, as there.
"""

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from clipwarden.models.backbones.attention import attend


@dataclass(frozen=True, slots=True)
class VitShape:
    """Sizes of a ViT; the defaults are those of ViT-B/16 at 224 pixels."""

    image_px: int = 224
    patch_px: int = 16
    width: int = 768
    layers: int = 12
    heads: int = 12
    inner: int = 3072
    norm_epsilon: float = 1e-12

    @property
    def patches(self) -> int:
        return (self.image_px // self.patch_px) ** 2


class _SelfAttention(nn.Module):
    def __init__(self, shape: VitShape) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(shape.width, shape.width) for _ in range(3))
        self._heads = shape.heads

    def forward(self, x: Tensor) -> Tensor:
        return attend(self.query(x), self.key(x), self.value(x), self._heads)


def _dense(inputs: int, outputs: int) -> nn.ModuleDict:
    """A linear layer one level down, where the file has it."""
    return nn.ModuleDict({"dense": nn.Linear(inputs, outputs)})


class _Layer(nn.Module):
    def __init__(self, shape: VitShape) -> None:
        super().__init__()
        self.attention = nn.ModuleDict({"attention": _SelfAttention(shape), "output": _dense(shape.width, shape.width)})
        self.intermediate = _dense(shape.width, shape.inner)
        self.output = _dense(shape.inner, shape.width)
        self.layernorm_before = nn.LayerNorm(shape.width, eps=shape.norm_epsilon)
        self.layernorm_after = nn.LayerNorm(shape.width, eps=shape.norm_epsilon)

    def forward(self, x: Tensor) -> Tensor:
        mixed = self.attention["attention"](self.layernorm_before(x))
        x = x + cast("nn.ModuleDict", self.attention["output"])["dense"](mixed)
        inner = nn.functional.gelu(self.intermediate["dense"](self.layernorm_after(x)))
        return cast("Tensor", x + self.output["dense"](inner))


class _Embeddings(nn.Module):
    def __init__(self, shape: VitShape) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, shape.width))
        self.position_embeddings = nn.Parameter(torch.zeros(1, shape.patches + 1, shape.width))
        projection = nn.Conv2d(3, shape.width, shape.patch_px, shape.patch_px)
        self.patch_embeddings = nn.ModuleDict({"projection": projection})

    def forward(self, pictures: Tensor) -> Tensor:
        patches = self.patch_embeddings["projection"](pictures).flatten(2).transpose(1, 2)
        first = self.cls_token.expand(pictures.shape[0], -1, -1)
        return torch.cat([first, patches], dim=1) + self.position_embeddings


class _Vit(nn.Module):
    def __init__(self, shape: VitShape) -> None:
        super().__init__()
        self.embeddings = _Embeddings(shape)
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(_Layer(shape) for _ in range(shape.layers))})
        self.layernorm = nn.LayerNorm(shape.width, eps=shape.norm_epsilon)

    def forward(self, pictures: Tensor) -> Tensor:
        x = self.embeddings(pictures)
        for layer in cast("nn.ModuleList", self.encoder["layer"]):
            x = layer(x)
        return cast("Tensor", self.layernorm(x[:, 0]))


class VitClassifier(nn.Module):
    """Pictures (N, 3, S, S) to logits (N, classes); the classifier computes in float32.

    85,800,194 parameters as B/16 with two classes.
    """

    def __init__(self, shape: VitShape, classes: int = 2) -> None:
        super().__init__()
        self.vit = _Vit(shape)
        self.classifier = nn.Linear(shape.width, classes)

    def embed(self, pictures: Tensor) -> Tensor:
        """The normed first token, (N, width)."""
        return cast("Tensor", self.vit(pictures))

    def forward(self, pictures: Tensor) -> Tensor:
        return cast("Tensor", self.classifier(self.embed(pictures).float()))
