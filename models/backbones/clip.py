"""CLIP's vision transformer (Radford et al., ICML 2021), with the names that OpenAI's release gives its parameters.

Written anew, so that a worker loads no transformers library; QuickGELU and layer norm with epsilon 1e-5, as there.
Files of Hugging Face's CLIPModel and CLIPVisionModel are brought to these names.
"""

import math
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clipwarden.models.backbones.attention import attend
from clipwarden.models.backbones.pictures import Triple

HEAD_WIDTH: Final = 64
NORMALISATION: Final[tuple[Triple, Triple]] = (
    (0.48145466, 0.4578275, 0.40821073),
    (0.26862954, 0.26130258, 0.27577711),
)
"""Mean and spread of CLIP's own training pictures."""

_HUB_PATCH: Final = "embeddings.patch_embedding.weight"
_HUB_PARTS: Final = {
    "class_embedding": "embeddings.class_embedding",
    "conv1.weight": _HUB_PATCH,
    "positional_embedding": "embeddings.position_embedding.weight",
    **{f"ln_pre.{kind}": f"pre_layrnorm.{kind}" for kind in ("weight", "bias")},
    **{f"ln_post.{kind}": f"post_layernorm.{kind}" for kind in ("weight", "bias")},
}
_HUB_BUFFER: Final = "embeddings.position_ids"
_BESIDE_THE_TOWER: Final = ("text_model.", "visual_projection.", "text_projection.", "logit_scale")
_HUB_LAYER: Final = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}


@dataclass(frozen=True, slots=True)
class ClipShape:
    """Sizes of a tower; the defaults are those of ViT-L/14 at 224 pixels, without its projection. Heads are 64 wide.

    `grid` counts patches along a side, `embedding` is the width that the pooled token is projected to, 0 for none.
    """

    patch_px: int = 14
    grid: int = 16
    width: int = 1024
    layers: int = 24
    inner: int = 4096
    embedding: int = 0

    @property
    def heads(self) -> int:
        return self.width // HEAD_WIDTH

    @classmethod
    def of(cls, state: Mapping[str, Tensor], prefix: str = "") -> Self:
        """Read off a file's tensors. KeyError, IndexError or ValueError if they are no such tower's."""
        patch, blocks = state[f"{prefix}conv1.weight"], f"{prefix}transformer.resblocks."
        if patch.shape[0] % HEAD_WIDTH:
            raise ValueError(f"a width of {patch.shape[0]} is no multiple of {HEAD_WIDTH}")
        projection = state.get(f"{prefix}proj")
        return cls(
            patch_px=patch.shape[2],
            grid=math.isqrt(state[f"{prefix}positional_embedding"].shape[0] - 1),
            width=patch.shape[0],
            layers=len({name.removeprefix(blocks).split(".")[0] for name in state if name.startswith(blocks)}),
            inner=state[f"{blocks}0.mlp.c_fc.weight"].shape[0],
            embedding=0 if projection is None else projection.shape[1],
        )


