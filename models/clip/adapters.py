"""CLIP's vision tower with adapters over time: a frozen tower, and 5,255,938 numbers that are trained.

The design is AIM's (Yang et al., ICLR 2023): in the last three layers an adapter each behind attention over time,
behind attention over places, and beside the perceptron, all with the tower's own attention. Departs from it in a fixed
table of times in place of a learned one, added only where time is looked at: with adapters that add nothing, as they
begin, the network is CLIP.
"""

import math
from dataclasses import dataclass
from typing import Final, Self, cast

import torch
from torch import Tensor, nn

from clipwarden.models.backbones.clip import ClipBlock, ClipShape, ClipTower

FRAMES: Final = 12
ADAPTED: Final = 3
RATIO: Final = 4
"""How much narrower an adapter is inside than the tower."""

MLP_SHARE: Final = 0.5
PLACES: Final = ("temporal", "spatial", "mlp")


class Adapter(nn.Module):
    """A bottleneck (…, width) to the same; adds nothing until it is trained."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.down = nn.Linear(width, width // RATIO)
        self.up = nn.Linear(width // RATIO, width)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor) -> Tensor:
        return cast("Tensor", self.up(nn.functional.gelu(self.down(x))))


@dataclass(frozen=True, slots=True)
class Judged:
    """Logits (N, 2) of real and fake of each clip, and (N, T, 2) of its frames one by one."""

    clips: Tensor
    frames: Tensor


class ClipAdapterNetwork(nn.Module):
    """Clips of twelve frames to logits of real and fake; the head computes in float32.

    308,435,714 parameters on ViT-L/14, 5,255,938 of them outside the tower.
    """

    steps: Tensor

    def __init__(self, shape: ClipShape) -> None:
        super().__init__()
        width = shape.width
        self.tower = ClipTower(shape)
        self.adapters = nn.ModuleList(
            nn.ModuleDict({place: Adapter(width) for place in PLACES}) for _ in range(ADAPTED)
        )
        self.head = nn.Sequential(nn.Linear(width, width // 2), nn.GELU(), nn.Dropout(0.1), nn.Linear(width // 2, 2))
        self.register_buffer("steps", _sinusoids(FRAMES, width), persistent=False)

    @classmethod
    def around(cls, tower: ClipTower, shape: ClipShape) -> Self:
        """A network to be trained: this tower, frozen, and fresh adapters."""
        network = cls(shape)
        network.tower = tower.requires_grad_(False)
        return network

    def encode(self, pictures: Tensor) -> Tensor:
        """Tokens (N, P, width) of pictures (N, 3, H, W) before the first adapter: of each picture alone."""
        x = self.tower.tokens(pictures)
        for block in self.tower.blocks[:-ADAPTED]:
            x = block(x)
        return x

    def follow(self, tokens: Tensor) -> Tensor:
        """Embeddings (N, 12, width) of the frames from their tokens (N, 12, P, width), each knowing of the others."""
        clips, frames = tokens.shape[:2]
        x = tokens
        for block, adapters in zip(self.tower.blocks[-ADAPTED:], self.adapters, strict=True):
            x = self._adapted(x, block, cast("nn.ModuleDict", adapters))
        return self.tower.pooled(x.flatten(0, 1)).view(clips, frames, -1)

    def judge(self, embeddings: Tensor) -> Judged:
        """By the head on the mean over a clip's frames, and on each frame's embedding."""
        exact = embeddings.float()
        return Judged(self.head(exact.mean(dim=1)), self.head(exact))

    def forward(self, clips: Tensor) -> Tensor:
        """Clips (N, 12, 3, H, W) to logits (N, 2)."""
        tokens = self.encode(clips.flatten(0, 1))
        return self.judge(self.follow(tokens.view(*clips.shape[:2], *tokens.shape[1:]))).clips

    def _adapted(self, x: Tensor, block: ClipBlock, adapters: nn.ModuleDict) -> Tensor:
        clips, frames, places, width = x.shape
        in_time = (x + self.steps[:, None]).transpose(1, 2).flatten(0, 1)
        moved = adapters["temporal"](block.mix(in_time)).view(clips, places, frames, width)
        x = (x + moved.transpose(1, 2)).flatten(0, 1)
        seen = block.mix(x)
        x = x + seen + adapters["spatial"](seen)
        normed = block.ln_2(x)
        x = x + block.mlp(normed) + MLP_SHARE * adapters["mlp"](normed)
        return x.view(clips, frames, places, width)


def _sinusoids(steps: int, width: int) -> Tensor:
    """(steps, width): sines, then cosines of each step, at rates from 1 down to 1/10,000."""
    rates = torch.exp(torch.arange(width // 2) * (-math.log(10_000) / (width // 2)))
    angles = torch.arange(steps)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)
