"""Two small towers, one for a mouth and one for a sound, that meet where the two belong together.

Ours, in the manner of SyncNet (Chung and Zisserman, 2016): five neighbouring frames of a mouth and a fifth of a second
of sound become vectors whose cosine says how well they fit.
"""

from itertools import pairwise
from typing import Final, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

FRAMES: Final = 5
MOUTH_PX: Final = 96
EMBEDDING: Final = 256
_MOUTH_WIDTHS: Final = (32, 64, 96, 160, 256)
_SOUND_WIDTHS: Final = (32, 64, 128, 192)
_FIRST_SCALE: Final = 10.0
_FIRST_BIAS: Final = -5.0


def _halving(inputs: int, outputs: int) -> list[nn.Module]:
    """Two convolutions, the first of which halves the sides."""
    first = [nn.Conv2d(inputs, outputs, 3, 2, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
    return [*first, nn.Conv2d(outputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]


class MouthTower(nn.Module):
    """Mouths (N, 3, 5, 96, 96) to embeddings (N, 256)."""

    def __init__(self) -> None:
        super().__init__()
        first = nn.Conv3d(3, _MOUTH_WIDTHS[0], (FRAMES, 7, 7), (1, 2, 2), padding=(0, 3, 3), bias=False)
        self.motion = nn.Sequential(first, nn.BatchNorm3d(_MOUTH_WIDTHS[0]), nn.ReLU())
        self.places = nn.Sequential(*(m for a, b in pairwise(_MOUTH_WIDTHS) for m in _halving(a, b)))
        self.last = nn.Linear(_MOUTH_WIDTHS[-1], EMBEDDING)

    def forward(self, mouths: Tensor) -> Tensor:
        pooled = self.places(self.motion(mouths).squeeze(2)).mean(dim=(2, 3))
        return cast("Tensor", self.last(pooled.float()))


class SoundTower(nn.Module):
    """Log-mel windows (N, 1, rows, columns) in [-1, 1] to embeddings (N, 256)."""

    def __init__(self) -> None:
        super().__init__()
        first = nn.Conv2d(1, _SOUND_WIDTHS[0], 3, padding=1, bias=False)
        self.first = nn.Sequential(first, nn.BatchNorm2d(_SOUND_WIDTHS[0]), nn.ReLU())
        self.places = nn.Sequential(*(m for a, b in pairwise(_SOUND_WIDTHS) for m in _halving(a, b)))
        self.last = nn.Linear(_SOUND_WIDTHS[-1], EMBEDDING)

    def forward(self, sounds: Tensor) -> Tensor:
        pooled = self.places(self.first(sounds)).mean(dim=(2, 3))
        return cast("Tensor", self.last(pooled.float()))


class _Scorer(nn.Module):
    """From embeddings (…, 256) of both kinds to logits (…) of belonging together."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(_FIRST_SCALE))
        self.bias = nn.Parameter(torch.tensor(_FIRST_BIAS))

    def forward(self, mouths: Tensor, sounds: Tensor) -> Tensor:
        cosine = (F.normalize(mouths, dim=-1) * F.normalize(sounds, dim=-1)).sum(dim=-1)
        return self.scale * cosine + self.bias


class SyncNetwork(nn.Module):
    """Mouths and sounds to logits of being in sync; the embeddings and what follows them are float32.

    2,493,058 parameters.
    """

    def __init__(self) -> None:
        super().__init__()
        self.mouth = MouthTower()
        self.sound = SoundTower()
        self.scorer = _Scorer()

    def forward(self, mouths: Tensor, sounds: Tensor) -> Tensor:
        """Logits (N,) of N mouths (N, 3, 5, 96, 96), each with one sound (N, 1, rows, columns)."""
        return cast("Tensor", self.scorer(self.mouth(mouths), self.sound(sounds)))


def matching_loss(network: SyncNetwork, mouths: Tensor, sounds: Tensor) -> Tensor:
    """What training lessens, one number: how badly each mouth finds its own sound among candidates.

    mouths: embeddings (N, 256); sounds: embeddings (N, M, 256), the first of each row the mouth's own, the others the
    same clip's at another time or another clip's. Cross entropy over the row (InfoNCE), and over each logit by itself,
    both sides weighing alike, so that a logit means something without its rivals.
    """
    logits = network.scorer(mouths[:, None], sounds)
    own = torch.zeros(len(logits), dtype=torch.int64, device=logits.device)
    alone = F.softplus(-logits[:, 0]).mean() + F.softplus(logits[:, 1:]).mean()
    return F.cross_entropy(logits, own) + alone / 2