class _QuickGelu(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class _SelfAttention(nn.Module):
    def __init__(self, shape: ClipShape) -> None:
        super().__init__()
        self.in_proj_weight = nn.Parameter(torch.empty(3 * shape.width, shape.width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * shape.width))
        self.out_proj = nn.Linear(shape.width, shape.width)
        self._heads = shape.heads
        nn.init.xavier_uniform_(self.in_proj_weight)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = F.linear(x, self.in_proj_weight, self.in_proj_bias).chunk(3, dim=-1)
        return cast("Tensor", self.out_proj(attend(query, key, value, self._heads)))


class ClipBlock(nn.Module):
    """One layer of the tower, (N, T, width) to the same."""

    def __init__(self, shape: ClipShape) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(shape.width)
        self.attn = _SelfAttention(shape)
        self.ln_2 = nn.LayerNorm(shape.width)
        dense = [("c_fc", nn.Linear(shape.width, shape.inner)), ("gelu", _QuickGelu())]
        self.mlp = nn.Sequential(OrderedDict([*dense, ("c_proj", nn.Linear(shape.inner, shape.width))]))

    def mix(self, x: Tensor) -> Tensor:
        """What the attention adds to its tokens."""
        return cast("Tensor", self.attn(self.ln_1(x)))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.mix(x)
        return cast("Tensor", x + self.mlp(self.ln_2(x)))


class ClipTower(nn.Module):
    """Pictures (N, 3, H, W) to one vector each, (N, width) or (N, embedding). ViT-L/14 has 303,179,776 parameters.

    Where the pictures are of another size than the tower was trained on, its positions are stretched bicubically;
    pixels beyond the last whole patch are not seen.
    """

    def __init__(self, shape: ClipShape) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, shape.width, shape.patch_px, shape.patch_px, bias=False)
        self.class_embedding = nn.Parameter(torch.randn(shape.width) / shape.width**0.5)
        self.positional_embedding = nn.Parameter(torch.randn(shape.grid**2 + 1, shape.width) / shape.width**0.5)
        self.ln_pre = nn.LayerNorm(shape.width)
        self.transformer = nn.ModuleDict({"resblocks": nn.ModuleList(ClipBlock(shape) for _ in range(shape.layers))})
        self.ln_post = nn.LayerNorm(shape.width)
        if shape.embedding:
            self.proj = nn.Parameter(torch.randn(shape.width, shape.embedding) / shape.width**0.5)
        self._grid = shape.grid

    @property
    def blocks(self) -> list[ClipBlock]:
        return list(cast("nn.ModuleList", self.transformer["resblocks"]))  # type: ignore[arg-type]

    def tokens(self, pictures: Tensor) -> Tensor:
        """The class token and the patches, with their places, before the first layer, (N, 1 + patches, width)."""
        patches = self.conv1(pictures)
        places = self._positions(*patches.shape[2:])
        first = self.class_embedding.expand(pictures.shape[0], 1, -1)
        return cast("Tensor", self.ln_pre(torch.cat([first, patches.flatten(2).transpose(1, 2)], dim=1) + places))

    def pooled(self, tokens: Tensor) -> Tensor:
        """The normed class token behind the last layer, (N, width)."""
        return cast("Tensor", self.ln_post(tokens[:, 0]))

    def forward(self, pictures: Tensor) -> Tensor:
        x = self.tokens(pictures)
        for block in self.blocks:
            x = block(x)
        pooled = self.pooled(x)
        return pooled @ self.proj if hasattr(self, "proj") else pooled

    def _positions(self, rows: int, columns: int) -> Tensor:
        learned = self.positional_embedding
        if (rows, columns) == (self._grid, self._grid):
            return learned
        square = learned[1:].float().view(1, self._grid, self._grid, -1).permute(0, 3, 1, 2)
        stretched = F.interpolate(square, size=(rows, columns), mode="bicubic", align_corners=False)
        return torch.cat([learned[:1], stretched[0].flatten(1).T.to(learned.dtype)])


def hub_tower(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The vision tower's tensors out of a file of Hugging Face's library, whole or vision only, under OpenAI's names.

    Leaves the projection out. KeyError if any is missing.
    """
    prefix = _hub_prefix(state)
    layers = f"{prefix}encoder.layers."
    depth = len({name.removeprefix(layers).split(".")[0] for name in state if name.startswith(layers)})
    tower = {name: state[prefix + theirs] for name, theirs in _HUB_PARTS.items()}
    for k in range(depth):
        tower |= {f"transformer.resblocks.{k}.{name}": t for name, t in _hub_layer(state, f"{layers}{k}.").items()}
    return tower


def hub_rest(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What such a file holds beside CLIP, under its own names. KeyError without a vision tower."""
    prefix = _hub_prefix(state)
    parts = {prefix + name for name in (*_HUB_PARTS.values(), _HUB_BUFFER)}
    beside = tuple(prefix.removesuffix("vision_model.") + name for name in _BESIDE_THE_TOWER)
    others = (f"{prefix}encoder.layers.", *beside)
    return {name: t for name, t in state.items() if name not in parts and not name.startswith(others)}


def _hub_prefix(state: Mapping[str, Tensor]) -> str:
    """What stands before the names of the vision tower."""
    found = [name.removesuffix(_HUB_PATCH) for name in state if f".{name}".endswith(f".{_HUB_PATCH}")]
    if len(found) != 1:
        raise KeyError(_HUB_PATCH)
    return found[0]


def _hub_layer(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    layer: dict[str, Tensor] = {}
    for kind in ("weight", "bias"):
        layer |= {f"{name}.{kind}": state[f"{prefix}{theirs}.{kind}"] for name, theirs in _HUB_LAYER.items()}
        parts = [state[f"{prefix}self_attn.{part}_proj.{kind}"] for part in "qkv"]
        layer[f"attn.in_proj_{kind}"] = torch.cat(parts)
    return layer
