"""SigLIP's vision tower (Zhai et al., ICCV 2023) in the file layout of Hugging Face's SiglipVisionTransformer.

Written anew, so that a worker loads no transformers library; layer norm with epsilon 1e-6 and the tanh form of GELU, as
there. The embedding is that of the attention-pooling head, not a class token and not a mean.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self, cast

import torch
from torch import Tensor, nn

from clipwarden.models.backbones.attention import attend

NORM_EPSILON: Final = 1e-6
HEAD_WIDTH: Final = 64


@dataclass(frozen=True, slots=True)
class SiglipShape:
    """Sizes of a tower; the defaults are those of siglip-base-patch16-224. Its heads are 64 wide."""

    patch_px: int = 16
    patches: int = 196
    width: int = 768
    layers: int = 12
    inner: int = 3072

    @property
    def heads(self) -> int:
        return self.width // HEAD_WIDTH

    @property
    def image_px(self) -> int:
        return self.patch_px * math.isqrt(self.patches)

    @classmethod
    def of(cls, state: Mapping[str, Tensor], prefix: str = "") -> Self:
        """Read off a file's tensors. KeyError, IndexError or ValueError if they are no such tower's."""
        patch = state[f"{prefix}embeddings.patch_embedding.weight"]
        layers = {name.split(".layers.")[1].split(".")[0] for name in state if name.startswith(f"{prefix}encoder.")}
        if patch.shape[0] % HEAD_WIDTH:
            raise ValueError(f"a width of {patch.shape[0]} is no multiple of {HEAD_WIDTH}")
        return cls(
            patch_px=patch.shape[2],
            patches=state[f"{prefix}embeddings.position_embedding.weight"].shape[0],
            width=patch.shape[0],
            layers=len(layers),
            inner=state[f"{prefix}encoder.layers.0.mlp.fc1.weight"].shape[0],
        )


class _Mlp(nn.Module):
    def __init__(self, shape: SiglipShape) -> None:
        super().__init__()
        self.fc1 = nn.Linear(shape.width, shape.inner)
        self.fc2 = nn.Linear(shape.inner, shape.width)

    def forward(self, x: Tensor) -> Tensor:
        return cast("Tensor", self.fc2(nn.functional.gelu(self.fc1(x), approximate="tanh")))


class _SelfAttention(nn.Module):
    def __init__(self, shape: SiglipShape) -> None:
        super().__init__()
        self.k_proj, self.v_proj, self.q_proj, self.out_proj = (nn.Linear(shape.width, shape.width) for _ in range(4))
        self._heads = shape.heads

    def forward(self, x: Tensor) -> Tensor:
        return cast("Tensor", self.out_proj(attend(self.q_proj(x), self.k_proj(x), self.v_proj(x), self._heads)))


class _Layer(nn.Module):
    def __init__(self, shape: SiglipShape) -> None:
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(shape.width, eps=NORM_EPSILON)
        self.self_attn = _SelfAttention(shape)
        self.layer_norm2 = nn.LayerNorm(shape.width, eps=NORM_EPSILON)
        self.mlp = _Mlp(shape)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.self_attn(self.layer_norm1(x))
        return cast("Tensor", x + self.mlp(self.layer_norm2(x)))


class _Pool(nn.Module):
    """One learned query looks at all tokens.

    PyTorch's module only names the parameters: its own way through copies them for every picture.
    """

    def __init__(self, shape: SiglipShape) -> None:
        super().__init__()
        self.probe = nn.Parameter(torch.zeros(1, 1, shape.width))
        self.attention = nn.MultiheadAttention(shape.width, shape.heads, batch_first=True)
        self.layernorm = nn.LayerNorm(shape.width, eps=NORM_EPSILON)
        self.mlp = _Mlp(shape)

    def forward(self, x: Tensor) -> Tensor:
        weight, bias, width = self.attention.in_proj_weight, self.attention.in_proj_bias, self.probe.shape[2]
        query = nn.functional.linear(self.probe.expand(x.shape[0], -1, -1), weight[:width], bias[:width])
        key, value = nn.functional.linear(x, weight[width:], bias[width:]).chunk(2, dim=-1)
        seen = self.attention.out_proj(attend(query, key, value, self.attention.num_heads))
        return cast("Tensor", (seen + self.mlp(self.layernorm(seen)))[:, 0])


class SiglipTower(nn.Module):
    """Pictures (N, 3, S, S) to embeddings (N, width). The base tower has 92,884,224 parameters."""

    def __init__(self, shape: SiglipShape) -> None:
        super().__init__()
        patch = nn.Conv2d(3, shape.width, shape.patch_px, shape.patch_px)
        positions = nn.Embedding(shape.patches, shape.width)
        self.embeddings = nn.ModuleDict({"patch_embedding": patch, "position_embedding": positions})
        self.encoder = nn.ModuleDict({"layers": nn.ModuleList(_Layer(shape) for _ in range(shape.layers))})
        self.post_layernorm = nn.LayerNorm(shape.width, eps=NORM_EPSILON)
        self.head = _Pool(shape)

    def forward(self, pictures: Tensor) -> Tensor:
        positions = cast("nn.Embedding", self.embeddings["position_embedding"]).weight
        x = self.embeddings["patch_embedding"](pictures).flatten(2).transpose(1, 2) + positions
        for layer in cast("nn.ModuleList", self.encoder["layers"]):
            x = layer(x)
        return cast("Tensor", self.head(self.post_layernorm(x)))
