"""Two linear towers, one for a mouth and one for a sound, that meet where the two belong together.

Ours, in the manner of SyncNet (Chung and Zisserman, 2016): five neighbouring frames of a mouth and a fifth of a second
of sound become vectors whose cosine says how well they fit. Each tower is one linear map of a coarse picture: with the
little speech there is to learn from, canonical correlations find more than convolutions do.
"""

from typing import Final, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clipwarden.models.audio.mel import MELS

FRAMES: Final = 5
MOUTH_PX: Final = 96
SIDE: Final = 16
BANDS: Final = 20
COLUMNS: Final = 13
EMBEDDING: Final = 4
LUMA: Final = (0.299, 0.587, 0.114)


class MouthTower(nn.Module):
    """Mouths (N, 3, 5, 96, 96) to embeddings (N, 4)."""

    luma: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(FRAMES * SIDE * SIDE, EMBEDDING)
        self.register_buffer("luma", torch.tensor(LUMA).view(3, 1, 1, 1), persistent=False)

    def coarse(self, mouths: Tensor) -> Tensor:
        """Brightness at 16 by 16 places of each frame, (N, 1280)."""
        grey = (mouths.float() * self.luma).sum(dim=1)
        return F.avg_pool2d(grey, MOUTH_PX // SIDE).flatten(1)

    def forward(self, mouths: Tensor) -> Tensor:
        return cast("Tensor", self.last(self.coarse(mouths)))


class SoundTower(nn.Module):
    """Log-mel windows (N, 1, 80, 13) in [-1, 1] to embeddings (N, 4)."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(BANDS * COLUMNS, EMBEDDING)

    def coarse(self, sounds: Tensor) -> Tensor:
        """Level of 20 bands at 13 times, (N, 260)."""
        return F.avg_pool2d(sounds.float(), (MELS // BANDS, 1)).flatten(1)

    def forward(self, sounds: Tensor) -> Tensor:
        return cast("Tensor", self.last(self.coarse(sounds)))


class _Scorer(nn.Module):
    """From embeddings (…, 4) of both kinds to logits (…) of belonging together."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))
        self.bias = nn.Parameter(torch.tensor(0.0))

    def forward(self, mouths: Tensor, sounds: Tensor) -> Tensor:
        cosine = (F.normalize(mouths, dim=-1) * F.normalize(sounds, dim=-1)).sum(dim=-1)
        return self.scale * cosine + self.bias


class SyncNetwork(nn.Module):
    """Mouths and sounds to logits of being in sync, in float32. 6,170 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.mouth = MouthTower()
        self.sound = SoundTower()
        self.scorer = _Scorer()

    def forward(self, mouths: Tensor, sounds: Tensor) -> Tensor:
        """Logits (N,) of N mouths (N, 3, 5, 96, 96), each with one sound (N, 1, 80, 13)."""
        return cast("Tensor", self.scorer(self.mouth(mouths), self.sound(sounds)))
